"""Servers and clients as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Answers at once, so that the clients are what is measured.
SERVER = HERE / "calls" / "server.py"


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """What the server prints first, which is its address; it ends with its standard input."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=str(ROOT)
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def answered(*arguments: str, environment: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
    """The last line that a program prints, as JSON. Raises CalledProcessError where it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=1800,
    )
    found: Dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def say(text: str) -> None:
    """How far it is, on the terminal and not on the page."""
    print(f"  {text}", file=sys.stderr, flush=True)
