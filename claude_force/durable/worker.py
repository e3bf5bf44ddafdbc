"""A worker: takes calls from the queue and makes them with the ordinary engine and its own credentials."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Tuple

import anyio
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from .. import settings
from ..engine.call_sender import CallSender
from ..engine.call_settings import settings_now
from ..engine.executor import CachingExecutor
from ..engine.result_builder import is_answer
from ..engine.sender_pool import SenderPool
from ..errors import CallError, ClosedError, DatabaseError, InputError, InvalidOptionError, WorkerError
from ..limits.call_context import CallContext
from ..limits.prices import Prices, price_lookup
from ..limits.rate_limiter import Rates
from ..limits.run_gate import RunGate, RunGates
from ..options import Options, check_rates
from ..types import Clock, Reply
from . import dbos_runtime
from .calls import IsOpen, Release, SaveResult, StartCall, StartedCall, workflow_id
from .database import Database, DatabaseUrl, parse_url
from .db_worker import DbWorker, Flush
from .heartbeat import DEAD_SECONDS, Heartbeat
from .serialization import CallRequest, Outcome, dump_outcome, load_request, run_of
from .shared_cache import SharedCache
from .shared_limiter import SetRates, SharedCallLimits, SharedLimiter

logger = logging.getLogger(__name__)

# How often a call whose worker died is started again before it fails.
MAX_RECOVERIES = 3
# Calls claimed for each attempt that may be in flight, so that there is a next call while results are saved.
_CLAIMS_PER_SLOT = 2
_GRACE_SECONDS = 30
_MAX_NAMES = 1000
# How long a worker that stops waits for a database that is away, in seconds.
_STOP_SECONDS = 5.0


class Worker:
    """Makes the calls of durable runs until it is stopped.

    Args:
        url: the Postgres database that the drivers use.
        concurrency: how many requests may be in flight.
        name: unique among live workers, and the same after a restart; None takes the first free of HOST-1,
            HOST-2, ...
        rpm, input_tpm, output_tpm: limits per minute that all workers share.
        grace_seconds: how long `stop` waits for requests in flight.
        others: as of AsyncAgentOrchestrator. They apply to all calls of this worker, whatever the driver has.

    Raises InvalidOptionError for invalid options, DatabaseError where the extra is not installed.

    Example:
        worker = Worker("postgresql://user:password@host/claude", concurrency=20)
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
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
        self._address = parse_url(url)
        if self._address.is_sqlite:
            raise InvalidOptionError("A worker needs Postgres; with SQLite the orchestrator makes its calls.")
        # The rates bound all workers together, so they are not options of this worker's pool.
        check_rates(rpm=rpm, input_tpm=input_tpm, output_tpm=output_tpm)
        self._options = Options(
            api_key=api_key,
            base_url=base_url,
            max_concurrent=concurrency,
            timeout_seconds=timeout_seconds,
            quiet_seconds=quiet_seconds,
            max_retries=max_retries,
            stream=stream,
            prices=prices,
            cache_ttl_hours=cache_ttl_hours,
            cache_max_size_mb=cache_max_size_mb,
        )
        if grace_seconds < 0:
            raise InvalidOptionError(f"grace_seconds is {grace_seconds}; it must be a number from 0 up.")
        self._rates = Rates(rpm, input_tpm, output_tpm)
        self._wanted_name, self._grace = name, grace_seconds
        self._running: Optional[_RunningWorker] = None
        self._stopped = asyncio.Event()

    @property
    def name(self) -> Optional[str]:
        """The worker's name, once it has one."""
        return self._running.heartbeat.name if self._running else None

    async def run(self) -> None:
        """Works until `stop` is called."""
        async with self:
            await self.stopped()

    async def stopped(self) -> None:
        """Returns when `stop` was called."""
        await self._stopped.wait()

    def stop(self) -> None:
        """Ends `run`: requests in flight are finished, other calls go to other workers.

        A second call ends the requests in flight too: they may be billed, and other workers make them again.
        """
        if self._stopped.is_set() and self._running is not None:
            self._running.patience.cancel()
        self._stopped.set()

    async def __aenter__(self) -> Worker:
        """Starts taking calls. Raises DatabaseError."""
        running = _RunningWorker(self._address, self._options)
        try:
            await to_thread.run_sync(running.database.prepare)
            await running.sign_on(self._wanted_name)
            if any(self._rates):
                await running.db_worker.submit(SetRates(self._rates))
            await to_thread.run_sync(running.make_queue)
            dbos_runtime.launch(running.database, running.heartbeat.name, running.run_call)
        except BaseException:
            await running.sign_off()
            raise
        self._running = running
        logger.info("worker %s takes calls from %s", running.heartbeat.name, self._address)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._running is not None:
            try:
                await self._running.stop(self._grace)
            finally:
                self._running = None


@dataclass
class _Job:
    """A call in this worker. `budgets` are ids; `scope` is there while the call is made."""

    call_id: str
    generation: int
    scope: Optional[anyio.CancelScope] = None
    superseded: bool = False
    budgets: Tuple[str, ...] = ()


class _RunningWorker:
    """The parts of a worker between start and stop."""

    def __init__(self, address: DatabaseUrl, options: Options) -> None:
        self._settings = settings_now(options)
        self._loop = asyncio.get_running_loop()
        self._clock = Clock()
        incarnation = uuid.uuid4().hex
        self.database = Database(address, incarnation)
        self.db_worker = DbWorker(self.database)
        self.heartbeat = Heartbeat(
            self.database, incarnation, self._settings.ceiling, self._workflows, self._supersede
        )
        # Cancelled to end the wait for requests in flight.
        self.patience = anyio.CancelScope()
        self._limiter = SharedLimiter(self.db_worker, self._clock, incarnation)
        self._pool = SenderPool(self._clock)
        self._executor = CachingExecutor(self._connect, self._clock)
        self._cache: Optional[SharedCache] = None
        self._run_gates = RunGates(self._clock.now)
        self._suspects = asyncio.Lock()
        self._jobs: Dict[str, _Job] = {}
        self._parked: List[asyncio.Task[Any]] = []
        self._stopping = self._signed_on = False

    async def sign_on(self, wanted: Optional[str]) -> None:
        """Takes a name and starts the heartbeat. Raises DatabaseError where a live worker has the name."""
        options = self._settings.options
        self._cache = SharedCache(self.database, options.cache_ttl_hours, options.cache_max_size_mb)
        self._settings = replace(self._settings, cache=self._cache)
        names = [wanted] if wanted else [f"{socket.gethostname()}-{n}" for n in range(1, _MAX_NAMES)]
        for pause in (DEAD_SECONDS + 1, 0.0):
            for name in names:
                if await to_thread.run_sync(self.heartbeat.take_name, name):
                    self.heartbeat.start()
                    self._signed_on = True
                    return
            # A worker that was killed a moment ago still counts as alive.
            await asyncio.sleep(pause)
        raise DatabaseError(f"A worker named {names[0]} is alive: give this one another name.")

    def make_queue(self) -> None:
        """Registers the queue. Its limit of claims is one for all workers: what the largest one needs."""
        dbos_runtime.make_queue(self.database, _CLAIMS_PER_SLOT * self.heartbeat.largest_concurrency())

    async def sign_off(self) -> None:
        """Closes all parts and removes the worker from the database."""
        await self._executor.close()
        await self._pool.close()
        if self._signed_on:
            # Attempts that have ended are settled at their cost before the others count at their worst.
            with anyio.move_on_after(_STOP_SECONDS):
                await self.db_worker.submit(Flush())
            await to_thread.run_sync(self.heartbeat.stop)
        if self._cache is not None:
            self._cache.close()
        await to_thread.run_sync(self.db_worker.close)

    async def stop(self, grace: int) -> None:
        """Finishes the requests in flight, releases all other calls, and signs off."""
        self._stopping = True
        with self.patience:
            await self._pool.drain(grace)
        for job in self._jobs.values():
            if job.scope is not None:
                job.scope.cancel()
        await to_thread.run_sync(
            dbos_runtime.wait_until_recorded,
            *(self.database, self.heartbeat.name, _STOP_SECONDS, self._open_calls),
        )
        await to_thread.run_sync(dbos_runtime.destroy)
        await to_thread.run_sync(self._put_back_claimed)
        for task in self._parked:
            task.cancel()
        await asyncio.gather(*self._parked, return_exceptions=True)
        await self.sign_off()

    def _open_calls(self) -> float:
        """How many of its claimed calls will not end; -1 while calls are still ending here."""
        return -1 if self._jobs else len(self._parked)

    def _put_back_claimed(self) -> None:
        """Requeues calls that were claimed for this worker and not made."""
        try:
            claimed = dbos_runtime.claimed(self.database, self.heartbeat.name)
            dbos_runtime.put_back(self.database, claimed)
        except DBAPIError as error:
            reason = self.database.reason(error)
            logger.warning("what this worker had claimed is left to others: %s", reason)

    def _workflows(self) -> List[str]:
        return list(self._jobs)

    def _supersede(self, workflows: List[str]) -> None:
        """Called in the heartbeat's thread with workflows whose calls have results from elsewhere."""
        if workflows:
            # The loop may be closed by now.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end_superseded, workflows)

    def _end_superseded(self, workflows: List[str]) -> None:
        for job in [self._jobs[workflow] for workflow in workflows if workflow in self._jobs]:
            if job.scope is not None:
                job.superseded = True
                job.scope.cancel()

    async def run_call(self, call_id: str, generation: int) -> str:
        """Called by DBOS in this event loop. Makes one call; returns a word that DBOS records."""
        if self._stopping:
            await self._park()
        job, workflow = _Job(call_id, generation), workflow_id(call_id, generation)
        self._jobs[workflow] = job
        try:
            return await self._run(job)
        finally:
            del self._jobs[workflow]

    async def _park(self) -> None:
        """Waits to be cancelled: DBOS claims calls until it is destroyed, and these are put back then."""
        task = asyncio.current_task()
        if task is not None:
            self._parked.append(task)
        await anyio.sleep_forever()

    async def _run(self, job: _Job) -> str:
        start = StartCall(job.call_id, job.generation, self.heartbeat.name)
        started = await self.db_worker.submit(start)
        if started is not None:
            return await self._make(job, started)
        if not await self.db_worker.submit(IsOpen(job.call_id, job.generation)):
            return "done before"
        # Workers died during this call: such calls are made one at a time, to find the one that kills them.
        async with self._suspects:
            started = await self.db_worker.submit(replace(start, even_suspect=True))
            return await self._make(job, started) if started is not None else "done before"

    async def _make(self, job: _Job, started: StartedCall) -> str:
        began = self._clock.now()
        outcome: Optional[Outcome] = None
        with anyio.CancelScope() as job.scope:
            outcome = await self._outcome(job, started)
        job.scope = None
        if outcome is None and job.superseded:
            return "superseded"
        if outcome is None:
            await self.db_worker.submit(Release(job.call_id, job.generation))
            return "released"
        figures, text = dump_outcome(outcome, began, job.budgets)
        success = isinstance(outcome, Reply) and is_answer(outcome)
        await self.db_worker.submit(
            SaveResult(job.call_id, figures, text, success, generation=job.generation)
        )
        return "answered" if success else "failed"

    async def _outcome(self, job: _Job, started: StartedCall) -> Optional[Outcome]:
        """Makes the call; returns None where it was not sent because this worker stops."""
        if started.starts > MAX_RECOVERIES + 1:
            return _killed_workers(started.starts - 1)
        try:
            request = load_request(started.body)
            job.budgets = request.budgets
            # By generation: a run that is resumed enqueues its calls again, and starts with an open gate.
            with self._run_gates.gate_of(f"{run_of(job.call_id)}:{job.generation}") as run_gate:
                return await self._answer(request, started.seconds_left, run_gate)
        except ClosedError as error:
            return None if self._stopping else error
        except (CallError, InputError) as error:
            return error
        except Exception as error:
            logger.exception("a call failed in this worker")
            return WorkerError(f"Worker {self.heartbeat.name} met {type(error).__name__}: {error}")

    async def _answer(self, request: CallRequest, seconds_left: Optional[float], run_gate: RunGate) -> Reply:
        # Raises InvalidOptionError for the driver's prices; without any, this worker's apply.
        settings = settings_now(self._settings.options, self._settings)
        if settings is not self._settings:
            settings = self._settings = replace(settings, cache=self._cache)
        price = price_lookup(request.prices, self._pool.price(settings)) if request.prices else None
        context = CallContext(
            run_gate=run_gate,
            first_of_many=request.first_of_many,
            shared_limits=SharedCallLimits(self._limiter, request.budgets),
            price=price,
            settings=settings,
        )
        return await self._executor.execute(request.call, request.policy, settings, seconds_left, context)

    async def _connect(self, model: str, context: CallContext) -> CallSender:
        return await self._pool.sender(context.settings, model)


def _killed_workers(times: int) -> WorkerError:
    return WorkerError(
        f"The call was begun {times} times, and each time its worker died before it ended",
        advice=f"It is not made again by itself after {MAX_RECOVERIES} recoveries; look into the worker's "
        "end before you hand it over again.",
    )
