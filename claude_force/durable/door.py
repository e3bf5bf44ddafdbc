"""Which way a call takes: to workers, or through a file of this machine's."""

from __future__ import annotations

from ..asking import Door, Send
from ..calling import Clock
from .address import parse
from .driver import How, Remote
from .embedded import Embedded


def open_door(url: str, send: Send, how: How, clock: Clock) -> Door:
    """In the place of the engine's `Asking`. Raises InvalidOptionError for a URL that can't be used."""
    address = parse(url)
    return Embedded(address, send, clock) if address.is_sqlite else Remote(address, how, clock)
