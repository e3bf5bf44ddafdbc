"""Files that only their owner can read."""

from __future__ import annotations

import os
from pathlib import Path

_PRIVATE = 0o600


def open_private(path: Path, flags: int = 0) -> int:
    """A descriptor for reading and writing of a file that is made if it is missing, mode 0600.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, _PRIVATE)
    try:
        # The mode of a new file has passed through the umask.
        if os.name == "posix" and os.fstat(descriptor).st_mode & 0o777 != _PRIVATE:
            os.fchmod(descriptor, _PRIVATE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
