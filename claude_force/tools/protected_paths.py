"""Keeps commands in the sandbox from changing what programs outside it would run later.

The configuration of git names programs (`core.fsmonitor`, `core.sshCommand`, filters), which run at the
user's next `git status`; its hooks are programs; `.claude` has hooks, settings and agents, `.mcp.json` names
servers. A command that may write to a project gets those mounted read-only. `.git` itself is a mount, so that
it can't be renamed and made anew; index, objects and refs in it can be written, so that commits work.

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

GIT = ".git"
# Each needs a grant of its own to be written.
PROTECTED = (".claude", ".mcp.json", GIT)
# In `.git`. `commondir` would name another folder to read the configuration from.
_OF_GIT = ("commondir", "config", "config.worktree", "hooks", "info", "modules", "worktrees")
_HOOKS_PATH = re.compile(r'^\s*hooksPath\s*=\s*"?([^"#;\n]+)', re.IGNORECASE | re.MULTILINE)
_MOST_BYTES = 256 * 1024
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
        renamed = []
        for parts, before in self._unmounted.items():
            parent = self._open(parts[:-1])
            if parent is None:
                continue
            try:
                now = _identity(parent, parts[-1])
                if now is not None and now != before:
                    new = _rename(parent, parts[-1])
                    renamed.append(("/".join(parts), "/".join((*parts[:-1], new))))
            finally:
                os.close(parent)
        return renamed

    def _protect(self, names: Sequence[_Parts]) -> None:
        for parts in names:
            is_folder = self._mount(parts, is_writable=parts == (GIT,))
            if parts == (GIT,) and is_folder:
                self._protect([(GIT, name) for name in _OF_GIT])
                hooks = self._hooks_path()
                if hooks is not None:
                    self._protect([hooks])

    def _mount(self, parts: _Parts, is_writable: bool) -> bool:
        """Mounts what is there over itself; returns whether it is a folder."""
        descriptor = self._open(parts)
        mode = 0 if descriptor is None else os.fstat(descriptor).st_mode
        if descriptor is not None and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
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
        config = self._open((GIT, "config"))
        if config is None:
            return None
        try:
            # What O_PATH opened can't be read; it can be opened again, and is no link.
            if not stat.S_ISREG(os.fstat(config).st_mode):
                return None
            with open(f"/proc/self/fd/{config}", "rb") as file:
                found = _HOOKS_PATH.search(file.read(_MOST_BYTES).decode("utf-8", "replace"))
        except OSError:
            return None
        finally:
            os.close(config)
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
