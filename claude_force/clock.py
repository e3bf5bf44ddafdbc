"""Time as the engine sees it; tests hand in one of their own."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The real clock, in seconds."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
