"""The disk layer: one SQLite file in WAL mode, bounded in bytes; the least recently used entries go first.

Every write, checkpoint and close holds one lock of all processes: SQLite's own waiting is unfair, and its
versions before 3.51.3 can lose data when two processes reset the WAL at the same moment.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Tuple

from ..storage.locks import FolderLock, SharedCounter
from ..storage.sqlite_files import connect
from .entries import FORMAT
from .memory import HitBuffer

# Answers lie in the order of their arrival, so that storing one changes few pages; the small table of uses
# finds them and orders them by age.
SCHEMA = (
    "CREATE TABLE answer (row INTEGER PRIMARY KEY, sealed BLOB NOT NULL)",
    "CREATE TABLE use (id INTEGER PRIMARY KEY, row INTEGER NOT NULL, at INTEGER NOT NULL, "
    "hits INTEGER NOT NULL, agent TEXT)",
    "CREATE INDEX use_at ON use (at)",
)
PUT = "INSERT INTO answer (sealed) VALUES (?)"
USE = "INSERT INTO use (id, row, at, hits, agent) VALUES (?, ?, ?, 0, ?)"
_GET = "SELECT sealed, hits FROM use LEFT JOIN answer USING (row) WHERE id = ?"
_ADD_HITS = "UPDATE use SET at = ?, hits = hits + ? WHERE id = ?"
_OLDEST = "SELECT id FROM use ORDER BY at LIMIT ?"
_DROP_ANSWER = "DELETE FROM answer WHERE row = (SELECT row FROM use WHERE id = ?)"
_DROP_USE = "DELETE FROM use WHERE id = ?"

# One call does a bounded share of the common work, so that no single `set` is slow.
_EVICTED_AT_ONCE = 16
_EVICTED_PER_CALL = 64
_HITS_PER_CALL = 64
_BYTES_BETWEEN_CHECKS = 64 * 1024
_CHECKS_PER_FILL = 256
_WAL_SHARE = 8
_LARGEST_WAL = 4 * 1024 * 1024
_SMALLEST_WAL = 256 * 1024

Row = Tuple[bytes, int]


def store_path(folder: Path) -> Path:
    """The SQLite file of a cache folder."""
    return folder / f"answers-{FORMAT}.db"


def rowid_of(key: bytes) -> int:
    """56 bits of the key: they find the row in one step, and its signature covers the whole key."""
    return int.from_bytes(key[:7], "big")


class Store:
    """Sealed entries by key. Not thread-safe: its owner holds a lock. Not for use across a fork.

    Its methods raise sqlite3.Error for a damaged file, a full disk, and the like.
    """

    def __init__(self, folder: Path, max_bytes: int, hits: HitBuffer) -> None:
        """Raises sqlite3.Error, OSError."""
        self._path, self._hits = store_path(folder), hits
        self._check_every = min(_BYTES_BETWEEN_CHECKS, max_bytes // _CHECKS_PER_FILL)
        self._unchecked = self._check_every
        self.evictions = 0
        self._is_sound = False
        self._wal_path = self._path.with_name(self._path.name + "-wal")
        self._max_wal = wal = max(_SMALLEST_WAL, min(_LARGEST_WAL, max_bytes // _WAL_SHARE))
        self._lock = FolderLock(folder / "lock")
        try:
            self.generation = SharedCounter(folder / "generation")
            self.seen = self.generation.read()
            with self._lock:
                self._db = connect(self._path, SCHEMA, wal)
                self._inode = self._path.stat().st_ino
        except BaseException:
            self._lock.close()
            raise
        self._page_bytes = int(self._db.execute("PRAGMA page_size").fetchone()[0])
        self._max_pages = (max_bytes - wal) // self._page_bytes
        # Reused, because each statement would make a cursor otherwise.
        self._reader, self._writer = self._db.cursor(), self._db.cursor()

    def get(self, key: bytes) -> Optional[Row]:
        """Returns a sealed entry, not yet verified, and its hits as far as they are written."""
        row: Optional[Row] = self._reader.execute(_GET, (rowid_of(key),)).fetchone()
        if row is not None and row[0] is None:
            # The two are written in one transaction.
            raise sqlite3.DatabaseError("malformed: an entry has lost its answer")
        return row

    def put(self, entries: Iterable[Tuple[bytes, bytes, str]]) -> None:
        """Stores rows of `(key, sealed, agent)`, all or none, and evicts what is over the bound."""
        replaced = checked = False
        with self._lock, self._db:
            # Not IMMEDIATE, which costs a statement: the next one writes anyway, under the lock.
            self._writer.execute("BEGIN")
            if self._hits:
                self._write_hits(_HITS_PER_CALL)
            for key, sealed, agent in entries:
                identity = rowid_of(key)
                replaced |= self._insert(identity, sealed, agent)
                self._unchecked += len(sealed)
                if self._unchecked >= self._check_every:
                    self._keep_within_bounds(spare=identity)
                    checked = True
        if replaced:
            self.generation.advance()
        if checked and self._wal_path.exists() and self._wal_path.stat().st_size > 2 * self._max_wal:
            # The commit's own checkpoint gives up while another process reads; this one waits.
            self._truncate_wal()

    def _insert(self, identity: int, sealed: bytes, agent: str) -> bool:
        write = self._writer.execute
        use = (identity, write(PUT, (sealed,)).lastrowid, time.time_ns(), agent)
        try:
            write(USE, use)
            return False
        except sqlite3.IntegrityError:
            self._delete([identity])
            write(USE, use)
            return True

    def delete(self, keys: Iterable[bytes]) -> int:
        """Removes entries. Returns how many were there."""
        return self.drop([rowid_of(key) for key in keys])

    def clear(self, agent: Optional[str] = None) -> int:
        """Removes all entries, or those of one agent. Returns how many."""
        if agent is None:
            with self._removing():
                gone = self._db.execute("DELETE FROM answer").rowcount
                self._db.execute("DELETE FROM use")
        else:
            with self._removing():
                ids = [row[0] for row in self._db.execute("SELECT id FROM use WHERE agent = ?", (agent,))]
                gone = self._delete(ids)
        self._truncate_wal()
        return gone

    def drop(self, identities: List[int]) -> int:
        """Removes entries by their row ids. Returns how many were there."""
        with self._removing():
            return self._delete(identities)

    def identities(self, agent: Optional[str] = None, most: int = -1) -> List[int]:
        """Lists the row ids of all entries or one agent's, the most recently used first."""
        where, values = ("", ()) if agent is None else ("WHERE agent = ? ", (agent,))
        found = self._db.execute(f"SELECT id FROM use {where}ORDER BY at DESC LIMIT {most}", values)
        return [row[0] for row in found.fetchall()]

    def sealed(self, identity: int) -> Optional[bytes]:
        """Returns the entry of a row id, not yet verified."""
        row = self._db.execute(_GET, (identity,)).fetchone()
        return row[0] if row else None

    def count(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM use").fetchone()[0])

    def total_hits(self) -> int:
        """Hits of the stored entries by all processes, as far as they are written."""
        return int(self._db.execute("SELECT COALESCE(SUM(hits), 0) FROM use").fetchone()[0])

    def size(self) -> int:
        """Bytes of the pages in use."""
        return self._pages() * self._page_bytes

    def expect_sound(self) -> None:
        """Raises sqlite3.DatabaseError where the file is damaged. Looks once: it reads the whole file."""
        if not self._is_sound:
            verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict is None or verdict[0] != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict and verdict[0]}")
            self._is_sound = True

    def is_current(self) -> bool:
        """Whether the path still names this file: another process may have rebuilt it."""
        self.seen = self.generation.read()
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        try:
            with self._lock:
                try:
                    if self._hits:
                        with self._db:
                            self._db.execute("BEGIN IMMEDIATE")
                            self._write_hits(len(self._hits))
                finally:
                    # The last connection to close makes a checkpoint.
                    self._db.close()
        finally:
            self._lock.close()

    @contextmanager
    def _removing(self) -> Iterator[None]:
        # Advanced again after the commit: in between, others may have read what is now gone.
        self.generation.advance()
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield
        self.generation.advance()

    def _write_hits(self, most: int) -> None:
        self._db.executemany(_ADD_HITS, self._hits.take(most))

    def _keep_within_bounds(self, spare: int) -> None:
        self._unchecked = 0
        gone = 0
        while gone < _EVICTED_PER_CALL and self._pages() > self._max_pages:
            victims = self._oldest(_EVICTED_AT_ONCE, spare)
            if not victims:
                break
            gone += self._delete(victims)
        self.evictions += gone

    def _oldest(self, wanted: int, spare: int) -> List[int]:
        # A row with a buffered hit is not the oldest.
        some = wanted + min(len(self._hits), _HITS_PER_CALL) + 1
        found = (row[0] for row in self._db.execute(_OLDEST, (some,)).fetchall())
        return list(islice((one for one in found if one not in self._hits and one != spare), wanted))

    def _delete(self, identities: List[int]) -> int:
        ids = [(identity,) for identity in identities]
        gone = self._db.executemany(_DROP_ANSWER, ids).rowcount
        self._db.executemany(_DROP_USE, ids)
        for identity in identities:
            self._hits.discard(identity)
        return gone

    def _pages(self) -> int:
        used: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return used - free

    def _truncate_wal(self) -> None:
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
