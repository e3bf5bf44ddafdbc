"""Reads the files that a search goes through, and gives their texts to an engine."""

from __future__ import annotations

import codecs
import os
import stat
from typing import Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import FileAccessError
from ..storage.folders import Folders, ReplacedError
from ..storage.path_text import one_line
from ..storage.regular_files import checked_descriptor
from .glob_patterns import GlobList
from .grep_engines import Engine
from .pattern_worker import Lines
from .tree_walk import Deadline, TreeWalk, WalkedFile
from .workspace import Place, Workspace, failed

# Of a larger file only the beginning is searched.
MOST_SEARCHED = 32 * 1024 * 1024
# Of one file, where all of them are counted.
MOST_MATCHES = 300_000
_MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class FileMatches(NamedTuple):
    """A file with matches.

    Attributes:
        path: below the start of the search, or as it is shown; "" where the start is the file.
        text: its bytes as UTF-8, without byte order mark.
        lines: the first and last line of each match, from 0.
    """

    path: str
    text: bytes
    lines: Lines


def whole_tree(
    workspace: Workspace,
    start: Place,
    deadline: Deadline,
    globs: Optional[GlobList],
    types: Optional[GlobList],
) -> Iterable[WalkedFile]:
    """The files that a search from `start` goes through. Raises ToolError."""
    reached = start.reached
    if stat.S_ISREG(reached.info.st_mode):
        return [WalkedFile(reached.parts[:-1], reached.parts[-1], "")]
    if not reached.is_folder:
        raise failed(f"Cannot search '{one_line(start.path)}': it is neither a file nor a folder.")
    takes = (lambda name: bool(types.decide(name, False))) if types is not None else (lambda name: True)
    return TreeWalk(workspace, start, deadline, globs, True, takes).files()


def find_matches(
    folders: Folders, files: Iterable[WalkedFile], engine: Engine, deadline: Deadline, most: Optional[int]
) -> Iterator[FileMatches]:
    """Yields the files with matches, in the order of the files. Raises PatternError, ToolError.

    `most`: how many matches of a file are needed.
    """
    batch: List[Tuple[str, bytes]] = []
    size = 0
    for file in files:
        deadline.check()
        text = _text(folders, file)
        if not text:
            continue
        batch.append((file.path, text))
        size += len(text)
        if size > engine.batch_bytes:
            yield from _matches(batch, engine, most)
            batch, size = [], 0
    if batch:
        yield from _matches(batch, engine, most)


def _matches(batch: List[Tuple[str, bytes]], engine: Engine, most: Optional[int]) -> Iterator[FileMatches]:
    found = engine.search([text for _, text in batch], MOST_MATCHES if most is None else most)
    for (path, text), lines in zip(batch, found):
        if most is None and len(lines) >= MOST_MATCHES:
            raise failed(f"A file has over {MOST_MATCHES:,} matches. Use a more specific pattern.")
        if lines:
            yield FileMatches(path, text, lines)


def _text(folders: Folders, file: WalkedFile) -> bytes:
    """The text of a file; nothing for a binary file, and for one that can't be read."""
    try:
        descriptor = folders.open(file.folder, file.name)
        checked_descriptor(descriptor, file.name, None)
    except (OSError, ReplacedError, FileAccessError):
        return b""
    try:
        data = os.read(descriptor, 64 * 1024)
        if len(data) == 64 * 1024 and not _is_binary(data):
            data += _rest(descriptor)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return _as_utf8(data)


def _rest(descriptor: int) -> bytes:
    pieces: List[bytes] = []
    left = MOST_SEARCHED
    while left > 0:
        piece = os.read(descriptor, min(left, 1024 * 1024))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _is_binary(data: bytes) -> bool:
    return b"\0" in data and not any(data.startswith(mark) for mark, _ in _MARKS)


def _as_utf8(data: bytes) -> bytes:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace").encode("utf-8")
    if _is_binary(data):
        return b""
    return data[len(codecs.BOM_UTF8) :] if data.startswith(codecs.BOM_UTF8) else data
