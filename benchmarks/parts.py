"""All parts, in the order of the page."""

from __future__ import annotations

from typing import Tuple

from . import bulk, cache, calls, durable, ledger, observers, pace, startup, tools, workflow
from .calls import layers
from .part import Part

PARTS: Tuple[Part, ...] = (
    calls.PART,
    layers.PART,
    cache.PART,
    pace.PART,
    tools.PART,
    bulk.PART,
    workflow.PART,
    durable.PART,
    ledger.PART,
    observers.PART,
    startup.PART,
    cache.LARGE,
    pace.ALL,
)
