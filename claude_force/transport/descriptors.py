"""File descriptors: each connection takes one, and a process may have so many only (`ulimit -n`)."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Iterator, Optional

from ..advice import naming
from ..errors import CallError

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

# For what is opened beside connections: the output, the cache, the ledger, files of the project.
RESERVED = 48
_ASSUMED_OPEN = 64
_NONE_LEFT = (errno.EMFILE, errno.ENFILE)


class NoDescriptorError(CallError):
    """No connection could be opened, because no file descriptor was left. Nothing was sent."""

    advice = naming("Raise the limit of open files (ulimit -n), or lower {}.", "max_concurrent")


def is_none_left(error: BaseException) -> bool:
    """Whether the error, or one that it was raised from, says that no file descriptor was left."""
    return any(isinstance(one, OSError) and one.errno in _NONE_LEFT for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: Optional[BaseException] = error
    seen = 0
    while one is not None and seen < 20:
        yield one
        one, seen = one.__cause__ or one.__context__, seen + 1


def connections_within(wanted: int, is_ceiling: bool = False) -> int:
    """How many of `wanted` connections this process can have open; it raises its soft limit where it has to.

    `is_ceiling`: so many are hardly ever wanted, and it is no news that there may be fewer.
    """
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = _open_now() + RESERVED
    soft = _raised(soft, hard, taken + wanted)
    if soft == resource.RLIM_INFINITY or soft - taken >= wanted:
        return wanted
    most = max(1, soft - taken)
    logger.log(
        logging.DEBUG if is_ceiling else logging.WARNING,
        "the limit of open files is %d: %d attempts are made at a time, not %d (ulimit -n raises it)",
        soft,
        most,
        wanted,
    )
    return most


def _raised(soft: int, hard: int, needed: int) -> int:
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    better = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (better, hard))
    except (OSError, ValueError) as error:
        # macOS refuses what is over a limit of its own.
        logger.info("the limit of open files stays at %d: %s", soft, error)
        return soft
    return better


def _open_now() -> int:
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return _ASSUMED_OPEN
