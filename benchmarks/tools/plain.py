"""Calls without tools, beside those of the commit before agents could use any."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from ..processes import ROOT, SERVER, served

BEFORE = "76df5a0"
MISSING = f"the commit {BEFORE} is not in this copy of the repository"
ROUNDS = 7
_CELL = {"concurrent": 100, "streamed": False, "requests": 600, "warm": 100}


def measure() -> Dict[str, Any]:
    """The milliseconds of the processor for a call, by round, before and now."""
    found: Dict[str, List[float]] = {"before": [], "now": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "before")
        git = ("git", "-C", str(ROOT), "worktree")
        if subprocess.run(
            [*git, "add", "-q", "--detach", str(folder), BEFORE], stderr=subprocess.DEVNULL
        ).returncode:
            return {}
        stack.callback(subprocess.run, [*git, "remove", "--force", str(folder)], check=True)
        base_url = stack.enter_context(served(str(SERVER)))
        clients = {"before": stack.enter_context(_client(folder)), "now": stack.enter_context(_client(ROOT))}
        for _ in range(ROUNDS):
            for name, client in clients.items():
                found[name].append(_milliseconds(client, base_url))
    return found


@contextmanager
def _client(tree: Path) -> Iterator[Any]:
    """The engine of one tree; ends with its standard input."""
    with tempfile.TemporaryDirectory() as home, subprocess.Popen(
        [sys.executable, "-m", "benchmarks.calls.measure", "claude-force", home],
        cwd=str(tree),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()


def _milliseconds(client: Any, base_url: str) -> float:
    client.stdin.write(json.dumps({"base_url": f"{base_url}/0", **_CELL}) + "\n")
    client.stdin.flush()
    found: Dict[str, float] = json.loads(client.stdout.readline())
    return found["cpu_ms"]
