"""A damaged cache file: what can still be read and verified goes into a new one."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path
from typing import Callable, Iterator, List

from .signing import Row

logger = logging.getLogger(__name__)

_COLUMNS = "key, agent, model, created, input_tokens, output_tokens, cost, extra, body, signature"


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, not a lock or a full disk."""
    if isinstance(error, sqlite3.OperationalError):
        return any(word in str(error) for word in ("malformed", "no such table", "no such column"))
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError)


def salvage(path: Path, verified: Callable[[Row], bool]) -> List[Row]:
    """The rows that can be read and whose signatures hold; the file is renamed aside."""
    rows = [row for row in _readable(path) if verified(row)]
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        leftover = path.with_name(path.name + suffix)
        if leftover.exists():
            leftover.replace(aside.with_name(aside.name + suffix))
    logger.warning("%s was damaged: %d entries saved, the file is kept as %s", path, len(rows), aside.name)
    return rows


def _readable(path: Path) -> Iterator[Row]:
    db = sqlite3.connect(str(path), isolation_level=None)
    last = -1
    try:
        while True:
            query = f"SELECT id, {_COLUMNS} FROM answer WHERE id > ? ORDER BY id LIMIT 1"
            row = db.execute(query, (last,)).fetchone()
            if row is None:
                return
            last = row[0]
            yield row[1:]
    except sqlite3.Error as error:
        logger.info("no more can be read from %s: %s", path, error)
    finally:
        db.close()
