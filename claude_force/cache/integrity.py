"""Whether a SQLite file of the cache is as long as its header says: SQLite itself opens one that ends within
its last page without a word.

Opening looks at the size alone, so that it takes the same time for every size; the write-ahead log is read
only where pages are missing.

Source: "Database File Format" of the SQLite documentation, chapters 1.3 and 4.1.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from io import RawIOBase
from pathlib import Path
from typing import Iterator, Set, Tuple

from ..storage.private_files import open_private, read_private

PAGE_BYTES = 4096
_HEADER_BYTES = 100
# The magic string, the size of a page, either journal mode, and what is the same in every file.
_OPENING = b"SQLite format 3\0" + PAGE_BYTES.to_bytes(2, "big")
_MODES = (b"\1\1", b"\2\2")
_FRACTIONS = b"\0@  "
_SCHEMA_FORMAT, _UTF_8 = 4, 1
_MODE = slice(18, 20)
_FIXED = (slice(0, 18), _MODE, slice(20, 24), slice(44, 48), slice(56, 60))
_WAL_MAGICS = (0x377F0682, 0x377F0683)
_WAL_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")


def expect_whole(path: Path, db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError, worded as SQLite words damage, for a file that is not whole; OSError.

    `db` is a connection to it. To be called under the folder's lock. The file itself is not opened: to close
    it again would let go of the locks that SQLite has on it, those of other connections among them.
    """
    size, told = path.stat().st_size, db.execute("PRAGMA page_count").fetchone()[0]
    if size % PAGE_BYTES:
        raise sqlite3.DatabaseError("malformed: the file ends within a page")
    there = size // PAGE_BYTES
    # A checkpoint that was killed leaves pages in the write-ahead log alone.
    if told > there and not _pages_of_log(path.with_name(path.name + "-wal")).issuperset(
        range(there + 1, told + 1)
    ):
        raise sqlite3.DatabaseError("malformed: the file is shorter than its header says")


def with_new_header(path: Path, copy: Path) -> bool:
    """Makes a copy that SQLite can read, where the header is damaged. Returns whether it did. OSError."""
    with os.fdopen(read_private(path), "rb") as damaged:
        header = damaged.read(_HEADER_BYTES)
        if not header or _is_header(header):
            return False
        damaged.seek(0)
        # Not above: only a file that is damaged is copied.
        import shutil

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
    """Of a file without free pages, which is for reading only."""
    header = bytearray(_HEADER_BYTES)
    header[:24] = _OPENING + _MODES[0] + _FRACTIONS
    header[28:32] = pages.to_bytes(4, "big")
    header[47], header[59] = _SCHEMA_FORMAT, _UTF_8
    return bytes(header)


def _pages_of_log(log: Path) -> Set[int]:
    """The pages that committed frames of the write-ahead log hold."""
    kept: Set[int] = set()
    pending: Set[int] = set()
    try:
        with os.fdopen(read_private(log), "rb", buffering=0) as file:
            for number, is_commit in _frames(file):
                pending.add(number)
                if is_commit:
                    kept |= pending
                    pending = set()
    except FileNotFoundError:
        return kept
    return kept


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
