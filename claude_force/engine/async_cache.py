"""Uses the response cache off the event loop. A fault of the cache never fails a call."""

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
from ..errors import CacheError, DeadlineExceededError
from ..storage.batch_worker import BatchWorker
from ..types import Clock, Reply
from .result_builder import is_answer

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Cache(Protocol):
    """What the engine needs of a cache: a `ResponseCache`, or the `SharedCache` of workers."""

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


# Stop reasons of complete answers, which the model did not decline to give.
_COMPLETE = ("end_turn", "stop_sequence", "tool_use")


class _StoreOp(NamedTuple):
    answer: Dict[str, Any]


class _ReadOp(NamedTuple):
    work: Callable[[Cache], Any]
    default: Any


class AsyncResponseCache:
    """Reads and stores answers in one thread beside the event loop.

    >>> cache = AsyncResponseCache(ResponseCache, clock)
    >>> reply = await cache.get(request_key(call, service(None, None)))

    `make` opens the cache in that thread, at the first use; a CacheError or OSError is logged, and then every
    look-up is a miss. A `shared` cache is closed by its owner.
    """

    def __init__(self, make: Callable[[], Cache], clock: Clock, shared: bool = False) -> None:
        self._make, self._clock, self._shared = make, clock, shared
        self._cache: Optional[Cache] = None
        self._failed = False
        self._worker = BatchWorker(self._work, "claude-force-cache")

    async def get(self, key: RequestKey) -> Optional[Reply]:
        """Returns a cached answer, from memory at once, from the disk in the thread."""
        hit = self.get_in_memory(key)
        return hit or reply_from_hit(await self.run(lambda cache: cache.get(*key), None), key)

    def get_in_memory(self, key: RequestKey) -> Optional[Reply]:
        """Returns a cached answer that is in memory."""
        if self._cache is None:
            return None
        return reply_from_hit(self._cache.get_in_memory(*key), key)

    def lease(self, key: RequestKey) -> LeaseGuard:
        """Lets one process at a time find an answer; the lease ends with the `with` block."""
        return LeaseGuard(key, self._worker, self._clock)

    async def put(self, key: RequestKey, reply: Reply) -> None:
        """Stores a complete answer, even if the caller is cancelled meanwhile."""
        if reply.stop_reason not in _COMPLETE or not is_answer(reply):
            return
        usage = reply.usage
        answer: Dict[str, Any] = {
            "agent_name": key.agent,
            "task": key.task,
            "model": key.model,
            "fingerprint": key.fingerprint,
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
        if reply.content:
            from ..conversation import stored_content

            answer["extra"]["content"] = stored_content(reply.content)
        await self._worker.submit(_StoreOp(answer))

    async def run(self, work: Callable[[Cache], T], default: T) -> T:
        """Returns `work(cache)`, done in the thread; `default` without a cache and after a fault."""
        result: T = await self._worker.submit(_ReadOp(work, default))
        return result

    async def close(self) -> None:
        """Waits for what is being written, then closes the files. A later use opens them again."""
        await anyio.to_thread.run_sync(self._worker.close)
        cache, self._cache, self._failed = self._cache, None, False
        if cache is not None and not self._shared:
            await anyio.to_thread.run_sync(cache.close)

    def _work(self, ops: List[Any]) -> List[Any]:
        """Runs in the thread."""
        answers = [op.answer for op in ops if isinstance(op, _StoreOp)]
        if answers:
            # In one write: many answers that come together cost little more than one.
            self._guarded(lambda cache: cache.set_many(answers), None)
        return [self._result(op) for op in ops]

    def _result(self, op: Any) -> Any:
        if isinstance(op, _ReadOp):
            return self._guarded(op.work, op.default)
        return op() if callable(op) else None

    def _guarded(self, work: Callable[[Cache], T], default: T) -> T:
        cache = self._open()
        if cache is None:
            return default
        try:
            return work(cache)
        except Exception:
            # The cache handles faults of disks; no other fault may fail the call either.
            logger.exception("the cache failed")
            return default

    def _open(self) -> Optional[Cache]:
        if self._cache is None and not self._failed:
            try:
                self._cache = self._make()
            except (CacheError, OSError) as error:
                self._failed = True
                logger.warning("answers are not cached: %s", error)
        return self._cache


class LeaseGuard:
    """The lease of one answer among processes, released at the end of the `with` block.

    A stopped process delays the others for `LEASE_SECONDS` at most, and a dead one not at all.
    """

    def __init__(self, key: RequestKey, worker: BatchWorker, clock: Clock) -> None:
        self._key, self._worker, self._clock = key, worker, clock
        self._granted_by: Optional[Cache] = None
        self._is_used = False

    def __enter__(self) -> LeaseGuard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_used:
            # In the thread, so that it follows an acquisition whose caller was cancelled.
            self._worker.submit_nowait(self._release)

    async def get_or_acquire(self) -> Tuple[Optional[Reply], bool]:
        """Returns a cached answer; else whether the lease was acquired."""
        found: Tuple[Optional[Reply], bool] = await self._run(self._get_or_acquire, (None, True))
        return found

    async def acquire(self) -> bool:
        """Takes the lease, unless another process has it. Returns whether it did."""
        is_acquired: bool = await self._run(self._acquire, True)
        return is_acquired

    async def wait(self, deadline_seconds: Optional[float], expect: Callable[[], None]) -> None:
        """Waits until the lease is acquired, or for `LEASE_SECONDS`.

        Raises DeadlineExceededError, and what `expect` raises where nothing may be sent any more.
        """
        waited = 0.0
        while waited < settings.LEASE_SECONDS:
            await self._clock.sleep(settings.LEASE_POLL_SECONDS)
            waited += settings.LEASE_POLL_SECONDS
            expect()
            if await self.acquire():
                return
            if deadline_seconds is not None and waited >= deadline_seconds:
                raise DeadlineExceededError(
                    f"No answer within the deadline of {deadline_seconds:g} s: another process asks for it"
                )

    async def _run(self, work: Callable[[Cache], Any], default: Any) -> Any:
        self._is_used = True
        return await self._worker.submit(_ReadOp(work, default))

    def _get_or_acquire(self, cache: Cache) -> Tuple[Optional[Reply], bool]:
        reply = reply_from_hit(cache.get(*self._key), self._key)
        return reply, reply is None and self._acquire(cache)

    def _acquire(self, cache: Cache) -> bool:
        is_acquired = cache.acquire_lease(*self._key)
        if is_acquired:
            self._granted_by = cache
        return is_acquired

    def _release(self) -> None:
        granted_by, self._granted_by = self._granted_by, None
        if granted_by is not None:
            try:
                granted_by.release_lease(*self._key)
            except Exception:
                # Raised here, it would fail the calls whose jobs are in the same batch.
                logger.exception("the cache failed")
