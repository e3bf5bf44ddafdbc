"""Counts the requests of a run that no row can survive: `python benchmarks/run_endings.py [ROWS]`.

Prints a table: for each ending and each concurrency the requests that reached the stand-in, the exit code and
the lines on stderr of `claude-force run many`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from claude_force.testing import Fault, MessagesServer, faults

ROWS = 3000
CONCURRENT = ("1", "10", "auto")
DEAD = "http://127.0.0.1:1"
CREDIT = "Your credit balance is too low to access the Anthropic API."
ENDINGS: Dict[str, Optional[Fault]] = {
    "wrong key": faults.status(401),
    "no credit": faults.status(400, message=CREDIT),
    "disabled organisation": faults.status(403, message="This organization has been disabled."),
    "unknown model": faults.status(404, message="model: claude-none"),
    "dead endpoint": None,
}


def project(folder: Path, rows: int) -> None:
    """An agent and a file of tasks."""
    agents = folder / ".claude" / "agents"
    agents.mkdir(parents=True)
    text = "---\nname: reviewer\ndescription: Reviews code\n---\nYou review code.\n"
    (agents / "reviewer.md").write_text(text, encoding="utf-8")
    tasks = (json.dumps({"agent": "reviewer", "task": f"Task {number}"}) + "\n" for number in range(rows))
    (folder / "tasks.jsonl").write_text("".join(tasks), encoding="utf-8")


def measured(fault: Optional[Fault], concurrent: str, rows: int) -> Tuple[int, int, int]:
    """Requests, exit code and lines on stderr of one run."""
    with tempfile.TemporaryDirectory() as name, MessagesServer(faults=lambda _: fault) as server:
        folder = Path(name)
        project(folder, rows)
        address = {} if fault is not None else {"ANTHROPIC_BASE_URL": DEAD}
        own: Dict[str, Any] = {**server.environment(), **address, "HOME": name}
        words = ["run", "many", "tasks.jsonl", "-o", "out.jsonl", "--max-concurrent", concurrent]
        done = subprocess.run(
            [sys.executable, "-m", "claude_force", *words],
            cwd=folder,
            env={**os.environ, "CLAUDE_FORCE_LOOPBACK_ONLY": "1", **own},
            capture_output=True,
            check=False,
        )
        if (folder / "out.jsonl").stat().st_size:
            raise SystemExit("a row was written as failed")
        return len(server.requests), done.returncode, len(done.stderr.splitlines())


def main(rows: int = ROWS) -> None:
    print("| ending | concurrency | requests | exit code | lines |\n|---|---|---|---|---|")
    for ending, fault in ENDINGS.items():
        for concurrent in CONCURRENT:
            requests, code, lines = measured(fault, concurrent, rows)
            print(f"| {ending} | {concurrent} | {requests} | {code} | {lines} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
