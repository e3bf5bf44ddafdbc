"""Claude Code's command, one process for each agent: what users pick for want of another way."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from claude_force.testing import MessagesServer, Script, tool_calls

from ..processes import ROOT
from ..used import cpu_seconds
from .files import FINAL, NAMES

PROCESSES, REQUESTS = 5, 4
MISSING = "the command is not here: `make .venv-cli/ready` installs it"
_SECONDS = 180
_LOOK_SECONDS = 0.02
_DEAD_END = "http://127.0.0.1:9"
_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "none",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "SHELL": "/bin/bash",
    # Whatever is not on loopback is a dead end.
    "HTTP_PROXY": _DEAD_END,
    "HTTPS_PROXY": _DEAD_END,
    "NO_PROXY": "127.0.0.1",
}


def command_path() -> Optional[Path]:
    """The command that `make test-cli` installs; None where it is not there."""
    found = ROOT.glob(".venv-cli/lib/python3*/site-packages/claude_agent_sdk/_bundled/claude")
    return next(found, None)


def measure(command: Path, root: Path, home: Path) -> Dict[str, Any]:
    """Runs `PROCESSES` of it at once. The memory of each is its own and its share of what is shared."""
    answers = [tool_calls(("Read", {"file_path": name})) for name in NAMES[: REQUESTS - 1]]
    # It asks for more than the benchmarks' own server knows.
    with MessagesServer(answer=Script([*answers, FINAL])) as server:
        return _run(command, server.base_url, root, home)


def _run(command: Path, base_url: str, root: Path, home: Path) -> Dict[str, Any]:
    environment = {
        **_ENVIRONMENT,
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": base_url,
    }
    cpu, began = cpu_seconds(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = [
        subprocess.Popen(
            [str(command), "-p", f"Read the notes, {number}.", "--agent", "reader"],
            cwd=str(root),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    peak = _watch(running)
    texts = [process.communicate(timeout=_SECONDS)[0] for process in running]
    return {
        "ended": sum(FINAL in text for text in texts),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": cpu_seconds(resource.RUSAGE_CHILDREN) - cpu,
        "peak_mb": peak / 2**20,
    }


def _watch(running: List[Any]) -> int:
    """The most that all of them took at one time, in bytes; waits until they have ended."""
    peak, end = 0, time.monotonic() + _SECONDS
    while any(process.poll() is None for process in running) and time.monotonic() < end:
        peak = max(peak, sum(_memory(process.pid) for process in running))
        time.sleep(_LOOK_SECONDS)
    for process in running:
        # It does nothing to those that have ended.
        process.kill()
    return peak


def _memory(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
