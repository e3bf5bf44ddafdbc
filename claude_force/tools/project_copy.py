"""Copies a project: once from the project itself, then from that copy for each agent.

The first copy, the base, is what patches are made against, and stays as it is. A copy for an agent with Bash
has files of its own. One for an agent that has Edit and Write alone shares the files of the base by hard
links, which is faster and takes no room: those tools put a new file in the place of an old one, and never
write into it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

from ..errors import WorktreeError
from .git_commands import PrivateGit
from .project_walk import MOST_IGNORED_BYTES, Entry, ProjectSelection, blocks_git, walk, walk_own

# Of one copy.
MOST_BYTES = 2 * 1024**3
_READ = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_CHUNK = 1024**2
_MARK = "copied"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class BaseFile(NamedTuple):
    """A file or a link of the base."""

    mode: int
    size: int
    inode: int


class Base(NamedTuple):
    """The first copy.

    Attributes:
        path: its folder.
        files: its files and links by their paths.
        folders: its folders, each before what is in it.
        ignored_files: those of the files that git ignores.
        ignored_folders: the ignored folders of the project, which are not in it.
    """

    path: Path
    files: Dict[str, BaseFile]
    folders: Tuple[str, ...]
    ignored_files: frozenset[str]
    ignored_folders: Tuple[str, ...]


class AgentCopy(NamedTuple):
    """The copy of one agent.

    Attributes:
        path: its folder.
        is_linked: whether it shares the files of the base.
        copied_at: what changed later has a later status time, in nanoseconds.
    """

    path: Path
    is_linked: bool
    copied_at: int


def copy_project(root: Path, target: Path, git: PrivateGit, tracked: List[str]) -> Base:
    """Makes the base of a project; `target` must not be there yet. Raises WorktreeError, OSError."""
    target.mkdir()
    files: Dict[str, BaseFile] = {}
    folders: List[str] = []
    left = MOST_BYTES
    with git.ignore_check(root) as check:
        selection = ProjectSelection(check, root, tracked)
        for entry in walk(root, selection):
            if entry.is_folder:
                folders.append(entry.path)
                (target / entry.path).mkdir()
                continue
            if entry.path in selection.ignored_files and entry.info.st_size > MOST_IGNORED_BYTES:
                continue
            left -= entry.info.st_size if entry.is_file else 0
            if left < 0:
                raise _too_large()
            copy = f"{target}/{entry.path}"
            if _copy_entry(entry, copy):
                files[entry.path] = _describe(copy)
    ignored = frozenset(selection.ignored_files)
    return Base(target, files, tuple(folders), ignored, tuple(selection.ignored_folders))


def _copy_entry(entry: Entry, target: str) -> bool:
    """Returns whether there is something to copy: a file that can be read, or a link."""
    if entry.is_link:
        with suppress(FileNotFoundError):
            os.symlink(os.readlink(entry.name, dir_fd=entry.folder), target)
            return True
        return False
    if not entry.is_file:
        return False
    try:
        source = os.open(entry.name, _READ, dir_fd=entry.folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP):
            return False
        raise
    try:
        info = os.fstat(source)
        if not stat.S_ISREG(info.st_mode):
            return False
        _copy_file(source, info, target)
    finally:
        os.close(source)
    return True


def _copy_file(source: int, info: os.stat_result, target: str) -> None:
    """Copies content, permissions and time of modification: programs such as make compare that."""
    descriptor = os.open(target, _CREATE, stat.S_IMODE(info.st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)
    try:
        _copy_content(source, descriptor, info.st_size)
        os.fchmod(descriptor, stat.S_IMODE(info.st_mode) & 0o777 | stat.S_IRUSR)
        os.utime(descriptor, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        os.close(descriptor)


def _copy_content(source: int, target: int, size: int) -> None:
    if hasattr(os, "copy_file_range"):
        # Where the file system can, both share the blocks until one of them is written.
        with suppress(OSError):
            while os.copy_file_range(source, target, 64 * _CHUNK):
                pass
        # Some file systems can't, and some say so by copying nothing.
        if os.lseek(source, 0, os.SEEK_CUR) >= size:
            return
    while True:
        data = os.read(source, _CHUNK)
        if not data:
            return
        while data:
            data = data[os.write(target, data) :]


def _describe(path: str) -> BaseFile:
    info = os.lstat(path)
    return BaseFile(info.st_mode, info.st_size, info.st_ino)


def copy_base(base: Base, target: Path, shares_files: bool) -> AgentCopy:
    """Makes a copy for one agent; `target` must not be there yet. Raises WorktreeError, OSError.

    `shares_files`: whether it may share the files of the base by hard links.
    """
    target.mkdir()
    for folder in sorted({*base.folders, *base.ignored_folders}):
        os.mkdir(f"{target}/{folder}")
    is_linked = shares_files and _link_all(base, target)
    if not is_linked:
        _copy_all(base, target)
    # The file system's clock, which need not be that of this process.
    mark = target.with_name(_MARK)
    mark.touch()
    return AgentCopy(target, is_linked, mark.stat().st_ctime_ns)


def _link_all(base: Base, target: Path) -> bool:
    """Returns False where the file system has no hard links, or not so many of one file."""
    made: List[str] = []
    try:
        for path in base.files:
            link = f"{target}/{path}"
            os.link(f"{base.path}/{path}", link, follow_symlinks=False)
            made.append(link)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        for link in made:
            os.unlink(link)
        return False
    return True


def _copy_all(base: Base, target: Path) -> None:
    for path, file in base.files.items():
        if stat.S_ISLNK(file.mode):
            os.symlink(os.readlink(f"{base.path}/{path}"), f"{target}/{path}")
            continue
        source = os.open(f"{base.path}/{path}", _READ)
        try:
            _copy_file(source, os.fstat(source), f"{target}/{path}")
        finally:
            os.close(source)


def changed_entries(base: Base, copy: AgentCopy) -> Iterator[Tuple[str, bool]]:
    """Yields the paths of files that may have changed: (path, whether it is new), then those that are gone.

    The latter are yielded as no new ones. Nothing must be written to the copy meanwhile.
    """
    gone = set(base.files)
    for entry in walk_own(copy.path):
        if entry.is_folder:
            continue
        if blocks_git(entry.path, entry.info):
            os.unlink(entry.name, dir_fd=entry.folder)
            continue
        before = base.files.get(entry.path)
        gone.discard(entry.path)
        if before is None:
            yield entry.path, True
        elif _may_have_changed(before, entry.info, copy):
            yield entry.path, False
    for path in sorted(gone):
        yield path, False


def _may_have_changed(before: BaseFile, now: os.stat_result, copy: AgentCopy) -> bool:
    if (before.mode, before.size) != (now.st_mode, now.st_size):
        return True
    if copy.is_linked:
        return before.inode != now.st_ino
    # A status time can't be set, so that no program can hide a change.
    return now.st_ctime_ns >= copy.copied_at


def _too_large() -> WorktreeError:
    return WorktreeError(
        f"The project has over {MOST_BYTES // 1024**3} GiB of files that are not ignored, and each agent "
        "that edits works in a copy. Name folders of data in .gitignore, or work in place (in_place, "
        "--in-place)."
    )
