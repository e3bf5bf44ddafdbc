"""The cache as the engine asks it: off the event loop, and never in the way of a call."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, AsyncIterator, Callable, Dict, NamedTuple, Optional, Tuple, TypeVar

import anyio.to_thread

from . import settings
from .calling import Clock
from .errors import CacheError, InvalidOptionError
from .forks import forgets_after_fork
from .response_cache import ResponseCache
from .types import Call, Reply, Usage

logger = logging.getLogger(__name__)

T = TypeVar("T")

USE, REFRESH, OFF = "use", "refresh", "off"
_POLICIES = (USE, REFRESH, OFF)
# Answers that are whole, and that the model did not decline to give.
_WHOLE = ("end_turn", "stop_sequence", "tool_use")
_THREADS = 4


class Asked(NamedTuple):
    """What identifies an answer, as the cache takes it."""

    agent: str
    task: str
    model: str
    fingerprint: Dict[str, str]

    def key(self) -> Tuple[Any, ...]:
        return (*self[:3], *sorted(self.fingerprint.items()))


def check_policy(policy: str) -> None:
    """Raises InvalidOptionError for anything but `use`, `refresh` and `off`."""
    if policy not in _POLICIES:
        raise InvalidOptionError(f"cache is {policy!r}; choose one of {', '.join(_POLICIES)}.")


def asked(call: Call, base_url: Optional[str]) -> Optional[Asked]:
    """All that changes the answer to `call`; None where an option has no written form to compare."""
    try:
        options = json.dumps(dict(call.options), sort_keys=True)
    except (TypeError, ValueError):
        return None
    definition, *contract = call.system
    fingerprint = {
        "definition": definition,
        "contract": "\n".join(contract),
        "max_tokens": str(call.max_tokens),
        "options": options,
        "endpoint": (base_url or settings.endpoint()).rstrip("/"),
    }
    return Asked(call.agent_name, call.task, call.model, fingerprint)


class Answers:
    """Kept answers.

    `make` opens the cache, at the first use and beside the event loop; what it raises is logged, and then
    there is none. A `shared` cache is its owner's to close.
    """

    def __init__(self, make: Callable[[], ResponseCache], clock: Clock, shared: bool = False) -> None:
        self._make, self._clock, self._shared = make, clock, shared
        self._making = threading.Lock()
        self._cache: Optional[ResponseCache] = None
        self._failed = False
        self._threads: Optional[ThreadPoolExecutor] = None
        forgets_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child: it has none of these threads."""
        self._making, self._threads = threading.Lock(), None

    async def ask(self, question: Asked) -> Optional[Reply]:
        """A kept answer. Memory is asked at once, the disk in a thread."""
        hit = self._cache.recall(*question) if self._cache is not None else None
        if hit is None:
            hit = await self._beside(lambda cache: cache.get(*question), None)
        return _reply(hit, question.model) if hit is not None else None

    async def keep(self, question: Asked, reply: Reply) -> None:
        """Stores what is whole; a cancellation of the caller does not undo it."""
        if reply.stop_reason not in _WHOLE:
            return
        usage = reply.usage
        extra = {
            "usage": asdict(usage),
            "model": reply.model,
            "stop_reason": reply.stop_reason,
            "request_id": reply.request_id,
        }
        agent, task, model, fingerprint = question
        await asyncio.shield(
            self._beside(
                lambda cache: cache.set(
                    agent,
                    task,
                    model,
                    reply.text,
                    usage.prompt_tokens,
                    usage.output_tokens,
                    reply.cost,
                    fingerprint,
                    extra,
                ),
                False,
            )
        )

    @asynccontextmanager
    async def lead(self, question: Asked) -> AsyncIterator[bool]:
        """Among processes: entered by one of those that ask the same, then by the next.

        Yields whether there was another before, whose answer may now be kept. A process that is stopped
        holds the others up for `LEASE_SECONDS` at most, one that died not at all.
        """
        waited = 0.0
        held = True
        while not await self._beside(lambda cache: cache.acquire_lease(*question), True):
            if waited >= settings.LEASE_SECONDS:
                held = False
                break
            await self._clock.sleep(settings.LEASE_POLL_SECONDS)
            waited += settings.LEASE_POLL_SECONDS
        try:
            yield waited > 0
        finally:
            if held and self._cache is not None:
                self._cache.release_lease(*question)

    async def run(self, work: Callable[[ResponseCache], T], otherwise: T) -> T:
        """`work` on the cache, in a thread; `otherwise` where there is no cache."""
        return await self._beside(work, otherwise)

    async def close(self) -> None:
        """Waits for what is being written, then lets go of the files. A later use opens them again."""
        threads, self._threads = self._threads, None
        cache, self._cache = self._cache, None
        if threads is not None:
            await anyio.to_thread.run_sync(threads.shutdown)
        if cache is not None and not self._shared:
            await anyio.to_thread.run_sync(cache.close)

    async def _beside(self, work: Callable[[ResponseCache], T], otherwise: T) -> T:
        if self._failed:
            return otherwise
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "claude-force-cache")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._guarded, work, otherwise)

    def _guarded(self, work: Callable[[ResponseCache], T], otherwise: T) -> T:
        cache = self._opened()
        if cache is None:
            return otherwise
        try:
            return work(cache)
        except Exception:
            # The cache catches what disks do; whatever else it is, the call must not fail by it.
            logger.exception("the cache failed")
            return otherwise

    def _opened(self) -> Optional[ResponseCache]:
        with self._making:
            if self._cache is None and not self._failed:
                try:
                    self._cache = self._make()
                except (CacheError, OSError) as error:
                    self._failed = True
                    logger.warning("answers are not cached: %s", error)
            return self._cache


def _reply(hit: Dict[str, Any], model: str) -> Reply:
    usage = hit.get("usage")
    return Reply(
        text=hit["response"],
        model=hit.get("model", model),
        usage=Usage(**usage) if usage else Usage(hit["input_tokens"], hit["output_tokens"]),
        stop_reason=hit.get("stop_reason"),
        request_id=hit.get("request_id"),
        attempts=0,
        cost=0.0,
        saved_cost=hit["estimated_cost"],
        cached=True,
        cache_age=hit["cache_age_seconds"],
    )
