"""First of many: of the calls that share a system prompt one goes first, so that the others read the prompt
cache and do not each pay to write it.

Source: the API's documentation, chapter "Prompt caching": an entry can be read once the first answer has
begun, lives for its time to live after each use, and has a smallest size.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import AsyncIterator, Dict, Tuple

from ..clock import Clock
from ..formatting import byte_size
from ..transport.protocol import AttemptRecord
from ..types import Call

# The smallest prompt that any model caches has 1,024 tokens, and no token is shorter than a byte.
_SMALLEST_BYTES = 1024
_LIFE_SECONDS = {"5m": 300.0, "1h": 3600.0}

_Key = Tuple[str, Tuple[str, ...], str]


class PromptCachePrimer:
    """Which system prompts the prompt cache has, and who is about to fill it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._warm_until: Dict[_Key, float] = {}
        self._leading: Dict[_Key, asyncio.Event] = {}

    def helps(self, call: Call) -> bool:
        """Whether the prompt cache may keep this system prompt at all."""
        return sum(byte_size(text) for text in call.system) >= _SMALLEST_BYTES

    @asynccontextmanager
    async def passage(self, call: Call, record: AttemptRecord) -> AsyncIterator[None]:
        """Entered at once where the cache is warm or there is none; else by one, and by the rest when that
        one's answer has begun. Where it fails, another goes first."""
        key = (call.model, call.system, call.cache_ttl)
        leads = await self._turn(key)
        if leads:
            record.on_begin = lambda: self._began(key)
        try:
            yield
            self._learn(key, record)
        finally:
            if leads:
                self._over(key)

    async def _turn(self, key: _Key) -> bool:
        while not self._is_warm(key):
            leader = self._leading.get(key)
            if leader is None:
                self._leading[key] = asyncio.Event()
                return True
            await leader.wait()
        return False

    def _is_warm(self, key: _Key) -> bool:
        return self._warm_until.get(key, 0.0) > self._clock.now()

    def _began(self, key: _Key) -> None:
        self._warm_until[key] = self._clock.now() + _LIFE_SECONDS[key[2]]
        self._over(key)

    def _learn(self, key: _Key, record: AttemptRecord) -> None:
        usage = record.usage
        if usage is None or usage.cache_read_input_tokens or usage.cache_creation_input_tokens:
            self._warm_until[key] = self._clock.now() + _LIFE_SECONDS[key[2]]
        else:
            # The server has no prompt cache, or not for a prompt of this size: nobody need wait for it.
            self._warm_until[key] = float("inf")

    def _over(self, key: _Key) -> None:
        leader = self._leading.pop(key, None)
        if leader is not None:
            leader.set()
