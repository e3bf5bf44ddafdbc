"""Runs agents with their tools for a call runner: opens the tools, runs the loop, closes the tools."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

import anyio
from anyio import to_thread

from . import settings
from .agent_types import Agent
from .engine.agent_loop import Bounds
from .engine.executor import wait_until_ended
from .engine.tool_loop import Offered, ToolLoop
from .errors import ClosedError
from .tool_options import ToolOptions
from .tools.protocol import Tools
from .types import AgentResult, CallCompleted

if TYPE_CHECKING:
    # Only agents that edit need them.
    from .tools.worktree import Worktree, Worktrees

logger = logging.getLogger(__name__)

# How long tools may take to end what they have started.
_CLOSE_SECONDS = 10.0

# Opens the tools that an agent is granted in a project; None where no tool is granted. It blocks, and raises
# InputError.
OpenTools = Callable[..., Optional[Tools]]


class ToolRuns:
    """The runs of agents with tools that are in flight.

    Example:
        runs = ToolRuns()
        tools = await runs.open(agent, options, registry.project)
        result = await runs.run(loop, tools, record)

    Attributes:
        open_tools: `tools.toolbox.open_tools`, unless a test has set another.
    """

    def __init__(self) -> None:
        self.open_tools: Optional[OpenTools] = None
        # The copies of the project that agents edit, by the tools that work in them.
        self._copies: Dict[Tools, Worktree] = {}
        self._worktrees: Optional[Worktrees] = None
        self._mutex = threading.Lock()
        self._live: Dict[anyio.CancelScope, asyncio.AbstractEventLoop] = {}

    async def open(
        self, agent: Agent, options: ToolOptions, root: Path, run: Optional[Any] = None
    ) -> Optional[Tools]:
        """Returns the tools that the agent is granted; None where no tool is granted. Raises InputError.

        Tools that can change files work in a copy of the project, unless the options say otherwise. All
        copies for one `run`, any object, begin as the project was when the first was made.
        """
        if self.open_tools is None:
            from .tools.toolbox import open_tools

            self.open_tools = open_tools
        # It reads settings files, and copies the project.
        work = partial(self._open, agent, options, root, run)
        opening: asyncio.Future[Optional[Tools]] = asyncio.ensure_future(to_thread.run_sync(work))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and nobody else would close what it opens.
            try:
                await wait_until_ended(opening)
            finally:
                await self._close_opened(opening)
            raise

    async def offered(self, agent: Agent, options: ToolOptions, root: Path) -> Optional[Offered]:
        """Returns what requests have of the tools of `open`, which are closed again; None without any."""
        # Nothing is run, so no copy of the project is needed.
        tools = await self.open(agent, options._replace(in_place=True), root)
        if tools is None:
            return None
        await self._close(tools)
        return Offered(tools.definitions, tools.context)

    def _open(self, agent: Agent, options: ToolOptions, root: Path, run: Optional[Any]) -> Optional[Tools]:
        assert self.open_tools is not None
        if options.in_place:
            return self.open_tools(agent, options.grant, root, options.add_dirs)
        made: List[Worktree] = []

        def open_copy(project: Path, has_bash: bool) -> Worktree:
            made.append(self._open_worktrees().open(project, run, has_bash))
            return made[0]

        try:
            tools = self.open_tools(agent, options.grant, root, options.add_dirs, open_copy)
        except BaseException:
            for worktree in made:
                worktree.close()
            raise
        if not made or tools is None:
            return tools
        from .tools.copied_tools import CopiedTools

        copied = CopiedTools(tools, made[0])
        self._copies[copied] = made[0]
        return copied

    def _open_worktrees(self) -> Worktrees:
        with self._mutex:
            if self._worktrees is None:
                from .tools.worktree import Worktrees

                self._worktrees = Worktrees()
            return self._worktrees

    async def run(
        self, loop: ToolLoop, tools: Tools, record: Callable[[CallCompleted], AgentResult]
    ) -> AgentResult:
        """Returns the result of the agent, a failed one too. Raises InputError before anything is sent.

        `record` receives the completed call before the tools are closed. Where the run is cancelled, or a
        callback ends it, that is what it cost so far.
        """
        try:
            try:
                completed = await self._completed(loop)
            except BaseException:
                cancelled = loop.cancelled()
                if cancelled is not None:
                    record(cancelled)
                raise
            await self._add_changes(tools, completed.result)
            return record(completed)
        finally:
            await self._close(tools)

    async def _add_changes(self, tools: Tools, result: AgentResult) -> None:
        """Sets what an agent has changed in its copy of the project."""
        copy = self._copies.get(tools)
        if copy is not None:
            changes = await to_thread.run_sync(copy.changes)
            result.patch, result.changed_files = changes.patch, changes.files
            result.patch_note = changes.note

    async def _completed(self, loop: ToolLoop) -> CallCompleted:
        with anyio.CancelScope() as scope:
            self._live[scope] = asyncio.get_running_loop()
            try:
                return await loop.run()
            finally:
                del self._live[scope]
        return loop.ended_by(ClosedError("The orchestrator was closed during the call"))

    def remove_copies(self) -> None:
        """Removes what is left of the copies. Blocks."""
        with self._mutex:
            worktrees, self._worktrees = self._worktrees, None
        if worktrees is not None:
            worktrees.close()

    async def _close_opened(self, opening: asyncio.Future[Optional[Tools]]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            return
        tools = opening.result()
        if tools is not None:
            await self._close(tools)

    async def _close(self, tools: Tools) -> None:
        # A task of its own, also where this one is cancelled: what a tool has started must not outlive it.
        await wait_until_ended(asyncio.ensure_future(self._close_all(tools)))

    async def _close_all(self, tools: Tools) -> None:
        await _close_in_time(tools)
        copy = self._copies.pop(tools, None)
        if copy is not None:
            await to_thread.run_sync(copy.close)

    def close(self) -> None:
        """Ends the runs of this event loop; their results have a ClosedError."""
        running = asyncio.get_running_loop()
        for scope in [scope for scope, loop in self._live.items() if loop is running]:
            scope.cancel()


def bounds_of(agent: Agent, options: ToolOptions) -> Bounds:
    """Returns the bounds of an agent's loop: the caller's, else those of its file, else the default."""
    turns = options.turns(agent.settings.max_turns, settings.MAX_TURNS)
    return Bounds(turns, options.max_tool_calls)


async def _close_in_time(tools: Tools) -> None:
    with anyio.move_on_after(_CLOSE_SECONDS) as scope:
        try:
            await tools.close()
        except Exception:
            logger.exception("tools could not be closed")
    if scope.cancelled_caught:
        logger.error("tools were not closed within %g s", _CLOSE_SECONDS)
