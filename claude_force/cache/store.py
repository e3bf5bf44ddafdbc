"""The disk layer: one SQLite file in WAL mode, bounded in bytes, least recently used goes first.

Every write is made under one lock among processes: SQLite's own waiting is unfair, and its versions before
3.51.3 can lose data when two processes reset the WAL at the same moment.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from .lock import FolderLock, Generation
from .signing import Row

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answer (id INTEGER PRIMARY KEY, key TEXT NOT NULL, agent TEXT, model TEXT, "
    "created REAL, input_tokens INTEGER, output_tokens INTEGER, cost REAL, extra TEXT, body BLOB, "
    "signature BLOB)",
    "CREATE TABLE IF NOT EXISTS use (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, hits INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS use_at ON use (at)",
)
_ROW = "key, agent, model, created, input_tokens, output_tokens, cost, extra, body, signature"
_GET = f"SELECT {_ROW} FROM answer WHERE id = ?"
_EXISTS = "SELECT 1 FROM use WHERE id = ?"
_PUT = f"INSERT OR REPLACE INTO answer (id, {_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_USE = "INSERT OR REPLACE INTO use (id, at, hits) VALUES (?, ?, 0)"
_TOUCH = "UPDATE use SET at = ?, hits = hits + ? WHERE id = ?"

# Bounds of the work that one call does for all others, so that no single set is slow.
_EVICTED_PER_CALL = 64
_TOUCHED_PER_CALL = 64
_WAL_SHARE = 8
_LARGEST_WAL = 4 * 1024 * 1024
_SMALLEST_WAL = 256 * 1024
_BUSY_SECONDS = 5.0

_PARENTS: List[Any] = []


def row_id(key: str) -> int:
    """60 bits of the key: the row is found in one step, and the whole key is compared after."""
    return int(key[:15], 16)


class Store:
    """Rows by key. Thread-safe; not to be used across a fork. Raises sqlite3.Error for a damaged file."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes
        self._wal_path = path.with_name(path.name + "-wal")
        self._wal_most = max(_SMALLEST_WAL, min(_LARGEST_WAL, most_bytes // _WAL_SHARE))
        self._mutex = threading.RLock()
        self._lock = FolderLock(path.with_name("lock"))
        self.generation = Generation(path.with_name("generation"))
        self._touched: Dict[int, Tuple[int, int]] = {}
        self.evictions = 0
        try:
            self._db = self._open()
        except BaseException:
            self._lock.close()
            self.generation.close()
            raise

    def _open(self) -> sqlite3.Connection:
        # SQLite gives the files beside it the mode that it finds here.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(
            str(self._path), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            with self._lock.held():
                self._prepare(db)
            self._page_size: int = db.execute("PRAGMA page_size").fetchone()[0]
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            logger.warning("%s: no WAL on this file system, using a rollback journal", self._path)
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        if db.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def get(self, key: str) -> Optional[Row]:
        """The row as it is stored, not yet verified."""
        identity = row_id(key)
        with self._mutex:
            row: Optional[Row] = self._db.execute(_GET, (identity,)).fetchone()
            if row is not None:
                self._touch(identity)
        return row

    def touch(self, key: str) -> None:
        """Notes a use that was served from memory; written with a later write."""
        with self._mutex:
            self._touch(row_id(key))

    def _touch(self, identity: int) -> None:
        at_hits = self._touched.pop(identity, None)
        self._touched[identity] = (time.time_ns(), at_hits[1] + 1 if at_hits else 1)

    def put(self, row: Row) -> bool:
        """Stores a row, then evicts what is over the bound. Returns whether it took the place of another."""
        identity = row_id(row[0])
        with self._write():
            replaced = self._db.execute(_EXISTS, (identity,)).fetchone() is not None
            self._db.execute(_PUT, (identity, *row))
            self._db.execute(_USE, (identity, time.time_ns()))
            self._write_touches(_TOUCHED_PER_CALL)
            self._evict(spare=identity)
            if replaced:
                self.generation.advance()
        self._checkpoint_if_due()
        return replaced

    def delete(self, keys: Sequence[str]) -> int:
        """How many of them were there."""
        with self._write():
            gone = sum(self._delete(row_id(key)) for key in keys)
            self.generation.advance()
        return gone

    def clear(self, agent: Optional[str] = None) -> int:
        """Removes all rows, or those of one agent. Returns how many."""
        with self._write():
            where, values = ("", ()) if agent is None else (" WHERE agent = ?", (agent,))
            self._db.execute(f"DELETE FROM use WHERE id IN (SELECT id FROM answer{where})", values)
            gone = self._db.execute(f"DELETE FROM answer{where}", values).rowcount
            self._touched.clear()
            self.generation.advance()
        self._checkpoint()
        return gone

    def rows(self, agent: Optional[str] = None) -> Iterator[Row]:
        """All rows, the most recently used first; read in steps, so that no read stays open."""
        ids = self._ids(agent)
        for identity in ids:
            with self._mutex:
                row = self._db.execute(_GET, (identity,)).fetchone()
            if row is not None:
                yield row

    def _ids(self, agent: Optional[str]) -> List[int]:
        where, values = ("", ()) if agent is None else (" WHERE answer.agent = ?", (agent,))
        query = f"SELECT answer.id FROM answer LEFT JOIN use USING (id){where} ORDER BY use.at DESC"
        with self._mutex:
            return [found[0] for found in self._db.execute(query, values).fetchall()]

    def hits(self, key: str) -> int:
        """How often a row was used, by all processes that have written their uses, and by this one."""
        identity = row_id(key)
        with self._mutex:
            written = self._db.execute("SELECT hits FROM use WHERE id = ?", (identity,)).fetchone()
            return (written[0] if written else 0) + self._touched.get(identity, (0, 0))[1]

    def count(self) -> int:
        with self._mutex:
            return int(self._db.execute("SELECT COUNT(*) FROM use").fetchone()[0])

    def size(self) -> int:
        """Bytes of the pages in use."""
        with self._mutex:
            return self._pages() * self._page_size

    def close(self) -> None:
        with self._mutex:
            try:
                if self._touched:
                    with self._write():
                        self._write_touches(len(self._touched))
            finally:
                self._db.close()
                self._lock.close()
                self.generation.close()

    def abandon(self) -> None:
        """After a fork: the child leaves its parent's handles alone, also at the collection of garbage.

        Closing them would release locks that the parent holds.
        """
        self._touched.clear()
        _PARENTS.append(self)

    def _write(self) -> _Transaction:
        return _Transaction(self._mutex, self._lock, self._db)

    def _pages(self) -> int:
        used: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return used - free

    def _write_touches(self, most: int) -> None:
        if not self._touched:
            return
        batch = [(identity, *self._touched[identity]) for identity in list(self._touched)[:most]]
        self._db.executemany(_TOUCH, [(at, hits, identity) for identity, at, hits in batch])
        for identity, _, _ in batch:
            del self._touched[identity]

    def _evict(self, spare: int) -> None:
        over = self._pages() - (self._most - self._wal_most) // self._page_size
        if over <= 0:
            return
        wanted = min(_EVICTED_PER_CALL, over)
        # Uses that are noted and not yet written count: such a row is not the oldest.
        query = "SELECT id FROM use ORDER BY at LIMIT ?"
        oldest = self._db.execute(query, (wanted + min(len(self._touched), _TOUCHED_PER_CALL) + 1,))
        victims = [one for (one,) in oldest.fetchall() if one not in self._touched and one != spare]
        for identity in victims[:wanted]:
            if self._pages() * self._page_size <= self._most - self._wal_most:
                return
            self.evictions += self._delete(identity)

    def _delete(self, identity: int) -> int:
        self._touched.pop(identity, None)
        self._db.execute("DELETE FROM use WHERE id = ?", (identity,))
        return self._db.execute("DELETE FROM answer WHERE id = ?", (identity,)).rowcount

    def _checkpoint_if_due(self) -> None:
        try:
            due = self._wal_path.stat().st_size > self._wal_most
        except FileNotFoundError:
            return
        if due:
            self._checkpoint()

    def _checkpoint(self) -> None:
        with self._mutex, self._lock.held():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class _Transaction:
    """A write under both locks: threads first, then processes."""

    def __init__(self, mutex: Any, lock: FolderLock, db: sqlite3.Connection) -> None:
        self._mutex = mutex
        self._held = lock.held()
        self._db = db

    def __enter__(self) -> None:
        self._mutex.acquire()
        try:
            self._held.__enter__()
            self._db.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._leave(error)
            raise

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        try:
            self._db.execute("COMMIT" if error is None else "ROLLBACK")
        finally:
            self._leave(None)

    def _leave(self, error: Optional[BaseException]) -> None:
        try:
            self._held.__exit__(None, None, None)
        finally:
            self._mutex.release()
