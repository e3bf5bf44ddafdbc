"""First of many: of the calls that share tools and system prompt one goes first, so that the others read the
prompt cache rather than each pay to write it.

Source: the API's documentation, chapter "Prompt caching": an entry can be read once the first answer has
begun, lives for its time to live after each use, and has a smallest size.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import AsyncContextManager, AsyncIterator, Dict, Tuple

from ..transport.protocol import AttemptRecord
from ..types import Call, Clock
from .admission import NO_WAIT
from .call_context import CallContext
from .token_estimator import prefix_size

# The smallest prompt that any model caches has 1,024 tokens, and no token is shorter than a byte.
_SMALLEST_BYTES = 1024
_LIFE_SECONDS = {"5m": 300.0, "1h": 3600.0}

_Key = Tuple[str, Tuple[str, ...], str]


class PromptCachePrimer:
    """Knows which system prompts the API's prompt cache has, and which call is about to write one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cached_until: Dict[_Key, float] = {}
        self._first: Dict[_Key, asyncio.Event] = {}

    def turn(self, call: Call, context: CallContext, record: AttemptRecord) -> AsyncContextManager[None]:
        """Entered when the attempt may go on: at once if the prompt is cached or can't be, else by the first,
        and by the rest when the first answer has begun. If the first fails, another becomes the first."""
        if not context.first_of_many or prefix_size(call) < _SMALLEST_BYTES:
            return NO_WAIT
        tools = () if call.conversation is None else (call.conversation.tools,)
        return self._turn((call.model, (*tools, *call.system), call.cache_ttl), record)

    @asynccontextmanager
    async def _turn(self, key: _Key, record: AttemptRecord) -> AsyncIterator[None]:
        is_first = await self._become_first(key)
        if is_first:
            record.on_begin = lambda: self._begin_answer(key)
        try:
            yield
            self._observe(key, record)
        finally:
            if is_first:
                self._let_others_go(key)

    async def _become_first(self, key: _Key) -> bool:
        """Waits until the prompt is cached, or the caller is the first; returns whether it is."""
        while not self._is_cached(key):
            first = self._first.get(key)
            if first is None:
                self._first[key] = asyncio.Event()
                return True
            await first.wait()
        return False

    def _is_cached(self, key: _Key) -> bool:
        return self._cached_until.get(key, 0.0) > self._clock.now()

    def _begin_answer(self, key: _Key) -> None:
        self._cached_until[key] = self._clock.now() + _LIFE_SECONDS[key[2]]
        self._let_others_go(key)

    def _observe(self, key: _Key, record: AttemptRecord) -> None:
        """Learns from an attempt that was answered."""
        usage = record.usage
        if usage is None or usage.cache_read_input_tokens or usage.cache_creation_input_tokens:
            self._cached_until[key] = self._clock.now() + _LIFE_SECONDS[key[2]]
        else:
            # The server has no prompt cache, or not for a prompt of this size: nobody need wait for it.
            self._cached_until[key] = float("inf")

    def _let_others_go(self, key: _Key) -> None:
        first = self._first.pop(key, None)
        if first is not None:
            first.set()
