"""Durable calls in the driver's own process, on SQLite: one machine, nothing to start.

DBOS keeps the queue and each call's outcome in the file; the calls are made by the orchestrator's own engine,
with its budgets, its pace and its cache. What an earlier process left in the queue waits until it is asked
for again: nothing is paid for that nobody wants.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, List, Optional

from anyio import to_thread

from ..clock import Clock
from ..engine.executor import CacheConfig, CachingExecutor, Send
from ..engine.result_builder import is_answer
from ..engine.single_flight import ended
from ..errors import CancelledCallError, ClaudeForceError, ClosedError, DatabaseError, WorkerError
from ..limits.call_context import CallContext
from ..storage.locks import try_lock
from ..storage.places import folder_of, granted_path
from ..storage.private_files import PUBLIC_FILE
from ..types import Call, Reply
from . import dbos_runtime as host
from .budget_ids import BudgetIds, call_id_of, cancelled, checked_run_id, counted_before, fingerprinted, paid
from .calls import Begin, BeginAlone, Enqueue, SaveResult
from .database import Database
from .database_url import DatabaseUrl
from .db_worker import DbWorker
from .delivery import Collect, Delivered
from .serialization import CallRequest, Outcome, order_text, outcome_texts, read_outcome

logger = logging.getLogger(__name__)

_NAME = "claude-force-embedded"
_CLAIMS = 500
# How often it looks whether another command has cancelled what is waited for.
_LOOK_SECONDS = 1.0
# What DBOS gets to note that calls have ended; what it has not noted it asks for again at the next start.
_LAST_WORDS_SECONDS = 1.0


@dataclass
class _Asked:
    """A call that somebody waits for."""

    call: Call
    policy: str
    kept: CacheConfig
    context: CallContext
    left: Optional[float]
    loop: asyncio.AbstractEventLoop
    order: Enqueue
    outcome: asyncio.Future[Outcome]
    making: Optional[asyncio.Future[Any]] = None

    @property
    def was_left(self) -> bool:
        """Whether the caller went before there was an outcome; one who is cancelled cancels that too."""
        return not self.outcome.done() or self.outcome.cancelled()


class SqliteBackend:
    """The door to a queue in a file. One in a process, and one process to a file."""

    most: Optional[int] = None

    def __init__(self, address: DatabaseUrl, send: Send, clock: Clock) -> None:
        self._address, self._clock = address, clock
        self._database = Database(address)
        self._desk = DbWorker(self._database)
        self._inner = CachingExecutor(send, clock)
        self._asked: Dict[str, List[_Asked]] = {}
        self._purses = BudgetIds()
        self._lock: Optional[IO[bytes]] = None
        self._closing = False
        self._looking: Optional[asyncio.Future[None]] = None
        self._session = threading.Lock()

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """The one that is given, else a new one. Raises InvalidOptionError for one that can't be kept."""
        return checked_run_id(given)

    async def answer(
        self,
        call: Call,
        policy: str,
        kept: CacheConfig,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """As `Door.answer`. Raises DatabaseError where the file is another process's."""
        call_id = call_id_of(context, fingerprinted(call, kept))
        await self._open()
        outcome: Optional[Outcome] = await self._delivered(call_id, context)
        if outcome is None:
            outcome = await self._through_queue(call_id, call, policy, kept, deadline_seconds, context)
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _delivered(self, call_id: str, context: CallContext) -> Optional[Reply]:
        """An answer that is there. A failure that is there is known from now on, and made good."""
        row = (await self._desk.do(Collect((call_id,)))).get(call_id)
        if row is None:
            return None
        # Not waited for: who is cancelled there would have it, and not on the books.
        self._desk.leave(Collect((), (Delivered(call_id),)))
        outcome = read_outcome(row.figures, row.text, self._clock.now())
        if row.delivered:
            outcome = counted_before(outcome, row.age)
        for budget in self._purses.owing(context, row):
            budget.settle(0.0, paid(outcome))
        return outcome if isinstance(outcome, Reply) and row.success else None

    async def _through_queue(
        self,
        call_id: str,
        call: Call,
        policy: str,
        kept: CacheConfig,
        left: Optional[float],
        context: CallContext,
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        body = order_text(CallRequest(call, policy, context.first_of_many))
        order = Enqueue(call_id, call.agent_name, body, left)
        asked = _Asked(call, policy, kept, context, left, loop, order, loop.create_future())
        self._asked.setdefault(call_id, []).append(asked)
        if self._looking is None or self._looking.done() or self._looking.get_loop() is not loop:
            self._looking = asyncio.ensure_future(self._look(loop))
        try:
            await self._desk.do(order)
            outcome = await asked.outcome
            if isinstance(outcome, CancelledCallError) and asked.making is not None:
                outcome = await self._paid_for(outcome, asked.making, context)
            self._desk.leave(Collect((), (Delivered(call_id),)))
            return outcome
        finally:
            self._forget(call_id, asked)
            if asked.making is not None and asked.was_left:
                # What it has cost until then is for the one who asked.
                await ended(asked.making)

    async def _paid_for(
        self, outcome: CancelledCallError, making: asyncio.Future[Any], context: CallContext
    ) -> CancelledCallError:
        """The same, with what the call has cost until another command cancelled it."""
        await ended(making)
        outcome = copy(outcome)
        if context.call_cost is not None:
            context.call_cost.copy_to(outcome)
        return outcome

    async def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends what another command has cancelled, all of it in one moment: no call takes the place of one
        that goes."""
        with suppress(ClosedError):
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                waiting = [call_id for call_id, several in self._asked.items() if several[0].loop is loop]
                if not waiting:
                    return
                for call_id, row in (await self._desk.do(Collect(tuple(waiting)))).items():
                    outcome = read_outcome(row.figures, row.text, self._clock.now())
                    if isinstance(outcome, CancelledCallError):
                        self._end(call_id, outcome)

    def _end(self, call_id: str, outcome: CancelledCallError) -> None:
        for asked in self._asked.get(call_id, []):
            if asked.making is not None:
                asked.making.cancel()
        self._tell(call_id, outcome)

    def _forget(self, call_id: str, asked: _Asked) -> None:
        self._asked[call_id].remove(asked)
        if not self._asked[call_id]:
            del self._asked[call_id]
            if asked.making is not None and asked.was_left:
                asked.making.cancel()

    async def _carry(self, call_id: str, generation: int) -> str:
        """In DBOS's loop; the call is made in the loop of the one who asks."""
        waiting = self._asked.get(call_id)
        if waiting:
            asked = waiting[0]
            making = asyncio.run_coroutine_threadsafe(self._made(call_id, generation, asked), asked.loop)
            try:
                return await asyncio.wrap_future(making)
            except asyncio.CancelledError:
                if self._closing:
                    raise
        await self._desk.do(cancelled(call_id))
        for asked in self._asked.get(call_id, [])[:1]:
            # Whoever came in between found it in the queue, and it was cancelled after that.
            await self._desk.do(asked.order)
        return "nobody waits"

    async def _made(self, call_id: str, generation: int, asked: _Asked) -> str:
        if asked not in self._asked.get(call_id, ()):
            # Whoever asked has left before it began.
            raise asyncio.CancelledError
        asked.making = asyncio.current_task()
        try:
            return await self._carried_out(call_id, generation, asked)
        except Exception as error:
            outcome = _failure(error)
            # Written down, as what has no outcome is not made again by the same run.
            self._desk.leave(
                SaveResult(call_id, *outcome_texts(outcome, 0.0), success=False, generation=generation)
            )
            self._tell(call_id, outcome)
            return "failed"

    async def _carried_out(self, call_id: str, generation: int, asked: _Asked) -> str:
        began = self._clock.now()
        begin = Begin(call_id, generation, _NAME)
        work = await self._desk.do(begin) or await self._desk.do(BeginAlone(**begin.__dict__))
        if work is None:
            return "done before"
        outcome: Outcome
        try:
            outcome = await self._inner.answer(
                asked.call, asked.policy, asked.kept, asked.left, asked.context
            )
        except ClaudeForceError as error:
            outcome = error
        figures, text = outcome_texts(outcome, began, self._purses.ids(asked.context))
        answered = isinstance(outcome, Reply) and is_answer(outcome)
        await self._desk.do(SaveResult(call_id, figures, text, answered, generation=generation))
        self._tell(call_id, outcome)
        return "answered" if answered else "failed"

    def _tell(self, call_id: str, outcome: Outcome) -> None:
        for asked in self._asked.get(call_id, []):
            if not asked.outcome.done():
                asked.outcome.set_result(outcome)

    async def _open(self) -> None:
        if self._lock is None:
            await to_thread.run_sync(self._launch_once)

    def _launch_once(self) -> None:
        # A lock of threads, as the orchestrator may be used in several loops.
        with self._session:
            if self._lock is None:
                self._launch()

    def _launch(self) -> None:
        lock = self._locked()
        try:
            self._database.prepare()
            host.make_queue(self._database, _CLAIMS)
            host.launch(self._database, _NAME, self._carry)
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    def _locked(self) -> IO[bytes]:
        """The file beside the database that says whose it is; the system lets go of it when a process
        dies."""
        path = Path(str(self._address.url.database) + ".lock")
        try:
            with folder_of(path, make=True) as folder:
                name = granted_path(path).name
                lock = os.fdopen(folder.open(name, os.O_APPEND, PUBLIC_FILE), "ab")
        except OSError as error:
            raise DatabaseError(
                f"The database {self._address} can't be used: {path}: {error.strerror}. Give a file in a "
                "folder that you may write to."
            ) from error
        if not try_lock(lock.fileno()):
            lock.close()
            raise DatabaseError(
                f"{self._address} is in use by another process. Wait for its end, or give this one a file of "
                "its own; for several at a time use Postgres."
            )
        return lock

    def identity(self, call: Call, kept: CacheConfig) -> Optional[bytes]:
        """As `Door.identity`."""
        return self._inner.identity(call, kept)

    async def has(self, call: Call, kept: CacheConfig) -> bool:
        """As `Door.has`."""
        return await self._inner.has(call, kept)

    async def explain_miss(self, call: Call, kept: CacheConfig) -> Dict[str, Any]:
        """As `Door.explain_miss`."""
        return await self._inner.explain_miss(call, kept)

    async def drain(self, seconds: float) -> None:
        """The engine drains what it sends."""

    async def close(self) -> None:
        """Ends DBOS in this process and lets go of the file; a later call opens both again."""
        self._closing = True
        if self._looking is not None and self._looking.get_loop() is asyncio.get_running_loop():
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._inner.close()
        await to_thread.run_sync(self.shut)

    def shut(self) -> None:
        """As `close`, where the loop of its calls is gone."""
        self._closing = True
        if self._lock is not None:
            host.written_down(self._database, _NAME, _LAST_WORDS_SECONDS)
            host.destroy()
        self._desk.shut()
        if self._lock is not None:
            self._lock.close()
        self._lock, self._closing = None, False


def _failure(error: Exception) -> ClaudeForceError:
    """What those who wait are told of a call that nobody answered."""
    if isinstance(error, ClaudeForceError):
        return error
    logger.error("a call failed in this process", exc_info=error)
    return WorkerError(f"This process met {type(error).__name__}: {error}")
