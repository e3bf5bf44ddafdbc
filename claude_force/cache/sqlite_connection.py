"""How the file is opened: made whole or not at all, with a write-ahead log where the file system can."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Iterable

from ..storage.private_files import check_database, open_private
from .integrity import PAGE_BYTES, expect_whole

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 5.0


def connect(path: Path, schema: Iterable[str], wal_bytes: int) -> sqlite3.Connection:
    """To be called under the folder's lock. Raises sqlite3.Error, OSError."""
    check_database(path)
    # SQLite gives the files beside it the mode that it finds here.
    if not path.exists():
        # Not a file that is there: to close it would let go of the locks that SQLite has on it.
        os.close(open_private(path))
    db = _connection(path)
    try:
        found = {row[0] for row in db.execute("SELECT sql FROM sqlite_master").fetchall()}
        if not found:
            _make(db, path, schema)
        elif found != set(schema):
            raise sqlite3.DatabaseError("malformed: these are not the tables that were made")
        expect_whole(path, db)
        db.execute("PRAGMA synchronous=NORMAL")
        # In pages: at this length of the log its content is moved into the file, within the commit.
        db.execute(f"PRAGMA wal_autocheckpoint={wal_bytes // PAGE_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def page_size(db: sqlite3.Connection) -> int:
    size: int = db.execute("PRAGMA page_size").fetchone()[0]
    return size


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
    """Found out by a real write into a file of its own: a network file system says yes and then fails."""
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
        for suffix in ("", "-wal", "-shm", "-journal"):
            leftover = probe.with_name(probe.name + suffix)
            if leftover.exists():
                leftover.unlink()
