"""The cache as the engine asks it: off the event loop, and never in the way of a call."""

from __future__ import annotations

import logging
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    TypeVar,
)

import anyio.to_thread

from .. import settings
from ..cache.request_key import RequestKey, reply_from_hit
from ..clock import Clock
from ..errors import CacheError, DeadlineExceededError
from ..storage.batch_worker import BatchWorker
from ..types import Reply, is_blank

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Cache(Protocol):
    """What the engine asks of a cache: `ResponseCache`, or the one that workers share."""

    exclude_agents: FrozenSet[str]

    def get(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str]
    ) -> Optional[Dict[str, Any]]: ...
    def get_in_memory(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str]
    ) -> Optional[Dict[str, Any]]: ...
    def has(self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str]) -> bool: ...
    def set_many(self, answers: Iterable[Mapping[str, Any]]) -> int: ...
    def acquire_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str]
    ) -> bool: ...
    def release_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str]
    ) -> None: ...
    def explain_miss(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str]
    ) -> Dict[str, Any]: ...
    def close(self) -> None: ...


# Answers that are whole, and that the model did not decline to give.
_WHOLE = ("end_turn", "stop_sequence", "tool_use")


class _StoreOp(NamedTuple):
    answer: Dict[str, Any]


class _ReadOp(NamedTuple):
    work: Callable[[Cache], Any]
    otherwise: Any


class AsyncResponseCache:
    """Kept answers.

    `make` opens the cache, at the first use and beside the event loop; what it raises is logged, and then
    there is none. A `shared` cache is its owner's to close.
    """

    def __init__(self, make: Callable[[], Cache], clock: Clock, shared: bool = False) -> None:
        self._make, self._clock, self._shared = make, clock, shared
        self._cache: Optional[Cache] = None
        self._failed = False
        self._clerk = BatchWorker(self._work, "claude-force-cache")

    async def get(self, question: RequestKey) -> Optional[Reply]:
        """A kept answer. Memory is asked at once, the disk in a thread."""
        hit = self.get_in_memory(question)
        return hit or reply_from_hit(await self.run(lambda cache: cache.get(*question), None), question.model)

    def get_in_memory(self, question: RequestKey) -> Optional[Reply]:
        """A kept answer that is in memory."""
        return (
            reply_from_hit(self._cache.get_in_memory(*question), question.model)
            if self._cache is not None
            else None
        )

    def lease(self, question: RequestKey) -> LeaseGuard:
        """Among processes, one at a time finds an answer; the turn ends with the block."""
        return LeaseGuard(question, self._clerk, self._clock)

    async def put(self, question: RequestKey, reply: Reply) -> None:
        """Stores what is whole; a cancellation of the caller does not undo it."""
        if reply.stop_reason not in _WHOLE or is_blank(reply.text):
            return
        usage = reply.usage
        answer = {
            "agent_name": question.agent,
            "task": question.task,
            "model": question.model,
            "fingerprint": question.fingerprint,
            "response": reply.text,
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.output_tokens,
            "estimated_cost": reply.cost,
            "extra": {
                "usage": dict(usage.__dict__),
                "model": reply.model,
                "stop_reason": reply.stop_reason,
                "request_id": reply.request_id,
            },
        }
        await self._clerk.submit(_StoreOp(answer))

    async def run(self, work: Callable[[Cache], T], otherwise: T) -> T:
        """`work` on the cache, in a thread; `otherwise` where there is no cache."""
        result: T = await self._clerk.submit(_ReadOp(work, otherwise))
        return result

    async def close(self) -> None:
        """Waits for what is being written, then lets go of the files. A later use opens them again."""
        await anyio.to_thread.run_sync(self._clerk.close)
        cache, self._cache, self._failed = self._cache, None, False
        if cache is not None and not self._shared:
            await anyio.to_thread.run_sync(cache.close)

    def _work(self, jobs: List[Any]) -> List[Any]:
        """In the clerk's thread."""
        kept = [job.answer for job in jobs if isinstance(job, _StoreOp)]
        if kept:
            # In one write: many answers that come together cost little more than one.
            self._guarded(lambda cache: cache.set_many(kept), 0)
        return [self._one(job) for job in jobs]

    def _one(self, job: Any) -> Any:
        if isinstance(job, _ReadOp):
            return self._guarded(job.work, job.otherwise)
        return job() if callable(job) else None

    def _guarded(self, work: Callable[[Cache], T], otherwise: T) -> T:
        cache = self._opened()
        if cache is None:
            return otherwise
        try:
            return work(cache)
        except Exception:
            # The cache catches what disks do; whatever else it is, the call must not fail by it.
            logger.exception("the cache failed")
            return otherwise

    def _opened(self) -> Optional[Cache]:
        if self._cache is None and not self._failed:
            try:
                self._cache = self._make()
            except (CacheError, OSError) as error:
                self._failed = True
                logger.warning("answers are not cached: %s", error)
        return self._cache


class LeaseGuard:
    """A process that is stopped holds the others up for `LEASE_SECONDS` at most, one that died not at all."""

    def __init__(self, question: RequestKey, clerk: BatchWorker, clock: Clock) -> None:
        self._question, self._clerk, self._clock = question, clerk, clock
        self._granted_by: Optional[Cache] = None
        self._asked = False

    def __enter__(self) -> LeaseGuard:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    async def look(self) -> Tuple[Optional[Reply], bool]:
        """A kept answer; else whether the turn is this one's now."""
        hit, leads = await self._do(self._look, (None, True))
        return reply_from_hit(hit, self._question.model), leads

    async def take(self) -> bool:
        """Whether the turn is this one's now."""
        leads: bool = await self._do(self._acquire, True)
        return leads

    async def wait(self, deadline_seconds: Optional[float], expect: Callable[[], None]) -> None:
        """Until those before it have had their turn. Raises DeadlineExceededError, and what `expect` raises
        where nothing may be sent any more."""
        waited = 0.0
        while waited < settings.LEASE_SECONDS:
            await self._clock.sleep(settings.LEASE_POLL_SECONDS)
            waited += settings.LEASE_POLL_SECONDS
            expect()
            if await self.take():
                return
            if deadline_seconds is not None and waited >= deadline_seconds:
                raise DeadlineExceededError(
                    f"No answer within the deadline of {deadline_seconds:g} s: another process asks for it"
                )

    def end(self) -> None:
        """Lets the next one go ahead."""
        if self._asked:
            # In the thread, and so after what it was asked there, also where the caller was cancelled.
            self._clerk.submit_nowait(self._release)

    async def _do(self, work: Callable[[Cache], Any], otherwise: Any) -> Any:
        self._asked = True
        return await self._clerk.submit(_ReadOp(work, otherwise))

    def _look(self, cache: Cache) -> Tuple[Optional[Dict[str, Any]], bool]:
        hit = cache.get(*self._question)
        return hit, hit is None and self._acquire(cache)

    def _acquire(self, cache: Cache) -> bool:
        leads = cache.acquire_lease(*self._question)
        if leads:
            self._granted_by = cache
        return leads

    def _release(self) -> None:
        granted_by, self._granted_by = self._granted_by, None
        if granted_by is not None:
            granted_by.release_lease(*self._question)
