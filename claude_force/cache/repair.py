"""Rebuilds a damaged cache file from the entries that can still be read and verified."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Callable, Iterator, Optional, Set

from ..storage.private_files import check_database, open_private, read_private
from ..storage.sqlite_files import FAULTS, PAGE_BYTES, connect, remove, set_aside
from .entries import key_of
from .store import PUT, SCHEMA, USE, rowid_of

logger = logging.getLogger(__name__)

_HEADER_BYTES = 100
# The magic string, the size of a page, either journal mode, and what is the same in every file.
_OPENING = b"SQLite format 3\0" + PAGE_BYTES.to_bytes(2, "big")
_MODES = (b"\1\1", b"\2\2")
_FRACTIONS = b"\0@  "
_SCHEMA_FORMAT, _UTF_8 = 4, 1
_MODE = slice(18, 20)
_FIXED = (slice(0, 18), _MODE, slice(20, 24), slice(44, 48), slice(56, 60))

# Returns the agent of a sealed entry; None to drop the entry.
EntryValidator = Callable[[bytes], Optional[str]]


def rebuild(path: Path, validate: EntryValidator) -> int:
    """Replaces a damaged file by a new one, and sets it aside. The caller holds the lock.

    Returns the number of entries saved. Raises sqlite3.Error, OSError.
    """
    fresh = path.with_name(f"{path.name}.mending")
    remove(fresh)
    try:
        saved = _copy(path, fresh, validate)
    except BaseException:
        # A full disk needs the space back.
        remove(fresh)
        raise
    aside = set_aside(path)
    fresh.replace(path)
    logger.warning("%s was damaged: %d entries saved, the file is kept as %s", path, saved, aside.name)
    return saved


def _copy(damaged: Path, fresh: Path, validate: EntryValidator) -> int:
    db = connect(fresh, SCHEMA, 0)
    saved: Set[int] = set()
    try:
        db.execute("BEGIN")
        for sealed in _readable(damaged):
            identity = rowid_of(key_of(sealed))
            agent = validate(sealed)
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
    """The sealed entries of a damaged file; with a damaged header they are read from a copy."""
    copy = path.with_name(f"{path.name}.salvage")
    try:
        yield from _entries(copy if _with_new_header(path, copy) else path)
    finally:
        remove(copy)


def _entries(path: Path) -> Iterator[bytes]:
    """One by one: behind a page that can't be read there may be others that can."""
    check_database(path)
    db = sqlite3.connect(str(path), isolation_level=None)
    try:
        # Otherwise SQLite refuses a file that is shorter than its header says.
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
    """Row numbers from each place that has them, as far as it can be read."""
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


def _with_new_header(path: Path, copy: Path) -> bool:
    """Makes a copy that SQLite can read, where the header is damaged. Returns whether it did."""
    with os.fdopen(read_private(path), "rb") as damaged:
        header = damaged.read(_HEADER_BYTES)
        if not header or _is_header(header):
            return False
        damaged.seek(0)
        with os.fdopen(open_private(copy, os.O_TRUNC), "wb") as file:
            shutil.copyfileobj(damaged, file)
    with os.fdopen(open_private(copy), "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.write(_header(size // PAGE_BYTES))
        file.truncate(-(-size // PAGE_BYTES) * PAGE_BYTES)
    return True


def _is_header(header: bytes) -> bool:
    own = _header(0)
    return len(header) == _HEADER_BYTES and all(
        header[part] == own[part] or (part is _MODE and header[part] in _MODES) for part in _FIXED
    )


def _header(pages: int) -> bytes:
    """The header of a file without free pages, which is for reading only."""
    header = bytearray(_HEADER_BYTES)
    header[:24] = _OPENING + _MODES[0] + _FRACTIONS
    header[28:32] = pages.to_bytes(4, "big")
    header[47], header[59] = _SCHEMA_FORMAT, _UTF_8
    return bytes(header)
