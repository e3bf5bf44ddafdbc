"""The part of `demo` with tools: five agents read this package, at once and again, and one edits."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..async_orchestrator import AsyncAgentOrchestrator
from ..errors import WorktreeError
from ..response_cache import ResponseCache
from ..testing import MessagesServer, Script, by_text, tool_calls
from ..types import AgentResult
from . import render, streams

# Each agent, and what it searches for.
READERS = (
    ("error-auditor", "raise "),
    ("lock-auditor", "Lock\\("),
    ("time-auditor", "time\\.time"),
    ("json-auditor", "json\\.loads"),
    ("path-auditor", "os\\.path"),
)
EDITOR, NOTES = "proof-reader", "NOTES.txt"
_FIRST_TOKEN_SECONDS = 0.3
_PACKAGE = Path(__file__).resolve().parent.parent
_INTRODUCTION = (
    "\nThe same with tools: {} agents search and read this package, each in three requests; then the same\n"
    "again, from the cache; then one edits a file in a copy of its own. A script stands for the model."
)


@dataclass(frozen=True)
class ToolRound:
    """Agents that used tools at once, and the requests that were made for them."""

    name: str
    wall_seconds: float
    requests: int
    results: Tuple[AgentResult, ...]

    def fields(self) -> Dict[str, Any]:
        """Returns the round as `--json` shows it."""
        return {
            "run": self.name,
            "agents": len(self.results),
            "answered": sum(result.success for result in self.results),
            "wall_seconds": self.wall_seconds,
            "turns": sum(len(result.turns) for result in self.results),
            "tool_calls": sum(len(result.tool_calls) for result in self.results),
            "requests": self.requests,
        }


@dataclass(frozen=True)
class ToolDemo:
    """What the part did. `edit` is None where this machine can't make patches, for `reason`."""

    rounds: Tuple[ToolRound, ...]
    edit: Optional[AgentResult]
    reason: str = ""

    @property
    def results(self) -> List[AgentResult]:
        """All results."""
        edited = [] if self.edit is None else [self.edit]
        return [*(result for one in self.rounds for result in one.results), *edited]

    def fields(self) -> Dict[str, Any]:
        """Returns the part as `--json` shows it."""
        patch = None if self.edit is None else self.edit.patch
        return {"runs": [one.fields() for one in self.rounds], "patch": patch}

    def show(self) -> None:
        """Prints the part."""
        streams.write_line(_INTRODUCTION.format(len(READERS)) + "\n")
        heads = ("run", "wall s", "turns", "tool calls", "requests")
        render.show_table(heads, [_cells(one.fields()) for one in self.rounds])
        for result in self.rounds[0].results:
            streams.write_line(f"{result.agent_name}: {result.output or result.error}")
        if self.edit is None:
            streams.status(f"no agent edits here: {self.reason}")
        else:
            streams.write_line(f"\n== the patch of {self.edit.agent_name}")
            streams.write_data(self.edit.patch or f"none: {self.edit.error}")


def _cells(fields: Dict[str, Any]) -> Sequence[str]:
    wall = f"{fields['wall_seconds']:.3f}"
    return (fields["run"], wall, *(str(fields[name]) for name in ("turns", "tool_calls", "requests")))


async def run_tools() -> ToolDemo:
    """Runs the part against a stand-in of its own. Raises InputError."""
    with _project() as project, MessagesServer(
        answer=_scripts(), time_to_first_token=_FIRST_TOKEN_SECONDS
    ) as server, ResponseCache(cache_dir=project.parent / "cache") as cache:
        async with AsyncAgentOrchestrator(
            project,
            api_key="demo",
            base_url=server.base_url,
            response_cache=cache,
            enable_tracking=False,
            max_concurrent=len(READERS),
        ) as orchestrator:
            rounds = (
                await _read(orchestrator, server, f"{len(READERS)} with tools"),
                await _read(orchestrator, server, f"{len(READERS)} again"),
            )
            try:
                edit = await orchestrator.execute_agent(EDITOR, f"Correct {NOTES}.", tools="edit")
            except WorktreeError as error:
                return ToolDemo(rounds, None, error.for_shell())
            return ToolDemo(rounds, edit)


async def _read(orchestrator: AsyncAgentOrchestrator, server: MessagesServer, name: str) -> ToolRound:
    before, started = len(server.requests), time.perf_counter()
    tasks = [(agent, f"Where does this package have {pattern}?") for agent, pattern in READERS]
    results = await orchestrator.execute_multiple(tasks, tools="read")
    return ToolRound(name, time.perf_counter() - started, len(server.requests) - before, tuple(results))


@contextmanager
def _project() -> Iterator[Path]:
    """Makes a project with this package in it, and the agents."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder).resolve() / "project"
        agents = project / ".claude" / "agents"
        agents.mkdir(parents=True)
        for name, _ in READERS:
            _write_agent(agents, name, "Read, Grep, Glob")
        _write_agent(agents, EDITOR, "Read, Edit")
        (project / NOTES).write_text("A fleet of agnets, with their tools.\n", encoding="utf-8")
        shutil.copytree(
            str(_PACKAGE),
            str(project / _PACKAGE.name),
            ignore=shutil.ignore_patterns("__pycache__", "assets"),
        )
        yield project


def _write_agent(folder: Path, name: str, tools: str) -> None:
    text = f"---\nname: {name}\ndescription: Of the demo\ntools: {tools}\n---\nYou are the {name}.\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def _scripts() -> Any:
    """Returns what stands for the model: it calls tools, and answers with what they found."""
    folder = _PACKAGE.name
    scripts: Dict[str, Any] = {
        f"the {name}.": Script(
            [
                tool_calls(("Grep", {"pattern": pattern, "path": folder}), ("Glob", {"pattern": "**/*.py"})),
                tool_calls(("Read", {"file_path": f"{folder}/errors.py", "limit": 60})),
                _found,
            ]
        )
        for name, pattern in READERS
    }
    edit = {"file_path": NOTES, "old_string": "agnets", "new_string": "agents"}
    scripts[f"the {EDITOR}."] = Script(
        [tool_calls(("Read", {"file_path": NOTES})), tool_calls(("Edit", edit)), "One word was misspelled."]
    )
    return by_text(scripts)


def _found(body: Dict[str, Any]) -> str:
    """Returns the first line that Grep found, which counts the files."""
    first = body["messages"][2]["content"][0]["content"]
    return str(first).partition("\n")[0]
