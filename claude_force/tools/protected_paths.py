"""Keeps commands in the sandbox from changing what programs outside it would run later.

The configuration of git names programs (`core.fsmonitor`, `core.sshCommand`, filters), which run at the
user's next `git status`; its hooks are programs; `.claude` and `.claude-plugin` have hooks, settings and
agents, `.mcp.json` names servers. A command that may write to a project gets those mounted read-only. `.git`
itself is a mount, so that it can't be renamed and made anew; index, objects and refs in it can be written, so
that commits work.

The repository of a submodule is obeyed as well: what the index names as one is protected in the same way, and
what a command made is set aside.

What does not exist can't be mounted without leaving it in the project. If a command makes it, it is renamed
when the command has ended: `.git` to `.git.untrusted`.

Everything is opened part by part, without following links, and mounted by descriptor: no link that a command
swaps in leads a mount elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Collection, Dict, List, Optional, Sequence, Tuple, Type

from .git_index import submodules

GIT = ".git"
# Each needs a grant of its own to be written.
PROTECTED = (".claude", ".claude-plugin", ".mcp.json", GIT)
# In `.git`. `commondir` would name another folder to read the configuration from.
_OF_GIT = ("commondir", "config", "config.worktree", "hooks", "info", "modules", "worktrees")
_HOOKS_PATH = re.compile(r'^\s*hooksPath\s*=\s*"?([^"#;\n]+)', re.IGNORECASE | re.MULTILINE)
_MOST_BYTES = 256 * 1024
# Of a larger index the beginning is looked at.
_MOST_INDEX = 64 * 1024 * 1024
_MOST_NAMES = 1000
_AT = os.O_RDONLY | getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_Parts = Tuple[str, ...]
# Tells whether something was replaced.
_Identity = Optional[Tuple[int, ...]]


class ProtectedPaths:
    """The mounts that protect one writable folder during one command. Context manager.

    Attributes:
        arguments: those of bubblewrap, to stand behind the mount of the folder itself.
        descriptors: what it has to inherit.
    """

    def __init__(self, folder: Path, target: Path, names: Collection[str] = PROTECTED) -> None:
        """Opens what there is to protect. Raises OSError.

        `folder`: a real path. `target`: where commands see it. `names`: those of PROTECTED that may not be
        written.
        """
        self.arguments: List[str] = []
        self.descriptors: List[int] = []
        self._folder, self._target = folder, target
        # What can't be mounted: it is missing, or a link.
        self._unmounted: Dict[_Parts, _Identity] = {}
        # What is mounted, with the folder around it.
        self._mounted: Dict[_Parts, _Identity] = {}
        self._has_git = GIT in names
        self._root = os.open(folder, _AT | os.O_DIRECTORY)
        try:
            self._protect([(name,) for name in names])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ProtectedPaths:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in (self._root, *self.descriptors):
            os.close(descriptor)
        self.descriptors.clear()

    def set_aside(self) -> List[Tuple[str, str]]:
        """Renames what the command made in protected places. To be called when no process of it is left.

        Returns (name, new name) of each, below the folder.
        """
        renamed = [self._set_aside(parts, before) for parts, before in self._unmounted.items()]
        renamed += [self._set_aside(parts, None) for parts in self._mounted if self._has_moved(parts)]
        known = (*self._unmounted, *self._mounted)
        new = [parts for parts in self._of_submodules() if parts not in known] if self._has_git else []
        renamed += [self._set_aside(parts, None) for parts in new]
        return [one for one in renamed if one is not None]

    def _has_moved(self, parts: _Parts) -> bool:
        """Whether the folder around a mount is another one: a mount moves with the folders above it."""
        if len(parts) == 1:
            return False
        return self._folder_of(parts) not in (None, self._mounted[parts])

    def _folder_of(self, parts: _Parts) -> _Identity:
        """The device and number of the folder around something; None where it is not there."""
        folder = self._open(parts[:-1])
        if folder is None:
            return None
        info = os.fstat(folder)
        os.close(folder)
        return info.st_dev, info.st_ino

    def _set_aside(self, parts: _Parts, before: _Identity) -> Optional[Tuple[str, str]]:
        """Renames what is there now, if it is not what was there before."""
        parent = self._open(parts[:-1])
        if parent is None:
            return None
        try:
            now = _identity(parent, parts[-1])
            if now is None or now == before:
                return None
            new = _rename(parent, parts[-1])
            return "/".join(parts), "/".join((*parts[:-1], new))
        finally:
            os.close(parent)

    def _protect(self, names: Sequence[_Parts]) -> None:
        for parts in names:
            is_git = parts[-1] == GIT
            is_folder = self._mount(parts, is_writable=is_git)
            if is_git and is_folder:
                self._protect([(*parts, name) for name in _OF_GIT])
            if parts == (GIT,) and is_folder:
                hooks = self._hooks_path()
                self._protect([*([] if hooks is None else [hooks]), *self._of_submodules()])

    def _of_submodules(self) -> List[_Parts]:
        """The `.git` of each submodule: `git status` in the project obeys its configuration too."""
        paths = [
            path for name in self._indexes() for path in submodules(self._read((GIT, name), _MOST_INDEX))
        ]
        found = [(*os.fsdecode(path).split("/"), GIT) for path in dict.fromkeys(paths)]
        return [parts for parts in found if not {"", ".", ".."}.intersection(parts)]

    def _indexes(self) -> List[str]:
        """The names of the indexes in `.git`, of which one may be split into two."""
        folder = self._open((GIT,))
        if folder is None:
            return []
        try:
            names = os.listdir(f"/proc/self/fd/{folder}")
        except OSError:
            return []
        finally:
            os.close(folder)
        return sorted(name for name in names if name == "index" or name.startswith("sharedindex."))

    def _read(self, parts: _Parts, most: int) -> bytes:
        """The beginning of a regular file; nothing for anything else."""
        descriptor = self._open(parts)
        if descriptor is None:
            return b""
        try:
            # What O_PATH opened can't be read; it can be opened again, and is no link.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                return file.read(most)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def _mount(self, parts: _Parts, is_writable: bool) -> bool:
        """Mounts what is there over itself; returns whether it is a folder."""
        descriptor = self._open(parts)
        mode = 0 if descriptor is None else os.fstat(descriptor).st_mode
        if descriptor is not None and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            self._mounted[parts] = self._folder_of(parts)
            option = "--bind-fd" if is_writable and stat.S_ISDIR(mode) else "--ro-bind-fd"
            self.descriptors.append(descriptor)
            self.arguments += [option, str(descriptor), str(self._target.joinpath(*parts))]
            return stat.S_ISDIR(mode)
        self._unmounted[parts] = None
        if descriptor is not None:
            self._unmounted[parts] = _identity_of(os.fstat(descriptor))
            os.close(descriptor)
        if stat.S_ISLNK(mode):
            target = self._below(os.path.realpath(self._folder.joinpath(*parts)))
            return target not in (None, parts) and self._mount(target or (), is_writable)
        return False

    def _open(self, parts: _Parts) -> Optional[int]:
        """A descriptor of what is there, a link too; None where a folder above it is missing or a link."""
        descriptor = os.dup(self._root)
        for number, part in enumerate(parts):
            try:
                kind = os.O_DIRECTORY if number < len(parts) - 1 else 0
                descriptor, above = os.open(part, _AT | kind, dir_fd=descriptor), descriptor
            except OSError:
                os.close(descriptor)
                return None
            os.close(above)
        return descriptor

    def _hooks_path(self) -> Optional[_Parts]:
        """The folder of hooks that the configuration of git names, if it is inside the project."""
        config = self._read((GIT, "config"), _MOST_BYTES).decode("utf-8", "replace")
        found = _HOOKS_PATH.search(config)
        return self._below(os.path.join(self._folder, found[1].strip())) if found else None

    def _below(self, path: str) -> Optional[_Parts]:
        """The parts of a path below the folder; None for the folder itself, and for one elsewhere."""
        parts = Path(os.path.normpath(path)).parts
        root = self._folder.parts
        return parts[len(root) :] or None if parts[: len(root)] == root else None


def _identity(folder: int, name: str) -> _Identity:
    try:
        return _identity_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError:
        return None


def _identity_of(info: os.stat_result) -> Tuple[int, ...]:
    # A new file often gets the number of one that was just removed.
    return info.st_dev, info.st_ino, info.st_mode, info.st_ctime_ns


def _rename(folder: int, name: str) -> str:
    names = (f"{name}.untrusted{number or ''}" for number in range(_MOST_NAMES))
    new = next((one for one in names if _identity(folder, one) is None), f"{name}.untrusted")
    os.rename(name, new, src_dir_fd=folder, dst_dir_fd=folder)
    return new
