"""Runs the tool calls of an answer: read-only ones at once, the others one after another."""

from __future__ import annotations

import json
import logging
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import anyio
import anyio.lowlevel

from .. import settings
from ..conversation import ToolResult, ToolUse
from ..formatting import byte_size
from ..limits.call_context import CallListener
from ..tools.protocol import ToolError, Tools
from ..types import ToolCall
from .task_group import TaskGroup
from .turn_journal import TurnRecord

logger = logging.getLogger(__name__)

# Of the text of a failed call, in `ToolCall.error`; the model gets all of it.
_MAX_ERROR_CHARACTERS = 300
_INTERRUPTED = "Interrupted: the run ended while the tool was running"


class ToolRunner:
    """Runs the calls of one agent, and records each of them.

    Example:
        runner = ToolRunner(tools, listener, clock.now)
        results = await runner.run(1, tool_uses(reply.content), TurnRecord(None, 1, call))

    Attributes:
        has_side_effects: whether a call has begun that is not read-only.
    """

    def __init__(self, tools: Tools, listener: CallListener, now: Callable[[], float]) -> None:
        """Times in the records count from now on, in seconds of the clock `now`."""
        self._tools, self._listener, self._now, self._began = tools, listener, now, now()
        self._records: Dict[Tuple[int, int], ToolCall] = {}
        self.has_side_effects = False
        # Of an earlier process, until a call is run.
        self._state: Optional[str] = None

    def calls(self) -> Tuple[ToolCall, ...]:
        """All calls so far, in the order in which the model wrote them."""
        return tuple(self._records[place] for place in sorted(self._records))

    async def run(self, turn: int, uses: Sequence[ToolUse], kept: TurnRecord) -> List[ToolResult]:
        """Returns a result for each call, in their order. `turn` is the number of the answer.

        A call with a result in `kept` is not run again.

        Read-only calls that follow each other run at once. Each other call waits for all before it, because
        the model may have written the next one on the assumption that it has been done.

        Raises only what ends the run: a cancellation, or what a listener raises.
        """
        results: List[ToolResult] = []
        numbered, place = list(enumerate(uses)), 0
        while place < len(numbered):
            size = await self._count_read_only(uses, place)
            batch = numbered[place : place + max(1, size)]
            results += await self._run_batch(turn, batch, kept, has_side_effects=size == 0)
            place += len(batch)
        return results

    async def _count_read_only(self, uses: Sequence[ToolUse], place: int) -> int:
        """How many calls from a place on are read-only, up to the first one that is not."""
        count = 0
        while place + count < len(uses) and self._is_read_only(uses[place + count]):
            count += 1
            # An answer may have thousands of them, and each is looked at.
            await anyio.lowlevel.checkpoint()
        return count

    async def _run_batch(
        self, turn: int, batch: Sequence[Tuple[int, ToolUse]], kept: TurnRecord, has_side_effects: bool
    ) -> List[ToolResult]:
        """Returns the results of calls that may run at once; those that were kept are not run again."""
        before = {position: kept.kept_result(position) for position, _ in batch}
        results = {position: result for position, result in before.items() if result is not None}
        new = [(position, use) for position, use in batch if position not in results]
        for position, use in batch:
            if position in results:
                self._record(turn, position, use, self._now(), results[position])
        if kept.kept is not None and results:
            self._state = kept.kept.state
        self.has_side_effects |= has_side_effects
        if new:
            await self.catch_up()
            if has_side_effects:
                await kept.begin_call(new[0][0])
            ran = dict(zip((position for position, _ in new), await self._run_at_once(turn, new)))
            if kept.is_kept:
                await kept.save_results(ran, await self._tools.state())
            results.update(ran)
        return [results[position] for position, _ in batch]

    async def catch_up(self) -> None:
        """Brings the tools into the state that they had after the last call that was not run again."""
        state, self._state = self._state, None
        if state is not None:
            await self._tools.restore(state)

    def record_unrun(self, turn: int, position: int, use: ToolUse, result: ToolResult) -> None:
        """Records a call that a bound did not let run, and the result that the model was given."""
        self._record(turn, position, use, self._now(), result)

    def _is_read_only(self, use: ToolUse) -> bool:
        try:
            return self._tools.is_read_only(use)
        except Exception:
            # The tool will say itself what is wrong with the call.
            logger.exception("the tool %s can't say whether a call is read-only", use.name)
            return False

    async def _run_at_once(self, turn: int, batch: Sequence[Tuple[int, ToolUse]]) -> List[ToolResult]:
        if len(batch) <= 1:
            return [await self._run(turn, *one) for one in batch]
        results: Dict[int, ToolResult] = {}
        room = anyio.Semaphore(settings.MAX_TOOLS_AT_ONCE)

        async def run(position: int, use: ToolUse) -> None:
            async with room:
                results[position] = await self._run(turn, position, use)

        async with TaskGroup() as group:
            for position, use in batch:
                group.start_soon(run, position, use)
        return [results[position] for position, _ in batch]

    async def _run(self, turn: int, position: int, use: ToolUse) -> ToolResult:
        began = self._now()
        self._listener.tool_started(turn, use)
        try:
            result = await self._result_of(use)
        except BaseException:
            self._record(turn, position, use, began, ToolResult(_INTERRUPTED, True))
            raise
        self._listener.tool_ended(self._record(turn, position, use, began, result))
        return result

    async def _result_of(self, use: ToolUse) -> ToolResult:
        try:
            return await self._tools.run(use)
        except ToolError as error:
            return ToolResult(f"<tool_use_error>{error}</tool_use_error>", True)
        except Exception as error:
            logger.exception("the tool %s failed", use.name)
            return ToolResult(f"The tool failed: {type(error).__name__}: {error}", True)

    def _record(self, turn: int, position: int, use: ToolUse, began: float, result: ToolResult) -> ToolCall:
        text = _text_of(result)
        call = ToolCall(
            turn,
            use.name,
            use.wrong_input or use.input,
            seconds=self._now() - began,
            bytes=_size_of(result),
            error=text[:_MAX_ERROR_CHARACTERS] if result.is_error else None,
            began=began - self._began,
            id=use.id,
            is_denied=result.is_denied,
        )
        self._records[turn, position] = call
        if logger.isEnabledFor(logging.DEBUG):
            _log(call)
        return call


def _log(call: ToolCall) -> None:
    logger.debug(
        "turn %d: %s %s",
        call.turn,
        call.name,
        "ended" if call.error is None else "failed",
        extra={
            "turn": call.turn,
            "tool": call.name,
            "duration_seconds": call.seconds,
            "bytes": call.bytes,
            "is_error": call.error is not None,
            "is_denied": call.is_denied,
        },
    )


def _text_of(result: ToolResult) -> str:
    if isinstance(result.content, str):
        return result.content
    return "\n".join(str(block["text"]) for block in result.content if "text" in block)


def _size_of(result: ToolResult) -> int:
    if isinstance(result.content, str):
        return byte_size(result.content)
    return sum(byte_size(json.dumps(dict(block))) for block in result.content)
