"""A damaged cache file: what can still be read and verified goes into a new one."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path
from typing import Callable, Iterator, Optional, Set

from ..storage.private_files import check_database
from ..storage.signing import key_of
from .integrity import with_new_header
from .sqlite_connection import connect
from .store import PUT, SCHEMA, USE, row_id

logger = logging.getLogger(__name__)

# The agent of a sealed entry; None for one that is not to be kept.
EntryValidator = Callable[[bytes], Optional[str]]

# What SQLite raises; of a damaged schema it can't even say in UTF-8 what is wrong.
FAULTS = (sqlite3.Error, UnicodeDecodeError)
_DAMAGE = (
    "malformed",
    "readonly database",
    "decode to UTF-8",
    "no such table",
    "no such column",
    "not a database",
    "unsupported file format",
)
_SUFFIXES = ("", "-wal", "-shm", "-journal")


def is_damage(error: Exception) -> bool:
    """Whether the file itself is at fault, not a lock or a full disk."""
    # No entry breaks a constraint of the tables that were made.
    if isinstance(error, (UnicodeDecodeError, sqlite3.IntegrityError)):
        return True
    return isinstance(error, sqlite3.Error) and any(words in str(error) for words in _DAMAGE)


def rebuild(path: Path, judge: EntryValidator) -> int:
    """Puts a new file in the damaged one's place. To be called under the folder's lock.

    Returns the number of entries saved. The damaged file is kept beside it, the newest one alone.
    """
    fresh = path.with_name(f"{path.name}.mending")
    _remove(fresh)
    try:
        saved = _copy(path, fresh, judge)
    except BaseException:
        # On a full disk it would only take what room is left.
        _remove(fresh)
        raise
    for older in path.parent.glob(f"{path.name}.damaged-*"):
        older.unlink()
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    fresh.replace(path)
    logger.warning("%s was damaged: %d entries saved, the file is kept as %s", path, saved, aside.name)
    return saved


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.unlink()


def _copy(damaged: Path, fresh: Path, judge: EntryValidator) -> int:
    db = connect(fresh, SCHEMA, 0)
    saved: Set[int] = set()
    try:
        db.execute("BEGIN")
        for sealed in _readable(damaged):
            identity = row_id(key_of(sealed))
            agent = judge(sealed)
            if agent is not None and identity not in saved:
                row = db.execute(PUT, (sealed,)).lastrowid
                db.execute(USE, (identity, row, time.time_ns(), agent))
                saved.add(identity)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.close()
    return len(saved)


def _readable(path: Path) -> Iterator[bytes]:
    """The sealed entries of a damaged file; of one with a damaged header they are read from a copy."""
    copy = path.with_name(f"{path.name}.salvage")
    try:
        yield from _entries(copy if with_new_header(path, copy) else path)
    finally:
        _remove(copy)


def _entries(path: Path) -> Iterator[bytes]:
    """One by one: behind a page that can't be read there may be others that can."""
    check_database(path)
    db = sqlite3.connect(str(path), isolation_level=None)
    try:
        # Without it SQLite refuses a file that is shorter than its header says.
        db.execute("PRAGMA writable_schema=ON")
        for row in sorted(_rows(db)):
            try:
                found = db.execute("SELECT sealed FROM answer WHERE row = ?", (row,)).fetchone()
            except FAULTS:
                continue
            if found is not None and type(found[0]) is bytes:
                yield found[0]
    finally:
        db.close()


def _rows(db: sqlite3.Connection) -> Set[int]:
    """From each place that names them, as far as it can be read."""
    found: Set[int] = set()
    for query in (
        "SELECT row FROM use",
        "SELECT row FROM use ORDER BY at",
        "SELECT row FROM answer",
        "SELECT row FROM answer ORDER BY row DESC",
    ):
        try:
            found.update(row[0] for row in db.execute(query) if type(row[0]) is int)
        except FAULTS as error:
            logger.info("read %d rows before the damage: %s", len(found), error)
    return found
