"""The files that the measured agents read, and how those without tools of their own read them."""

from __future__ import annotations

from itertools import chain, repeat
from pathlib import Path

# The last answer of each agent.
FINAL = "All files are read."
NAMES = tuple(f"notes/{number}.txt" for number in range(10))
_LINES = 40
AGENT = "---\nname: reader\ndescription: Reads\nmodel: {}\ntools: Read, Grep, Glob\n---\n{}"


def write_project(folder: Path, model: str, system: str) -> Path:
    """A project with an agent that reads, and files of 2 KB; returns its root."""
    (folder / ".git").mkdir(parents=True)
    (folder / "notes").mkdir()
    agents = folder / ".claude" / "agents"
    agents.mkdir(parents=True)
    (agents / "reader.md").write_text(AGENT.format(model, system), encoding="utf-8")
    for name in NAMES:
        lines = chain([name], repeat("a line of a file that is read", _LINES * 5 // 3))
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def read(root: Path, file_path: str) -> str:
    """What Read answers, without any of its checks."""
    text = (root / file_path).read_text(encoding="utf-8")
    return "\n".join(f"{number}\t{line}" for number, line in enumerate(text.split("\n"), 1))
