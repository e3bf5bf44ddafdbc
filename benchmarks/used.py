"""What measured processes share: a project with one agent, and their own resource usage."""

from __future__ import annotations

import resource
from pathlib import Path


def project(folder: Path, model: str = "sonnet", system: str = "You help.") -> Path:
    """A `.claude` folder in `folder` with the agent `expert`."""
    agents = folder / ".claude" / "agents"
    agents.mkdir(parents=True)
    text = f"---\nname: expert\nmodel: {model}\n---\n{system}"
    (agents / "expert.md").write_text(text, encoding="utf-8")
    return agents.parent


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    """Of the processor, for this process or for `who`."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def resident_bytes() -> int:
    """Now, not at its highest (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
