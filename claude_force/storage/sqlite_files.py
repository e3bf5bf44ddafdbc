"""Opens SQLite files, recognises damaged ones, and sets those aside.

SQLite opens a file that ends within its last page without an error, so its length is compared with its
header. That takes the same time for every size; the write-ahead log is read only where pages are missing.

Source: "Database File Format" of the SQLite documentation, chapters 1.3 and 4.1.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import time
from io import RawIOBase
from pathlib import Path
from typing import Iterable, Iterator, Set, Tuple

from .private_files import DATABASE_SUFFIXES, check_database, open_private, read_private

logger = logging.getLogger(__name__)

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
_BUSY_SECONDS = 5.0
PAGE_BYTES = 4096
_WAL_MAGICS = (0x377F0682, 0x377F0683)
_WAL_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")


def connect(path: Path, schema: Iterable[str], wal_bytes: int) -> sqlite3.Connection:
    """Opens the file, or makes it with the tables of `schema`; with a write-ahead log where that works.

    The caller holds the folder's lock. Raises sqlite3.Error, for a damaged file as well; OSError.
    """
    check_database(path)
    # SQLite gives the files beside it the mode of this one.
    if not path.exists():
        # Never an existing file: closing it would release the locks that SQLite holds on it.
        os.close(open_private(path))
    db = _connection(path)
    try:
        found = {row[0] for row in db.execute("SELECT sql FROM sqlite_master").fetchall()}
        if not found:
            _make(db, path, schema)
        elif found != set(schema):
            raise sqlite3.DatabaseError("malformed: these are not the tables that were made")
        _expect_whole(path, db)
        db.execute("PRAGMA synchronous=NORMAL")
        # In pages: at this length of the log its content is moved into the file, within the commit.
        db.execute(f"PRAGMA wal_autocheckpoint={wal_bytes // PAGE_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def is_damage(error: Exception) -> bool:
    """Whether the file itself is at fault, not a lock or a full disk."""
    # No row breaks a constraint of the tables that were made.
    if isinstance(error, (UnicodeDecodeError, sqlite3.IntegrityError)):
        return True
    return isinstance(error, sqlite3.Error) and any(words in str(error) for words in _DAMAGE)


def set_aside(path: Path) -> Path:
    """Renames a damaged file and those beside it, and removes older ones. Returns the new path."""
    for older in path.parent.glob(f"{path.name}.damaged-*"):
        older.unlink()
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in DATABASE_SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def remove(path: Path) -> None:
    """Removes the file and those beside it, as far as they exist. Raises OSError."""
    for suffix in DATABASE_SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.unlink()


def _connection(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(str(path), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _make(db: sqlite3.Connection, path: Path, schema: Iterable[str]) -> None:
    db.execute(f"PRAGMA page_size={PAGE_BYTES}")
    if _has_wal(path.with_name(f"probe-{os.getpid()}.db")):
        db.execute("PRAGMA journal_mode=WAL")
    else:
        logger.warning(
            "%s: this file system has no shared memory, so the cache uses a rollback journal and is slower",
            path,
        )
    db.execute("BEGIN IMMEDIATE")
    for statement in schema:
        db.execute(statement)
    db.execute("COMMIT")


def _has_wal(probe: Path) -> bool:
    """Tries a real write into a file made for it: a network file system accepts WAL and then fails."""
    db = _connection(probe)
    try:
        if db.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            return False
        db.execute("CREATE TABLE probe (id INTEGER)")
        return True
    except sqlite3.Error as error:
        logger.info("no WAL: %s", error)
        return False
    finally:
        db.close()
        remove(probe)


def _expect_whole(path: Path, db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError, worded as SQLite words damage, for a file that is too short; OSError.

    The file itself is not opened: closing it again would release the locks that SQLite holds on it, those of
    other connections among them.
    """
    size, expected = path.stat().st_size, db.execute("PRAGMA page_count").fetchone()[0]
    if size % PAGE_BYTES:
        raise sqlite3.DatabaseError("malformed: the file ends within a page")
    pages = size // PAGE_BYTES
    # After a checkpoint that was killed, some pages are only in the write-ahead log.
    if expected > pages and not _pages_of_log(path.with_name(path.name + "-wal")).issuperset(
        range(pages + 1, expected + 1)
    ):
        raise sqlite3.DatabaseError("malformed: the file is shorter than its header says")


def _pages_of_log(log: Path) -> Set[int]:
    """The pages in committed frames of the write-ahead log."""
    committed: Set[int] = set()
    pending: Set[int] = set()
    try:
        with os.fdopen(read_private(log), "rb", buffering=0) as file:
            for number, is_commit in _frames(file):
                pending.add(number)
                if is_commit:
                    committed |= pending
                    pending = set()
    except FileNotFoundError:
        return committed
    return committed


def _frames(file: RawIOBase) -> Iterator[Tuple[int, bool]]:
    """The page number of each frame of the log's present run, and whether it commits a transaction."""
    head = file.read(_WAL_HEADER.size)
    if len(head) < _WAL_HEADER.size:
        return
    magic, _, size, _, *salts, _, _ = _WAL_HEADER.unpack(head)
    if magic not in _WAL_MAGICS or size != PAGE_BYTES:
        return
    while True:
        frame = file.read(_FRAME_HEADER.size)
        if len(frame) < _FRAME_HEADER.size:
            return
        number, committed, *found, _, _ = _FRAME_HEADER.unpack(frame)
        if found != salts:
            return
        file.seek(PAGE_BYTES, os.SEEK_CUR)
        yield number, bool(committed)
