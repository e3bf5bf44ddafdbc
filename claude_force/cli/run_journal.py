"""The journal of workflows, as commands read it. Needs no SDK."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Callable, TypeVar

from ..errors import CacheError
from ..workflow.checkpointer import open_checkpoint_store
from ..workflow.checkpoints import CheckpointStore

T = TypeVar("T")


def asked(work: Callable[[CheckpointStore], T]) -> T:
    """What `work` finds in it. Raises CacheError where it can't be read, and what `work` raises."""
    try:
        with closing(open_checkpoint_store()) as journal:
            return work(journal)
    except (OSError, sqlite3.Error) as error:
        raise CacheError(f"The journal of runs can't be read: {error}.") from error
