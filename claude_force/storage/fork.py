"""What a forked child must forget: threads that it lacks, locks that nobody opens, files of its parent."""

from __future__ import annotations

import os
import weakref
from typing import Any


def register_after_fork(owner: Any) -> None:
    """From now on `owner.after_fork()` is called in every child, first of all that happens there."""
    _OWNERS.add(owner)


_OWNERS: weakref.WeakSet[Any] = weakref.WeakSet()


def _in_child() -> None:
    for owner in list(_OWNERS):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
