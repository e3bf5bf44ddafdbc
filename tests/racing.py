"""A thread that swaps two names of a folder, such as a folder and a link, as fast as it can."""

import ctypes
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def _exchange(one: Path, other: Path) -> None:
    """Swaps two names at once, so that each of them is always there."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Swaps the two names until the block ends; each has its first meaning again then."""
    try:
        _exchange(one, other)
        _exchange(one, other)
    except (OSError, AttributeError):
        pytest.skip("needs renameat2 and a file system that has it")
    ends = threading.Event()

    def swap() -> None:
        while not ends.is_set():
            _exchange(one, other)
            _exchange(one, other)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        ends.set()
        swapper.join()
