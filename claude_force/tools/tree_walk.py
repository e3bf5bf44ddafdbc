"""Walks the files of a workspace below a folder, in the order of their paths, without following links."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from .. import settings
from ..errors import FileAccessError
from ..storage.folders import Folders, ReplacedError
from ..storage.project_files import MOST_FOLDERS, Parts
from ..storage.regular_files import checked_descriptor
from .glob_patterns import GlobList
from .ignore_files import IGNORE_NAMES, MOST_BYTES, IgnoreRules
from .threads import Stop
from .workspace import Place, Workspace, failed, never

MOST_ENTRIES = 1_000_000
MOST_SECONDS = 20.0
# Folders of version control, left out whatever the ignore files say.
_VERSION_CONTROL = frozenset({".git", ".svn", ".hg", ".bzr", ".jj", ".sl"})
# What this package writes itself, by the run that searches too: a second run would find something else.
_LEDGER = settings.LEDGER_FOLDER.parts


class WalkedFile(NamedTuple):
    """A regular file: the folder that it lies in, its name, and its path below the start of the walk."""

    folder: Parts
    name: str
    path: str


_Folder = Iterator[Union[WalkedFile, "Iterator[Any]"]]


class Deadline:
    """Ends long work: by its time, or because nobody waits for it any more."""

    def __init__(self, stop: Stop, seconds: float = MOST_SECONDS) -> None:
        self._stop, self._end, self._seconds = stop, time.monotonic() + seconds, seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raises ToolError when it is over."""
        if self._stop.is_set() or time.monotonic() > self._end:
            raise failed(
                f"The search took more than {self._seconds:.0f} seconds, and was ended. "
                "Try a more specific path or pattern."
            )


class TreeWalk:
    """One walk from a folder.

    Attributes:
        is_cut: whether folders were left out because they lie too deep.
    """

    def __init__(
        self,
        workspace: Workspace,
        start: Place,
        deadline: Deadline,
        globs: Optional[GlobList] = None,
        obeys_ignore_files: bool = False,
        takes: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Prepares a walk.

        Args:
            start: the folder; its workspace stays open during the walk.
            globs: patterns of files, relative to `start`; they win over ignore files.
            takes: whether files of a name are wanted.
        """
        self._folders: Folders = start.files.folders
        self._start, self._deadline, self._globs, self._takes = start, deadline, globs, takes
        self._obeys = obeys_ignore_files
        denies = workspace.rules.denies_read
        self._denies = None if denies is never else denies
        self._needs_match = globs is not None and globs.has_plain
        self._left = MOST_ENTRIES
        self.is_cut = False

    def files(self, below: Sequence[str] = ()) -> Iterator[WalkedFile]:
        """Yields the files, or only those below a folder of the start. Raises ToolError."""
        first = (*self._start.reached.parts, *below)
        stack = [self._folder(first, "".join(f"{name}/" for name in below), self._rules_above(first))]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, WalkedFile):
                yield found
            else:
                stack.append(found)

    def _folder(self, folder: Parts, prefix: str, rules: IgnoreRules) -> _Folder:
        """Yields the files of a folder, and for each folder in it what yields the files of that one."""
        if len(folder) > MOST_FOLDERS:
            self.is_cut = True
            return
        entries = self._entries(folder)
        rules = self._rules_in(folder, [name for name, _ in entries], rules)
        for name, is_folder in entries:
            # The rules of a project may take long for each name.
            self._deadline.check()
            path = prefix + name
            if self._is_wanted((*folder, name), path, is_folder, rules):
                yield (
                    self._folder((*folder, name), path + "/", rules)
                    if is_folder
                    else WalkedFile(folder, name, path)
                )

    def _is_wanted(self, parts: Parts, path: str, is_folder: bool, rules: IgnoreRules) -> bool:
        if parts[-1] in _VERSION_CONTROL or parts[-2:] == _LEDGER:
            return False
        if not (is_folder or self._takes(parts[-1])):
            return False
        decision = self._globs.decide(path, is_folder) if self._globs is not None else None
        if decision is False or (decision is None and not is_folder and self._needs_match):
            return False
        if decision is None and self._obeys and rules.ignores("/".join(parts), is_folder):
            return False
        return self._denies is None or not self._denies(self._start.absolute(parts))

    def _entries(self, folder: Parts) -> List[Tuple[str, bool]]:
        """The names of a folder that are folders (True) or files, sorted; none where it is gone."""
        self._deadline.check()
        try:
            with self._folders.scan(folder) as entries:
                found = [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in islice(entries, self._left + 1)
                    if not entry.is_symlink()
                    and (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
                ]
        except (OSError, ReplacedError):
            return []
        self._left -= len(found)
        if self._left < 0:
            raise failed(f"There are more than {MOST_ENTRIES:,} files. Try a more specific path.")
        return sorted(found)

    def _rules_above(self, folder: Parts) -> IgnoreRules:
        """The rules that the folders above one have, from the root of the workspace on."""
        rules = IgnoreRules()
        for depth in range(len(folder)) if self._obeys else ():
            names = [name for name in IGNORE_NAMES if self._has(folder[:depth], name)]
            rules = self._rules_in(folder[:depth], names, rules)
        return rules

    def _rules_in(self, folder: Parts, names: Iterable[str], rules: IgnoreRules) -> IgnoreRules:
        if not self._obeys:
            return rules
        return rules.inside("/".join(folder), names, lambda name: self._ignore_file(folder, name))

    def _ignore_file(self, folder: Parts, name: str) -> Optional[bytes]:
        *more, last = name.split("/")
        try:
            descriptor = self._folders.open((*folder, *more), last)
            checked_descriptor(descriptor, name, MOST_BYTES)
        except (OSError, ReplacedError, FileAccessError):
            return None
        with open(descriptor, "rb") as file:
            return file.read(MOST_BYTES)

    def _has(self, folder: Parts, name: str) -> bool:
        try:
            self._folders.lstat(folder, name)
        except (OSError, ReplacedError):
            return False
        return True
