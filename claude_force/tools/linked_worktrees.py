"""Finds the repository of a linked worktree of git, which lies outside of it.

The `.git` of such a worktree is a file that names a folder in the repository. Anybody can write such a file,
so it is only believed if that folder is outside of the worktree, names the worktree in turn, as git made it
do, and lies in what looks like a repository.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Optional

_PREFIX = "gitdir: "
_MOST_BYTES = 4096 + len(_PREFIX)
_OPEN = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)


def repository_of(git_file: Path) -> Optional[Path]:
    """Returns the repository's folder for the `.git` of a worktree; None if it is not one."""
    text = _read(git_file)
    if text is None or not text.startswith(_PREFIX):
        return None
    folder = Path(os.path.realpath(git_file.parent / text[len(_PREFIX) :]))
    back, common = _read(folder / "gitdir"), _read(folder / "commondir")
    if back is None or common is None or not _is_same(folder / back, git_file):
        return None
    repository = Path(os.path.realpath(folder / common))
    tree = Path(os.path.realpath(git_file.parent))
    is_outside = tree not in (folder, *folder.parents)
    is_inside = folder.parent == repository / "worktrees"
    return repository if is_outside and is_inside and _is_repository(repository) else None


def _is_repository(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _is_same(path: Path, git_file: Path) -> bool:
    return path.name == git_file.name and os.path.realpath(path.parent) == os.path.realpath(git_file.parent)


def _read(path: Path) -> Optional[str]:
    """The only line of a small regular file; None for anything else."""
    try:
        # Not `os.open`: nothing would close a folder's descriptor, which `open` refuses.
        with open(path, "rb", opener=lambda name, _: os.open(name, _OPEN)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    text = os.fsdecode(data).rstrip("\n")
    is_path = len(data) <= _MOST_BYTES and "\n" not in text and "\0" not in text
    return text if is_path else None
