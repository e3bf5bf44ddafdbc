"""Uses that are noted in memory and written with a later write: a hit costs no write of its own."""

from __future__ import annotations

import threading
from itertools import islice
from time import time_ns
from typing import Dict, List, Tuple


class Touches:
    """By row id: the time of the last use in nanoseconds, and the number of uses.

    Whoever notes a use holds `mutex` already; the rest is called without it.
    """

    def __init__(self, mutex: threading.Lock) -> None:
        self._noted: Dict[int, Tuple[int, int]] = {}
        self._mutex = mutex

    def note(self, identity: int) -> None:
        noted = self._noted.get(identity)
        self._noted[identity] = (time_ns(), noted[1] + 1 if noted else 1)

    def take(self, most: int) -> List[Tuple[int, int, int]]:
        """Up to `most` as (time, uses, row id), no longer noted from here on."""
        with self._mutex:
            taken = [(at, uses, identity) for identity, (at, uses) in islice(self._noted.items(), most)]
            for _, _, identity in taken:
                del self._noted[identity]
        return taken

    def uses(self, identity: int) -> int:
        return self._noted.get(identity, (0, 0))[1]

    def forget(self, identity: int) -> None:
        self._noted.pop(identity, None)

    def __contains__(self, identity: object) -> bool:
        return identity in self._noted

    def __len__(self) -> int:
        return len(self._noted)
