"""Runs agents with their tools for a call runner: opens the tools, runs the loop, closes the tools."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence

import anyio
from anyio import to_thread

from . import settings
from .agent_types import Agent
from .engine.agent_loop import Bounds
from .engine.executor import wait_until_ended
from .engine.tool_loop import Offered, ToolLoop
from .errors import ClosedError
from .tool_options import ToolOptions
from .tools.grant import Grant
from .tools.protocol import Tools
from .types import AgentResult, CallCompleted

logger = logging.getLogger(__name__)

# How long tools may take to end what they have started.
_CLOSE_SECONDS = 10.0

# Opens the tools that an agent is granted in a project; None where that is no tool. It blocks, and raises
# InputError.
OpenTools = Callable[[Agent, Grant, Path, Sequence[Path]], Optional[Tools]]


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
        self._live: Dict[anyio.CancelScope, asyncio.AbstractEventLoop] = {}

    async def open(self, agent: Agent, options: ToolOptions, root: Path) -> Optional[Tools]:
        """Returns the tools that the agent is granted; None where that is no tool. Raises InputError."""
        if self.open_tools is None:
            from .tools.toolbox import open_tools

            self.open_tools = open_tools
        # It reads settings files.
        work = partial(self.open_tools, agent, options.grant, root, options.add_dirs)
        opening: asyncio.Future[Optional[Tools]] = asyncio.ensure_future(to_thread.run_sync(work))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and nobody else would close what it opens.
            try:
                await wait_until_ended(opening)
            finally:
                await _close_opened(opening)
            raise

    async def offered(self, agent: Agent, options: ToolOptions, root: Path) -> Optional[Offered]:
        """Returns what requests have of the tools of `open`, which are closed again; None without any."""
        tools = await self.open(agent, options, root)
        if tools is None:
            return None
        await _close(tools)
        return Offered(tools.definitions, tools.context)

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
            return record(completed)
        finally:
            await _close(tools)

    async def _completed(self, loop: ToolLoop) -> CallCompleted:
        with anyio.CancelScope() as scope:
            self._live[scope] = asyncio.get_running_loop()
            try:
                return await loop.run()
            finally:
                del self._live[scope]
        return loop.ended_by(ClosedError("The orchestrator was closed during the call"))

    def close(self) -> None:
        """Ends the runs of this event loop; their results have a ClosedError."""
        running = asyncio.get_running_loop()
        for scope in [scope for scope, loop in self._live.items() if loop is running]:
            scope.cancel()


def bounds_of(agent: Agent, options: ToolOptions) -> Bounds:
    """Returns the bounds of an agent's loop: the caller's, else those of its file, else the default."""
    turns = options.turns(agent.settings.max_turns, settings.MAX_TURNS)
    return Bounds(turns, options.max_tool_calls)


async def _close_opened(opening: asyncio.Future[Optional[Tools]]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        return
    tools = opening.result()
    if tools is not None:
        await _close(tools)


async def _close(tools: Tools) -> None:
    # A task of its own, also where this one is cancelled: what a tool has started must not outlive it.
    await wait_until_ended(asyncio.ensure_future(_close_in_time(tools)))


async def _close_in_time(tools: Tools) -> None:
    with anyio.move_on_after(_CLOSE_SECONDS) as scope:
        try:
            await tools.close()
        except Exception:
            logger.exception("tools could not be closed")
    if scope.cancelled_caught:
        logger.error("tools were not closed within %g s", _CLOSE_SECONDS)
