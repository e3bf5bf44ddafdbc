"""Walks folders and expands patterns of file names, without leaving the root."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import deque
from typing import Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Pattern, Sequence, Set, Tuple

from ..errors import FileAccessError
from ..lazy_pattern import pattern
from .path_text import printable
from .project_files import FolderEntry, Parts, ProjectFiles, ResolvedPath
from .regular_files import refuse_irregular

MOST_ENTRIES = 1_000_000
_MAGIC = pattern(r"[*?\[]")
_TOKEN = pattern(r"\[!?\]?[^\]]*\]|.", re.DOTALL)
_ANY_FOLDERS = "**"


class PathSpot(NamedTuple):
    """A path that may contain links: `name` below the root, and `label` as the user writes it."""

    name: str
    label: str

    def child(self, name: str) -> PathSpot:
        return PathSpot(_joined(self.name, name), _joined(self.label, name))


class WalkedFolder(NamedTuple):
    """One folder of a walk. `files` has the names in it that are not folders, sorted."""

    spot: PathSpot
    place: ResolvedPath
    files: List[str]


class Match(NamedTuple):
    """A file that a pattern matches. `problem` says why it can't be read; then `place` may be None."""

    spot: PathSpot
    place: Optional[ResolvedPath] = None
    problem: Optional[FileAccessError] = None


class FileWalk:
    """Walks folders and patterns of one ProjectFiles.

    Attributes:
        skipped: paths that can't be entered or read, with the reason.
    """

    def __init__(self, files: ProjectFiles, most: int = MOST_ENTRIES) -> None:
        """After `most` entries of folders a walk ends with a FileAccessError."""
        self._files, self._most, self._left = files, most, most
        self.skipped: Dict[PathSpot, FileAccessError] = {}
        self._start = ""

    def folders(
        self,
        start: PathSpot,
        enters: Callable[[str], bool] = lambda name: True,
        seen: Optional[Set[Parts]] = None,
    ) -> Iterator[WalkedFolder]:
        """Yields `start` and the folders below it whose names `enters` accepts, each folder once.

        Links to folders are followed last, so that a folder that is also reached directly has its own name.
        Folders in `seen` are skipped; visited ones are added to it.
        """
        self._start = start.label
        known: Set[Parts] = set() if seen is None else seen
        rest: List[PathSpot] = [start]
        linked: Deque[PathSpot] = deque()
        while rest or linked:
            spot = rest.pop() if rest else linked.popleft()
            place = self._place(spot)
            if place is None or not place.is_folder or place.parts in known:
                continue
            known.add(place.parts)
            found = self._entries(spot, place)
            yield WalkedFolder(spot, place, [one.name for one in found if not one.is_folder])
            inner = [one for one in found if one.is_folder and enters(one.name)]
            rest.extend(spot.child(one.name) for one in reversed(inner) if not one.is_link)
            linked.extend(spot.child(one.name) for one in inner if one.is_link)

    def matches(self, base: PathSpot, pattern: str) -> Iterator[Match]:
        """Yields the files below `base` that match, sorted. `*` and `?` don't match a leading dot.

        A file that matches and can't be read has its problem.
        """
        self._start = base.label
        parts = [part for part in _slashes(pattern).split("/") if part not in ("", ".")]
        spots = [base]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            if part == _ANY_FOLDERS:
                spots = self._below(spots, is_last)
            elif has_magic(part):
                spots = self._named(spots, part, is_last)
            else:
                spots = [spot.child(part) for spot in spots]
        for spot in sorted(set(spots)):
            match = self.match(spot)
            if match is not None:
                yield match

    def match(self, spot: PathSpot) -> Optional[Match]:
        """Returns the file at `spot`; None for a folder, and where there is nothing."""
        try:
            place = self._files.find(*spot)
            if place is None or place.is_folder:
                return None
            refuse_irregular(spot.label, place.info)
        except FileAccessError as error:
            # Reported as the problem of this match, so not as skipped as well.
            self.skipped.pop(spot, None)
            return Match(spot, problem=error)
        return Match(spot, place)

    def _below(self, spots: Sequence[PathSpot], is_last: bool) -> List[PathSpot]:
        """Expands `**`: all folders, or all files if it is the last part of the pattern."""
        seen: Set[Parts] = set()
        found: List[PathSpot] = []
        for spot in sorted(spots, key=self._is_linked):
            for folder in self.folders(spot, _is_visible, seen):
                if is_last:
                    found.extend(folder.spot.child(name) for name in folder.files if _is_visible(name))
                else:
                    found.append(folder.spot)
        return found

    def _named(self, spots: Sequence[PathSpot], part: str, is_last: bool) -> List[PathSpot]:
        """Expands a part such as `*.py`: names that match; only folders unless it is the last part."""
        matches = _matcher(part)
        found: List[PathSpot] = []
        for spot in spots:
            place = self._place(spot)
            if place is None or not place.is_folder:
                continue
            for one in self._listed(spot, place):
                if matches(one.name) and (is_last or one.is_folder or one.is_link):
                    found.append(spot.child(one.name))
        return found

    def _place(self, spot: PathSpot) -> Optional[ResolvedPath]:
        try:
            return self._files.find(*spot)
        except FileAccessError as error:
            self.skipped[spot] = error
            return None

    def _entries(self, spot: PathSpot, place: ResolvedPath) -> List[FolderEntry]:
        """Lists the folder, sorted, without skipped entries. A link to a folder counts as a folder."""
        found: List[FolderEntry] = []
        for one in self._listed(spot, place):
            if not one.is_link:
                found.append(one)
                continue
            child = spot.child(one.name)
            target = self._place(child)
            if target is not None:
                found.append(one._replace(is_folder=target.is_folder))
            elif child not in self.skipped:
                self.skipped[child] = FileAccessError(
                    printable(child.label), "is a link that leads nowhere", "Remove it.", is_missing=True
                )
        return found

    def _listed(self, spot: PathSpot, place: ResolvedPath) -> List[FolderEntry]:
        found: List[FolderEntry] = []
        try:
            found = self._files.entries(place, spot.label, self._left + 1)
        except FileAccessError as error:
            self.skipped[spot] = error
        self._left -= len(found)
        if self._left < 0:
            raise FileAccessError(
                printable(self._start or self._files.root),
                f"has more than {self._most:,} files and folders",
                "Name a smaller folder, or move elsewhere what is not needed.",
            )
        return sorted(found)

    def _is_linked(self, spot: PathSpot) -> Tuple[bool, PathSpot]:
        place = self._place(spot)
        return place is None or "/".join(place.parts) != spot.name, spot


def has_magic(pattern: str) -> bool:
    """Whether the text is a pattern and not a plain name."""
    return _MAGIC.search(pattern) is not None


def split_pattern(pattern: str) -> Tuple[str, str]:
    """Splits a pattern into the folder of all matches, as it is written, and the pattern below it."""
    parts = _slashes(pattern).split("/")
    plain = next((number for number, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    folder = "/".join(parts[:plain])
    return folder if folder or not plain else "/", "/".join(parts[plain:])


def _joined(folder: str, name: str) -> str:
    return f"{folder}{'' if not folder or folder.endswith('/') else '/'}{name}"


def _matcher(part: str) -> Callable[[str], bool]:
    """Makes the test of a name against a part of a pattern; it takes at most the product of both lengths."""
    pieces: List[List[str]] = [[]]
    for token in _TOKEN.findall(os.path.normcase(part)):
        if token == "*":
            pieces.append([])
        else:
            pieces[-1].append(token)
    try:
        parts = [(re.compile(fnmatch.translate("".join(piece))), len(piece)) for piece in pieces]
    except re.error:  # A range such as [z-a], which no name can match.
        return lambda name: False
    takes_hidden = part.startswith(".")
    return lambda name: (takes_hidden or _is_visible(name)) and _has_pieces(os.path.normcase(name), parts)


def _has_pieces(name: str, pieces: Sequence[Tuple[Pattern[str], int]]) -> bool:
    """Whether `name` consists of the pieces with anything in between. Each piece comes with its length."""
    (first, begin), (last, length) = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return len(name) == begin and bool(first.match(name))
    end = len(name) - length
    if end < begin or not first.match(name, 0, begin) or not last.match(name, end):
        return False
    position = begin
    for piece, length in pieces[1:-1]:
        places = range(position, end - length + 1)
        found = next((place for place in places if piece.match(name, place, place + length)), None)
        if found is None:
            return False
        position = found + length
    return True


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _slashes(path: str) -> str:
    return path if os.sep == "/" else path.replace(os.sep, "/")
