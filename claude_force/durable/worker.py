"""A worker: takes calls out of the queue and makes them by the ordinary engine, with credentials of its
own."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Tuple

import anyio
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from .. import settings
from ..cache.request_key import service
from ..clock import Clock
from ..engine.connection_pool import CallerSettings, LoopBoundPool
from ..engine.executor import CacheConfig, CachingExecutor
from ..engine.result_builder import is_answer
from ..errors import (
    CallError,
    ClosedError,
    DatabaseError,
    InputError,
    InvalidOptionError,
    WorkerError,
)
from ..limits.budget import Price, Prices, price_by
from ..limits.call_context import CallContext
from ..limits.rate_limiter import Rates
from ..limits.run_gate import RunGate, RunGates
from ..options import MaxConcurrent, check_limits, check_rates
from ..types import Call, Reply
from . import dbos_runtime as host
from .calls import Begin, BeginAlone, IsOpen, Release, SaveResult, Work, run_of, workflow_id
from .database import Database
from .database_url import DatabaseUrl, parse
from .db_worker import DbWorker, Flush
from .heartbeat import DEAD_SECONDS, Heartbeat
from .serialization import CallRequest, Outcome, outcome_texts, read_order
from .shared_cache import SharedCache
from .shared_limiter import Limits, SetByHand

logger = logging.getLogger(__name__)

# A call that a worker died of is begun again so often, then it is a failed one.
MAX_RECOVERIES = 3
# Of what is on the wire: so many are claimed, so that the wire has something to do while others are written
# down.
_CLAIMED = 2
_GRACE_SECONDS = 30
_NAMES = 1000
# Seconds that a worker which goes waits for a database that is away.
_PATIENCE = 5.0
_LOOK_SECONDS = 0.02


class Worker:
    """Carries out calls of durable runs until it is stopped.

    Args:
        url: the Postgres database that the drivers name too.
        concurrency: attempts on the wire at one time.
        name: the same after a restart, and of one worker alone; None takes the first free of HOST-1, HOST-2,
            ...
        rpm, input_tpm, output_tpm: limits for each minute that all workers keep together.
        grace_seconds: how long `stop` waits for what is on the wire.
        others: as of AsyncAgentOrchestrator. They hold for all calls that this worker makes, whatever the
            driver's own are.

    Raises InvalidOptionError for options that make no sense, DatabaseError on a Python without DBOS.
    """

    def __init__(
        self,
        url: str,
        concurrency: int = settings.MAX_CONCURRENT,
        name: Optional[str] = None,
        *,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        timeout_seconds: Optional[float] = settings.TIMEOUT_SECONDS,
        quiet_seconds: float = settings.QUIET_SECONDS,
        max_retries: int = settings.MAX_ATTEMPTS,
        stream: bool = True,
        prices: Optional[Prices] = None,
        rpm: Optional[float] = None,
        input_tpm: Optional[float] = None,
        output_tpm: Optional[float] = None,
        cache_ttl_hours: float = settings.CACHE_TTL_HOURS,
        cache_max_size_mb: float = settings.CACHE_MAX_SIZE_MB,
        grace_seconds: int = _GRACE_SECONDS,
    ) -> None:
        address = parse(url)
        if address.is_sqlite:
            raise InvalidOptionError("A worker needs Postgres; with SQLite the orchestrator makes its calls.")
        check_limits(concurrency, timeout_seconds, max_retries, None, quiet_seconds)
        check_rates(rpm=rpm, input_tpm=input_tpm, output_tpm=output_tpm)
        if grace_seconds < 0:
            raise InvalidOptionError(f"grace_seconds is {grace_seconds}; it must be a number from 0 up.")
        how = _how(concurrency, api_key, base_url, timeout_seconds, max_retries, stream, prices)
        self._how = replace(how, quiet_seconds=quiet_seconds)
        self._rates = Rates(rpm, input_tpm, output_tpm)
        self._wanted, self._grace = name, grace_seconds
        self._keeping = (cache_ttl_hours, cache_max_size_mb)
        self._address, self._crew = address, None
        self._stopped = asyncio.Event()

    _crew: Optional[_Crew]
    _address: DatabaseUrl
    _patience: Optional[anyio.CancelScope] = None

    @property
    def name(self) -> Optional[str]:
        """Its name, once it has one."""
        return self._crew.pulse.name if self._crew else None

    async def run(self) -> None:
        """Works until `stop` is called."""
        async with self:
            await self.stopped()

    async def stopped(self) -> None:
        """Returns when `stop` was called."""
        await self._stopped.wait()

    def stop(self) -> None:
        """Lets `run` end: what is on the wire is finished, what is not goes to others. Called again, it waits
        no longer for what is on the wire, which may be billed and goes to others too."""
        if self._stopped.is_set() and self._patience is not None:
            self._patience.cancel()
        self._stopped.set()

    async def __aenter__(self) -> Worker:
        """Returns when it takes calls. Raises DatabaseError."""
        crew = _Crew(self._address, self._how, self._keeping)
        try:
            await to_thread.run_sync(crew.database.prepare)
            await crew.sign_on(self._wanted)
            if any(self._rates):
                await crew.desk.do(SetByHand(self._rates))
            await to_thread.run_sync(crew.make_queue)
            host.launch(crew.database, crew.pulse.name, crew.carry)
        except BaseException:
            await crew.sign_off()
            raise
        self._crew, self._patience = crew, anyio.CancelScope()
        logger.info("worker %s takes calls from %s", crew.pulse.name, self._address)
        return self

    async def __aexit__(self, *error: object) -> None:
        crew, self._crew = self._crew, None
        if crew is not None and self._patience is not None:
            await crew.stop(self._grace, self._patience)


def _how(concurrency: MaxConcurrent, *more: Any) -> CallerSettings:
    api_key, base_url, timeout_seconds, max_retries, stream, prices = more
    return CallerSettings(api_key, base_url, concurrency, timeout_seconds, max_retries, stream, prices or {})


@dataclass
class _Job:
    """A call in this worker; `of` is what DBOS calls it, `budgets` are ids of those that it is charged to."""

    call_id: str
    generation: int
    task: Optional[asyncio.Future[Optional[Outcome]]] = None
    superseded: bool = False
    budgets: Tuple[str, ...] = ()

    @property
    def of(self) -> str:
        return workflow_id(self.call_id, self.generation)


@dataclass
class _Crew:
    """All that a running worker consists of."""

    address: DatabaseUrl
    how: CallerSettings
    keeping: Tuple[float, float]
    jobs: Dict[str, _Job] = field(default_factory=dict)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = Clock()
        life = uuid.uuid4().hex
        self.database = Database(self.address, life)
        self.desk = DbWorker(self.database)
        self.pulse = Heartbeat(self.database, life, self.how.ceiling, self._running, self._supersede)
        self.caller = LoopBoundPool(self.clock)
        self.limits = Limits(self.desk, self.clock, self.pulse.life)
        self._asking = CachingExecutor(self._send, self.clock)
        self._cache: Optional[SharedCache] = None
        self._suspects = asyncio.Lock()
        self._run_gates = RunGates(self.clock.now)
        self._signed_on = False
        self._parked: List[asyncio.Task[Any]] = []

    async def sign_on(self, wanted: Optional[str]) -> None:
        """Raises DatabaseError where a worker of that name is alive."""
        self._cache = SharedCache(self.database, *self.keeping)
        names = [wanted] if wanted else [f"{socket.gethostname()}-{number}" for number in range(1, _NAMES)]
        for patience in (DEAD_SECONDS + 1, 0.0):
            for name in names:
                if await to_thread.run_sync(self.pulse.take_name, name):
                    self.pulse.start()
                    self._signed_on = True
                    return
            # One that was killed a moment ago still passes for alive.
            await asyncio.sleep(patience)
        raise DatabaseError(f"A worker named {names[0]} is alive: give this one another name.")

    def make_queue(self) -> None:
        """DBOS has one number for all workers: the largest one's; what a small one claims beyond what it
        sends waits there."""
        host.make_queue(self.database, _CLAIMED * self.pulse.largest())

    async def sign_off(self) -> None:
        await self._asking.close()
        await self.caller.close()
        if self._signed_on:
            # Attempts that have ended are settled on what they cost before the rest counts at its worst.
            with anyio.move_on_after(_PATIENCE):
                await self.desk.do(Flush())
            await to_thread.run_sync(self.pulse.stop)
        if self._cache is not None:
            self._cache.close()
        await self.desk.close()

    async def stop(self, grace: int, patience: anyio.CancelScope) -> None:
        """Finishes what is on the wire, gives back the rest, and goes."""
        self.stopping = True
        with patience:
            await self.caller.drain(grace)
        for job in list(self.jobs.values()):
            if job.task is not None:
                job.task.cancel()
        with anyio.move_on_after(_PATIENCE):
            await self._written_down()
        await to_thread.run_sync(host.destroy)
        await to_thread.run_sync(self._put_back)
        for task in self._parked:
            task.cancel()
        await asyncio.gather(*self._parked, return_exceptions=True)
        await self.sign_off()

    async def _written_down(self) -> None:
        """Returns when all that ended here has ended in DBOS's books too."""
        while True:
            claimed = await to_thread.run_sync(host.claimed, self.database, self.pulse.name)
            if not self.jobs and len(claimed) <= len(self._parked):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _put_back(self) -> None:
        """What was claimed and did not get here."""
        try:
            host.put_back(self.database, host.claimed(self.database, self.pulse.name))
        except DBAPIError as error:
            reason = self.database.reason(error)
            logger.warning("what this worker had claimed is left to others: %s", reason)

    def _running(self) -> List[str]:
        return list(self.jobs)

    def _supersede(self, workflows: List[str]) -> None:
        """In the thread of the heartbeat."""
        if workflows:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._end_superseded, workflows)

    def _end_superseded(self, workflows: List[str]) -> None:
        for job in [self.jobs[one] for one in workflows if one in self.jobs]:
            if job.task is not None and not job.superseded:
                job.superseded = True
                job.task.cancel()

    async def carry(self, call_id: str, generation: int) -> str:
        """Carries out one call, from the queue to its result. Returns what came of it."""
        if self.stopping:
            await self._park()
        job = _Job(call_id, generation)
        self.jobs[job.of] = job
        try:
            return await self._carried(job)
        finally:
            del self.jobs[job.of]

    async def _park(self) -> None:
        """DBOS goes on claiming until it is ended: what comes then stays claimed, and is put back after."""
        task = asyncio.current_task()
        if task is not None:
            self._parked.append(task)
        await self.loop.create_future()

    async def _carried(self, job: _Job) -> str:
        work = await self.desk.do(Begin(job.call_id, job.generation, self.pulse.name))
        if work is not None:
            return await self._made(job, work)
        if not await self.desk.do(IsOpen(job.call_id, job.generation)):
            return "done before"
        # Workers died of it before, or beside it: one at a time, so that it is known which one it is.
        async with self._suspects:
            work = await self.desk.do(BeginAlone(job.call_id, job.generation, self.pulse.name))
            return await self._made(job, work) if work is not None else "done before"

    async def _made(self, job: _Job, work: Work) -> str:
        began = self.clock.now()
        if work.starts > MAX_RECOVERIES + 1:
            outcome: Optional[Outcome] = _poisonous(work)
        else:
            job.task = asyncio.ensure_future(self._outcome(job, work))
            try:
                outcome = await job.task
            except asyncio.CancelledError:
                if job.superseded:
                    return "superseded"
                if not self.stopping:
                    raise
                outcome = None
        if outcome is None:
            await self.desk.do(Release(job.call_id, job.generation, True))
            return "released"
        figures, text = outcome_texts(outcome, began, job.budgets)
        answered = isinstance(outcome, Reply) and is_answer(outcome)
        await self.desk.do(SaveResult(job.call_id, figures, text, answered, generation=job.generation))
        return "answered" if answered else "failed"

    async def _outcome(self, job: _Job, work: Work) -> Optional[Outcome]:
        """None for a call that was not sent because this worker stops."""
        try:
            order = read_order(work.body)
            job.budgets = order.budgets
            # A run that is resumed hands its calls over anew, and begins with an open gate.
            with self._run_gates.of(f"{run_of(job.call_id)}:{job.generation}") as run_gate:
                return await self._answered(order, work.left, run_gate)
        except ClosedError as error:
            return None if self.stopping else error
        except (CallError, InputError) as error:
            return error
        except Exception as error:
            logger.exception("a call failed in this worker")
            return WorkerError(f"Worker {self.pulse.name} met {type(error).__name__}: {error}")

    async def _answered(self, order: CallRequest, left: Optional[float], run_gate: RunGate) -> Reply:
        context = CallContext(
            run_gate=run_gate,
            first_of_many=order.first_of_many,
            shared_limits=self.limits.guard(order.budgets),
            price=self._price_of(order),
        )
        kept = CacheConfig(True, *self.keeping, self._cache, service(self.how.api_key, self.how.base_url))
        return await self._asking.answer(order.call, order.policy, kept, left, context)

    def _price_of(self, order: CallRequest) -> Optional[Price]:
        """What the driver's own prices make of it; None for this worker's. Raises InvalidOptionError."""
        if not order.prices:
            return None
        return price_by(order.prices, self.caller.price(self.how))

    async def _send(self, call: Call, left: Optional[float], context: CallContext) -> Reply:
        return await self.caller.send(call, self.how, left, context)


def _poisonous(work: Work) -> WorkerError:
    begun = work.starts - 1
    return WorkerError(
        f"The call was begun {begun} times, and each time its worker died before it ended",
        advice=f"It is not made again by itself after {MAX_RECOVERIES} recoveries; look into the worker's "
        "end before you hand it over again.",
    )
