"""Walks a page of documentation: its examples run in their order, as they are written, in one new project.

`sh` blocks run in bash, `python` blocks as programs, and a `json` block becomes the project's claude.json.
Blocks of other languages show something and are not run. The stand-in is the API.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple, Optional

from forge import ask

ROOT = Path(__file__).parent.parent
FORGE = str(Path(__file__).with_name("forge.py"))
RUN = ("sh", "python", "json")
# What an example may take, in seconds, on a machine that has much else to do.
PATIENCE = 60
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)


class Block(NamedTuple):
    """A fenced block and the line that it begins on."""

    language: str
    text: str
    line: int


class Done(NamedTuple):
    """How an example ended."""

    block: Block
    code: int
    out: str
    error: str


def blocks_of(page):
    """The page's blocks, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in _BLOCK.finditer(text)
    ]


def examples_of(page):
    """Those that run."""
    return [block for block in blocks_of(page) if block.language in RUN]


class Forge:
    """Starts programs without the second that the import of the SDK takes."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        self.socket = str(Path(self._folder.name, "socket"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen([sys.executable, FORGE, "serve", self.socket], env=environment)
        while not Path(self.socket).exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"{FORGE} did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def run(self, code, name, folder, environment, out, error):
        """The exit status of a program; what it leaves behind is killed."""
        program = {"code": code, "name": name, "folder": str(folder), "environment": environment}
        group = []
        patience = threading.Timer(PATIENCE, lambda: _kill_group(group[0]))
        patience.start()
        try:
            with Path(os.devnull).open() as nothing:
                streams = [file.fileno() for file in (nothing, out, error)]
                return ask(self.socket, program, streams, group.append)
        finally:
            patience.cancel()
            _kill_group(group[0])


class Project:
    """An empty folder with a home of its own beside it, and commands that lead to this package.

    Programs and commands come from `forge`; without one, commands start by themselves.
    """

    def __init__(self, home, server, forge=None, name="page", **environment):
        self.home, self.folder, self.name = home, home / "project", name
        self._forge = forge
        self.folder.mkdir()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANTHROPIC_", "CLAUDE_", "GITHUB_"))
        }
        self.environment = {
            **kept,
            **server.environment(),
            "HOME": str(home),
            "CLAUDE_FORCE_LOOPBACK_ONLY": "1",
            "PATH": _commands(home, forge) + os.pathsep + os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **environment,
        }

    def run(self, block):
        """How a block ended; None for one that is not run."""
        if block.language == "json":
            return self._configure(block.text)
        # The port that a page names may be taken on the machine that runs the tests.
        text = block.text.replace("8787", str(_free_port()))
        with _file(self.home) as out, _file(self.home) as error:
            if block.language == "python":
                place = f"{self.name}:{block.line}"
                code = self._forge.run(text, place, self.folder, self.environment, out, error)
            else:
                code = self.bash(text, out, error)
            return Done(block, code, _text(out), _text(error))

    def bash(self, text, out, error, **environment):
        """The exit status of a script; what it started in the background ends with it."""
        command = ["bash", "-euo", "pipefail", "-c", text]
        environment = {**self.environment, **environment}
        with subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=out, stderr=error, start_new_session=True
        ) as process:
            try:
                return process.wait(timeout=PATIENCE)
            finally:
                _kill_group(process.pid)

    def _configure(self, text):
        """claude.json, and a line of text in each file that it names and the page has not made."""
        claude = self.folder / ".claude"
        for agent in json.loads(text).get("agents", {}).values():
            for path in (claude / agent[name] for name in ("file", "contract") if name in agent):
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.write_text("Answer in three paragraphs.\n", encoding="utf-8")
        (claude / "claude.json").write_text(text, encoding="utf-8")


def walk(page, home, forge, **environment) -> "list[Optional[Done]]":
    """How each of the page's examples ended, with more variables in its environment."""
    from claude_force.testing import MessagesServer

    with MessagesServer() as server:
        project = Project(home, server, forge, page.name, **environment)
        return [project.run(block) for block in examples_of(page)]


def check(done):
    """That an example did what the page says: it ended well and had something to show."""
    if done is not None:
        where = f"the example in line {done.block.line}"
        assert done.code == 0, f"{where} ended with {done.code}\n{done.out}\n{done.error}"
        assert done.out.strip(), f"{where} shows nothing\n{done.error}"
        assert "Traceback" not in done.error, f"{where}\n{done.error}"


def _commands(folder, forge):
    """`python` and `claude-force` of the interpreter that runs the tests, whatever is installed."""
    binaries = folder / "bin"
    binaries.mkdir()
    # As the installed command: with -m, Python would import from the working directory first.
    script = binaries / "main.py"
    script.write_text(
        "import sys\nfrom claude_force.cli.main import main\nsys.exit(main())\n", encoding="utf-8"
    )
    # -I -S: the one that asks needs nothing but the standard library.
    ours = f' -I -S "{FORGE}" command "{forge.socket}"' if forge else f' "{script}"'
    for name, arguments in (("python", ""), ("claude-force", ours)):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return str(binaries)


def _file(folder):
    return tempfile.NamedTemporaryFile(dir=folder)


def _text(file):
    return Path(file.name).read_text(encoding="utf-8")


def _kill_group(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
