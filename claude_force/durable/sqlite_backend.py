"""Makes durable calls in this process, with queue and results in an SQLite file: one machine, no workers.

DBOS decides when a queued call may go; the task that waits for the call then makes it, with the
orchestrator's own executor, budgets and rate limits. What an earlier process left in the queue is made only
when a caller asks for it again, so that no answer is paid for without a caller who wants it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Dict, List, Optional, Union

import anyio
from anyio import to_thread

from ..engine.call_settings import CallSettings
from ..engine.executor import CachingExecutor, Connect
from ..engine.result_builder import is_answer
from ..errors import CallError, CancelledCallError, ClaudeForceError, ClosedError, DatabaseError, WorkerError
from ..limits.call_context import CallContext
from ..storage.locks import try_lock
from ..storage.output_paths import open_output_folder, output_path
from ..storage.private_files import PUBLIC_FILE
from ..types import Call, Clock, Reply
from . import dbos_runtime
from .calls import Enqueue, SaveResult, StartCall, save_cancelled
from .database import Database, DatabaseUrl
from .db_worker import DbWorker
from .delivery import BudgetIds, Collect, Delivered, ResultPoller, ResultRow, budget_cost, outcome_of
from .serialization import (
    CallRequest,
    Outcome,
    checked_request_key,
    checked_run_id,
    dump_outcome,
    dump_request,
    new_call_id,
)

logger = logging.getLogger(__name__)

_NAME = "claude-force-embedded"
_CLAIMS = 500
# How often it looks whether another command has cancelled a call.
_POLL_SECONDS = 1.0
# Time for DBOS to record at the end which calls are done; it offers the others again at its next start.
_RECORD_SECONDS = 1.0


@dataclass(eq=False)
class _Turn:
    """DBOS's permission to make a call now. DBOS waits for `done` and records its word."""

    generation: int
    done: concurrent.futures.Future[str] = field(default_factory=concurrent.futures.Future)

    def end(self, word: str) -> None:
        with suppress(concurrent.futures.InvalidStateError):
            self.done.set_result(word)


@dataclass(eq=False)
class _Caller:
    """A task that waits for a call. Its inbox gets turns to make the call, and outcomes that others found."""

    call: Call
    cache_policy: str
    settings: CallSettings
    seconds_left: Optional[float]
    context: CallContext
    op: Enqueue
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    inbox: asyncio.Queue[Union[_Turn, Outcome]] = field(default_factory=asyncio.Queue)
    is_enqueued: bool = False
    is_made: bool = False
    making: Optional[anyio.CancelScope] = None
    cancellation: Optional[CancelledCallError] = None


class SqliteBackend:
    """Implements `CallBackend` for `AsyncAgentOrchestrator(durable="sqlite:///runs.db")`.

    A process has at most one, and a file belongs to one process at a time.
    """

    max_in_flight: Optional[int] = None

    def __init__(self, address: DatabaseUrl, connect: Connect, clock: Clock) -> None:
        self._address, self._clock = address, clock
        self._database = Database(address)
        self._worker = DbWorker(self._database)
        self._executor = CachingExecutor(connect, clock)
        self._callers: Dict[str, List[_Caller]] = {}
        self._budgets = BudgetIds()
        self._results = ResultPoller(self._worker, clock, _POLL_SECONDS)
        self._lock: Optional[IO[bytes]] = None
        self._closing = False
        self._launching = threading.Lock()
        self.run_id = checked_run_id
        self.cache_key, self.is_cached = self._executor.cache_key, self._executor.is_cached
        self.explain_miss = self._executor.explain_miss

    async def execute(
        self,
        call: Call,
        cache_policy: str,
        settings: CallSettings,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Implements `CallBackend.execute`. Raises DatabaseError where another process has the file."""
        call_id = new_call_id(context, checked_request_key(call, settings))
        if self._lock is None:
            await to_thread.run_sync(self._launch)
        outcome = await self._saved_answer(call_id, context)
        if outcome is None:
            body = dump_request(CallRequest(call, cache_policy, context.first_of_many))
            op = Enqueue(call_id, call.agent_name, body, deadline_seconds)
            caller = _Caller(call, cache_policy, settings, deadline_seconds, context, op)
            outcome = await self._wait(caller)
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _saved_answer(self, call_id: str, context: CallContext) -> Optional[Outcome]:
        """Returns an answer that is there. A failure counts as delivered now, so that `Enqueue` resets it."""
        row = (await self._worker.submit(Collect((call_id,)))).get(call_id)
        if row is None:
            return None
        # Not awaited: a caller cancelled here would have it delivered, and not charged.
        self._worker.submit_nowait(Collect((), (Delivered(call_id),)))
        outcome = outcome_of(row, self._clock.now())
        for budget in self._budgets.uncharged(context, row):
            budget.settle(0.0, budget_cost(outcome))
        return outcome if row.success else None

    async def _wait(self, caller: _Caller) -> Outcome:
        """Enqueues the call, makes it when its turn comes, and returns its outcome."""
        call_id = caller.op.call_id
        self._callers.setdefault(call_id, []).append(caller)
        outcome: Optional[Outcome] = None
        try:
            async with self._results.watch(call_id, lambda found: self._found(caller, found)):
                await self._worker.submit(caller.op)
                caller.is_enqueued = True
                while outcome is None:
                    message = await caller.inbox.get()
                    outcome = await self._make(caller, message) if isinstance(message, _Turn) else message
        finally:
            self._remove(caller)
            if outcome is not None or caller.is_made:
                # A caller who was cancelled after it was made records its cost too.
                self._worker.submit_nowait(Collect((), (Delivered(call_id),)))
        return outcome

    def _remove(self, caller: _Caller) -> None:
        callers = self._callers[caller.op.call_id]
        callers.remove(caller)
        if not callers:
            del self._callers[caller.op.call_id]
        while not caller.inbox.empty():
            message = caller.inbox.get_nowait()
            if isinstance(message, _Turn):
                message.done.cancel()

    def _found(self, caller: _Caller, found: Union[ResultRow, ClaudeForceError]) -> None:
        """Takes a result that was not made for this caller, such as a cancellation by another command."""
        outcome = outcome_of(found, self._clock.now()) if isinstance(found, ResultRow) else found
        is_cancelled = isinstance(outcome, CancelledCallError)
        if is_cancelled and isinstance(found, ResultRow) and found.delivered:
            # Saved by `_run_call`, which is about to enqueue the call again.
            return
        if caller.making is None and caller.is_enqueued:
            caller.inbox.put_nowait(outcome)
        elif caller.making is not None and isinstance(outcome, CancelledCallError):
            caller.cancellation = outcome
            caller.making.cancel()

    async def _make(self, caller: _Caller, turn: _Turn) -> Optional[Outcome]:
        """Makes the call, saves its outcome and returns it; None where this turn came too late."""
        outcome: Optional[Outcome] = None
        with anyio.CancelScope() as caller.making:
            outcome = await self._make_and_save(caller, turn)
        caller.making = None
        if caller.cancellation is None:
            return outcome
        if caller.context.call_cost is not None:
            caller.context.call_cost.copy_to(caller.cancellation)
        return caller.cancellation

    async def _make_and_save(self, caller: _Caller, turn: _Turn) -> Optional[Outcome]:
        call_id, generation, began = caller.op.call_id, turn.generation, self._clock.now()
        try:
            if await self._worker.submit(StartCall(call_id, generation, _NAME, even_suspect=True)) is None:
                turn.end("done before")
                return None
            outcome = await self._execute(caller)
            caller.is_made = True
            figures, text = dump_outcome(outcome, began, self._budgets.of(caller.context))
            success = isinstance(outcome, Reply) and is_answer(outcome)
            await self._worker.submit(SaveResult(call_id, figures, text, success, generation=generation))
        except Exception as error:
            outcome, success = _failure(error), False
            # Saved, because a call without a result would not be made again by this run.
            figures, text = dump_outcome(outcome, 0.0)
            self._worker.submit_nowait(SaveResult(call_id, figures, text, success, generation=generation))
        except BaseException:
            # Tells `_run_call` that the caller has left.
            turn.done.cancel()
            raise
        turn.end("answered" if success else "failed")
        for other in self._callers[call_id]:
            if other is not caller:
                other.loop.call_soon_threadsafe(other.inbox.put_nowait, outcome)
        return outcome

    async def _execute(self, caller: _Caller) -> Outcome:
        """Makes the call. The context has its cost too, for a caller who leaves before it has the outcome."""
        outcome: Outcome
        try:
            outcome = await self._executor.execute(
                caller.call, caller.cache_policy, caller.settings, caller.seconds_left, caller.context
            )
        except ClaudeForceError as error:
            outcome = error
        if caller.context.call_cost is not None and isinstance(outcome, (Reply, CallError)):
            caller.context.call_cost.replace(outcome)
        return outcome

    async def _run_call(self, call_id: str, generation: int) -> str:
        """Called by DBOS, in its own event loop: lets the first caller make the call, and waits for that."""
        callers = list(self._callers.get(call_id, ()))
        if callers:
            turn = _Turn(generation)
            callers[0].loop.call_soon_threadsafe(self._offer, callers[0], turn)
            try:
                return await asyncio.wrap_future(turn.done)
            except asyncio.CancelledError:
                if self._closing:
                    raise
        await self._worker.submit(save_cancelled(call_id))
        for caller in self._callers.get(call_id, [])[:1]:
            # It came while the call was still queued, and before it was cancelled.
            await self._worker.submit(caller.op)
        return "nobody waits"

    def _offer(self, caller: _Caller, turn: _Turn) -> None:
        if caller in self._callers.get(caller.op.call_id, ()):
            caller.inbox.put_nowait(turn)
        else:
            turn.done.cancel()

    def _launch(self) -> None:
        # A thread lock: several event loops may use the orchestrator.
        with self._launching:
            if self._lock is not None:
                return
            lock = self._acquire_file()
            try:
                self._database.prepare()
                dbos_runtime.make_queue(self._database, _CLAIMS)
                dbos_runtime.launch(self._database, _NAME, self._run_call)
            except BaseException:
                lock.close()
                raise
            self._lock = lock

    def _acquire_file(self) -> IO[bytes]:
        """Locks the file beside the database; the system releases it when the process dies."""
        path = Path(str(self._address.url.database) + ".lock")
        try:
            with open_output_folder(path, make=True) as folder:
                name = output_path(path).name
                lock = os.fdopen(folder.open(name, os.O_APPEND, PUBLIC_FILE), "ab")
        except OSError as error:
            raise DatabaseError(
                f"The database {self._address} can't be used: {path}: {error.strerror}. Give a file in a "
                "folder that you may write to."
            ) from error
        if not try_lock(lock.fileno()):
            lock.close()
            raise DatabaseError(
                f"{self._address} is in use by another process. Wait for its end, or use another file; "
                "for several processes at a time use Postgres."
            )
        return lock

    async def drain(self, seconds: float) -> None:
        """Does nothing: the orchestrator drains the calls that it sends."""

    async def close(self) -> None:
        """Ends waiting calls with ClosedError, DBOS in this process, and unlocks the file."""
        self._closing = True
        self._results.fail(ClosedError("The orchestrator was closed during the call"))
        await self._executor.close()
        await to_thread.run_sync(self.close_files)

    def close_files(self) -> None:
        """Does what is left of `close` when the event loop is gone."""
        self._closing = True
        if self._lock is not None:
            dbos_runtime.wait_until_recorded(self._database, _NAME, _RECORD_SECONDS)
            dbos_runtime.destroy()
        self._worker.close()
        if self._lock is not None:
            self._lock.close()
        self._lock, self._closing = None, False


def _failure(error: Exception) -> ClaudeForceError:
    """Returns the error to report for a call that failed outside the API."""
    if isinstance(error, ClaudeForceError):
        return error
    logger.error("a call failed in this process", exc_info=error)
    return WorkerError(f"This process met {type(error).__name__}: {error}")
