"""Shows folders of other places below a root, as mounts do, for all that uses `folders.Folders`."""

from __future__ import annotations

import os
from typing import ContextManager, Dict, Iterator, NamedTuple, Sequence, Tuple

from .folders import DescriptorFolders, Folders


class MountedFolder(NamedTuple):
    """A folder of another place.

    Attributes:
        at: the parts of the path, below the root, that it is shown at.
        descriptor: one of the folder. It stays the caller's.
    """

    at: Tuple[str, ...]
    descriptor: int


class MountedFolders:
    """The folders of a root, with others mounted in it. Implements `Folders`.

    Where a folder is mounted, the root has to have an empty one: that is what its parent lists.
    """

    def __init__(self, root: Folders, mounts: Sequence[MountedFolder]) -> None:
        self._root, self._mounts = root, mounts
        self._opened: Dict[MountedFolder, Folders] = {}

    def close(self) -> None:
        self._root.close()
        for one in self._opened.values():
            one.close()
        self._opened.clear()

    def lstat(self, folder: Sequence[str], name: str) -> os.stat_result:
        folders, inside = self._at(folder)
        return folders.lstat(inside, name)

    def readlink(self, folder: Sequence[str], name: str) -> str:
        folders, inside = self._at(folder)
        return folders.readlink(inside, name)

    def open(self, folder: Sequence[str], name: str) -> int:
        folders, inside = self._at(folder)
        return folders.open(inside, name)

    def scan(self, folder: Sequence[str]) -> ContextManager[Iterator[os.DirEntry[str]]]:
        folders, inside = self._at(folder)
        return folders.scan(inside)

    def make(self, folder: Sequence[str], name: str) -> None:
        folders, inside = self._at(folder)
        folders.make(inside, name)

    def create(self, folder: Sequence[str], name: str, mode: int) -> int:
        folders, inside = self._at(folder)
        return folders.create(inside, name, mode)

    def expect_writable(self, folder: Sequence[str], name: str) -> None:
        folders, inside = self._at(folder)
        folders.expect_writable(inside, name)

    def replace(self, folder: Sequence[str], old: str, new: str) -> None:
        folders, inside = self._at(folder)
        folders.replace(inside, old, new)

    def unlink(self, folder: Sequence[str], name: str) -> None:
        folders, inside = self._at(folder)
        folders.unlink(inside, name)

    def _at(self, folder: Sequence[str]) -> Tuple[Folders, Sequence[str]]:
        for mount in self._mounts:
            if tuple(folder[: len(mount.at)]) == mount.at:
                if mount not in self._opened:
                    self._opened[mount] = DescriptorFolders(mount.descriptor)
                return self._opened[mount], folder[len(mount.at) :]
        return self._root, folder
