"""Shared by the tests of durable runs: databases, workers as tasks and as processes."""

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import sqlalchemy as sa
from fleet import until  # noqa: F401 - theirs too

from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.durable import Worker
from claude_force.durable.database import Database, parse_url

AGENT = "python-expert"


def orchestrator(config, url, **options):
    return AsyncAgentOrchestrator(config, api_key="test-key", durable=url, enable_tracking=False, **options)


@asynccontextmanager
async def working(url, **options):
    """A worker in this process."""
    async with Worker(url, **{"grace_seconds": 1, **options}) as worker:
        yield worker


@contextmanager
def database(url):
    """A connection to look at the tables."""
    opened = Database(parse_url(url))
    try:
        yield opened
    finally:
        opened.close()


def rows(url, query, **values):
    with database(url) as opened, opened.begin() as connection:
        return connection.execute(sa.text(query), values).all()


class WorkerProcess:
    """A `claude-force worker` process, which writes its output to `log`."""

    def __init__(self, url, name, folder, *options, program=("-m", "claude_force", "worker")):
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, program), "--name", name, *options],
                stdout=log, stderr=log, env={**os.environ, "CLAUDE_FORCE_DATABASE_URL": url},
            )  # fmt: skip

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """Stops it as a service manager does. Returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=90)

    def text(self):
        return self.log.read_text(errors="replace")


@contextmanager
def worker_processes(url, folder, *names, options=(), **more):
    """Starts worker processes and kills them at the end."""
    workers = [WorkerProcess(url, name, folder, *options, **more) for name in names]
    try:
        yield workers
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.kill()


STRANGE = Path(__file__).parent / "strange_worker.py"
DRIVER = Path(__file__).parent / "driver.py"


def drive(config, url, run, count):
    """Starts a driver process that writes a line for each result."""
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(config), url, run, str(count)], stdout=subprocess.PIPE, text=True
    )


def alive(url):
    """Returns the names of the workers in the database."""
    return {row.name for row in rows(url, "SELECT name FROM claude_force.cf_workers")}


def echo(body):
    """Answers with the question."""
    return "you said: " + body["messages"][-1]["content"]
