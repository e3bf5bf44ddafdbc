"""Print the async frames that a real call goes through, from `execute_agent` to the transport.

    python scripts/call_path.py

Makes a call that is in no cache, and a row of a bulk run, against the stand-in server, and reads the
suspended coroutines of all tasks while the server thinks. Fails where a path is longer than its limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator, NamedTuple, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from claude_force import AsyncAgentOrchestrator  # noqa: E402
from claude_force.testing import MessagesServer  # noqa: E402

PACKAGE = ROOT / "claude_force"
AGENT = "writer"
# From `execute_agent` to the first frame of the transport, that one included.
MOST_FRAMES, MOST_MODULES = 9, 5
# The same from the first frame of a row of `run many`.
MOST_FRAMES_OF_A_ROW = 12


class Frame(NamedTuple):
    """One suspended coroutine."""

    module: str
    function: str


class CallPath(NamedTuple):
    """The frames of one call, outermost first, up to the first one of the transport."""

    frames: Tuple[Frame, ...]

    @property
    def modules(self) -> Tuple[str, ...]:
        return tuple(dict.fromkeys(frame.module for frame in self.frames))

    def since(self, function: str) -> CallPath:
        """The part that begins with `function`."""
        names = [frame.function.rpartition(".")[2] for frame in self.frames]
        return CallPath(self.frames[names.index(function) :])


async def path_of_call(project: Path) -> CallPath:
    """The path of a call that no cache has the answer of."""
    return await _traced(project, lambda fleet: fleet.execute_agent(AGENT, "Write."))


async def path_of_row(project: Path) -> CallPath:
    """The path of a row of a bulk run."""
    return await _traced(project, lambda fleet: fleet.execute_multiple([(AGENT, "Write.")]))


async def _traced(project: Path, work: Callable[[AsyncAgentOrchestrator], Awaitable[Any]]) -> CallPath:
    with MessagesServer(time_to_first_token=0.5) as server:
        async with AsyncAgentOrchestrator(project, "a-key", base_url=server.base_url) as fleet:
            call = asyncio.ensure_future(work(fleet))
            for _ in range(1000):
                await asyncio.sleep(0.01)
                if server.in_flight:
                    break
            path = _path()
            await call
    return path


def _path() -> CallPath:
    """The frames of the caller's task, then those of the task that its call runs in."""
    tasks = [list(_frames(task.get_coro())) for task in asyncio.all_tasks()]
    (sending,) = [frames for frames in tasks if any(map(_is_transport, frames))]
    (calling,) = [frames for frames in tasks if any(map(_is_executor, frames))]
    frames = calling if calling is sending else calling + sending
    last = next(number for number, frame in enumerate(frames) if _is_transport(frame))
    return CallPath(tuple(frames[: last + 1]))


def _frames(waiting: Any) -> Iterator[Frame]:
    """The suspended coroutines of one task that are the package's, outermost first."""
    while waiting is not None:
        code = getattr(waiting, "cr_code", None) or getattr(waiting, "ag_code", None)
        if code is not None and str(PACKAGE) in code.co_filename:
            name = Path(code.co_filename).relative_to(PACKAGE).with_suffix("")
            yield Frame(".".join(name.parts), waiting.__qualname__)
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)


def _is_executor(frame: Frame) -> bool:
    return frame.function == "CachingExecutor.execute"


def _is_transport(frame: Frame) -> bool:
    return frame.module.startswith("transport.")


def write_project(folder: Path) -> Path:
    """A project with one agent."""
    config = folder / ".claude" / "claude.json"
    config.parent.mkdir(parents=True)
    (config.parent / "writer.md").write_text("You write.", encoding="utf-8")
    config.write_text(json.dumps({"agents": {AGENT: {"file": "writer.md"}}}), encoding="utf-8")
    return config


def _show(title: str, path: CallPath) -> None:
    print(f"{title}: {len(path.frames)} async frames, {len(path.modules)} modules")
    for number, frame in enumerate(path.frames, 1):
        print(f"  {number:2} {frame.module:30} {frame.function}")


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory() as folder:
        # The cache and the ledger of the caller stay as they are.
        os.environ["HOME"] = folder
        project = write_project(Path(folder) / "project")
        call = asyncio.run(path_of_call(project)).since("execute_agent")
        row = asyncio.run(path_of_row(project)).since("run_row")
    _show("A cache miss", call)
    _show("A row of run many", row)
    is_short = len(call.frames) <= MOST_FRAMES and len(call.modules) <= MOST_MODULES
    return 0 if is_short and len(row.frames) <= MOST_FRAMES_OF_A_ROW else 1


if __name__ == "__main__":
    sys.exit(main())
