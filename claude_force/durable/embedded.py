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

from ..asking import Asking, Keeping, Send
from ..calling import Clock, Terms, ended
from ..errors import CancelledCallError, ClaudeForceError, ClosedError, DatabaseError, WorkerError
from ..locks import try_lock
from ..results import is_answer
from ..storage.places import folder_of, granted_path
from ..storage.private_files import PUBLIC_FILE
from ..types import Call, Reply
from . import host
from .address import Address
from .calls import Begin, BeginAlone, Finish, HandOver
from .collecting import Collect, Seen
from .database import Database
from .desk import Desk
from .parcel import Order, Outcome, order_text, outcome_texts, read_outcome
from .tickets import Purses, cancelled, checked_run_id, counted_before, fingerprinted, paid, ticket_of

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
    kept: Keeping
    terms: Terms
    left: Optional[float]
    loop: asyncio.AbstractEventLoop
    order: HandOver
    outcome: asyncio.Future[Outcome]
    making: Optional[asyncio.Future[Any]] = None

    @property
    def was_left(self) -> bool:
        """Whether the caller went before there was an outcome; one who is cancelled cancels that too."""
        return not self.outcome.done() or self.outcome.cancelled()


class Embedded:
    """The door to a queue in a file. One in a process, and one process to a file."""

    most: Optional[int] = None

    def __init__(self, address: Address, send: Send, clock: Clock) -> None:
        self._address, self._clock = address, clock
        self._database = Database(address)
        self._desk = Desk(self._database)
        self._inner = Asking(send, clock)
        self._asked: Dict[str, List[_Asked]] = {}
        self._purses = Purses()
        self._lock: Optional[IO[bytes]] = None
        self._closing = False
        self._looking: Optional[asyncio.Future[None]] = None
        self._opening = threading.Lock()

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """The one that is given, else a new one. Raises InvalidOptionError for one that can't be kept."""
        return checked_run_id(given)

    async def answer(
        self, call: Call, policy: str, kept: Keeping, deadline_seconds: Optional[float], terms: Terms
    ) -> Reply:
        """As `Door.answer`. Raises DatabaseError where the file is another process's."""
        ticket = ticket_of(terms, fingerprinted(call, kept))
        await self._open()
        outcome: Optional[Outcome] = await self._delivered(ticket, terms)
        if outcome is None:
            outcome = await self._through_queue(ticket, call, policy, kept, deadline_seconds, terms)
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _delivered(self, ticket: str, terms: Terms) -> Optional[Reply]:
        """An answer that is there. A failure that is there is known from now on, and made good."""
        row = (await self._desk.do(Collect((ticket,)))).get(ticket)
        if row is None:
            return None
        # Not waited for: who is cancelled there would have it, and not on the books.
        self._desk.leave(Collect((), (Seen(ticket),)))
        outcome = read_outcome(row.figures, row.text, self._clock.now())
        if row.delivered:
            outcome = counted_before(outcome, row.age)
        for budget in self._purses.owing(terms, row):
            budget.settle(0.0, paid(outcome))
        return outcome if isinstance(outcome, Reply) and row.success else None

    async def _through_queue(
        self,
        ticket: str,
        call: Call,
        policy: str,
        kept: Keeping,
        left: Optional[float],
        terms: Terms,
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        body = order_text(Order(call, policy, terms.first_of_many))
        order = HandOver(ticket, call.agent_name, body, left)
        asked = _Asked(call, policy, kept, terms, left, loop, order, loop.create_future())
        self._asked.setdefault(ticket, []).append(asked)
        if self._looking is None or self._looking.done() or self._looking.get_loop() is not loop:
            self._looking = asyncio.ensure_future(self._look(loop))
        try:
            await self._desk.do(order)
            outcome = await asked.outcome
            if isinstance(outcome, CancelledCallError) and asked.making is not None:
                outcome = await self._paid_for(outcome, asked.making, terms)
            self._desk.leave(Collect((), (Seen(ticket),)))
            return outcome
        finally:
            self._forget(ticket, asked)
            if asked.making is not None and asked.was_left:
                # What it has cost until then is for the one who asked.
                await ended(asked.making)

    async def _paid_for(
        self, outcome: CancelledCallError, making: asyncio.Future[Any], terms: Terms
    ) -> CancelledCallError:
        """The same, with what the call has cost until another command cancelled it."""
        await ended(making)
        outcome = copy(outcome)
        if terms.bill is not None:
            terms.bill.put_on(outcome)
        return outcome

    async def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends what another command has cancelled, all of it in one moment: no call takes the place of one
        that goes."""
        with suppress(ClosedError):
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                waiting = [ticket for ticket, several in self._asked.items() if several[0].loop is loop]
                if not waiting:
                    return
                for ticket, row in (await self._desk.do(Collect(tuple(waiting)))).items():
                    outcome = read_outcome(row.figures, row.text, self._clock.now())
                    if isinstance(outcome, CancelledCallError):
                        self._end(ticket, outcome)

    def _end(self, ticket: str, outcome: CancelledCallError) -> None:
        for asked in self._asked.get(ticket, []):
            if asked.making is not None:
                asked.making.cancel()
        self._tell(ticket, outcome)

    def _forget(self, ticket: str, asked: _Asked) -> None:
        self._asked[ticket].remove(asked)
        if not self._asked[ticket]:
            del self._asked[ticket]
            if asked.making is not None and asked.was_left:
                asked.making.cancel()

    async def _carry(self, ticket: str, generation: int) -> str:
        """In DBOS's loop; the call is made in the loop of the one who asks."""
        waiting = self._asked.get(ticket)
        if waiting:
            asked = waiting[0]
            making = asyncio.run_coroutine_threadsafe(self._made(ticket, generation, asked), asked.loop)
            try:
                return await asyncio.wrap_future(making)
            except asyncio.CancelledError:
                if self._closing:
                    raise
        await self._desk.do(cancelled(ticket))
        for asked in self._asked.get(ticket, [])[:1]:
            # Whoever came in between found it in the queue, and it was cancelled after that.
            await self._desk.do(asked.order)
        return "nobody waits"

    async def _made(self, ticket: str, generation: int, asked: _Asked) -> str:
        if asked not in self._asked.get(ticket, ()):
            # Whoever asked has left before it began.
            raise asyncio.CancelledError
        asked.making = asyncio.current_task()
        try:
            return await self._carried_out(ticket, generation, asked)
        except Exception as error:
            outcome = _failure(error)
            # Written down, as what has no outcome is not made again by the same run.
            self._desk.leave(
                Finish(ticket, *outcome_texts(outcome, 0.0), success=False, generation=generation)
            )
            self._tell(ticket, outcome)
            return "failed"

    async def _carried_out(self, ticket: str, generation: int, asked: _Asked) -> str:
        began = self._clock.now()
        begin = Begin(ticket, generation, _NAME)
        work = await self._desk.do(begin) or await self._desk.do(BeginAlone(**begin.__dict__))
        if work is None:
            return "done before"
        outcome: Outcome
        try:
            outcome = await self._inner.answer(asked.call, asked.policy, asked.kept, asked.left, asked.terms)
        except ClaudeForceError as error:
            outcome = error
        figures, text = outcome_texts(outcome, began, self._purses.ids(asked.terms))
        answered = isinstance(outcome, Reply) and is_answer(outcome)
        await self._desk.do(Finish(ticket, figures, text, answered, generation=generation))
        self._tell(ticket, outcome)
        return "answered" if answered else "failed"

    def _tell(self, ticket: str, outcome: Outcome) -> None:
        for asked in self._asked.get(ticket, []):
            if not asked.outcome.done():
                asked.outcome.set_result(outcome)

    async def _open(self) -> None:
        if self._lock is None:
            await to_thread.run_sync(self._launch_once)

    def _launch_once(self) -> None:
        # A lock of threads, as the orchestrator may be used in several loops.
        with self._opening:
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

    def identity(self, call: Call, kept: Keeping) -> Optional[bytes]:
        """As `Door.identity`."""
        return self._inner.identity(call, kept)

    async def has(self, call: Call, kept: Keeping) -> bool:
        """As `Door.has`."""
        return await self._inner.has(call, kept)

    async def explain_miss(self, call: Call, kept: Keeping) -> Dict[str, Any]:
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
