"""Folders for the copies of projects, and the removal of those that a killed process has left.

They lie in `~/.claude/worktrees`, which only the user can read: not in the project, which stays as it is, and
not in `/tmp`, which often is memory. Each process has a folder of its own there with a file that it keeps
locked. The system releases the lock when the process ends, also by SIGKILL, and the next process that makes
copies removes every folder whose file is not locked. The file has the number of its process, for people.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Tuple

from .. import settings
from ..storage.locks import FolderLock, try_lock
from ..storage.private_files import make_folders, make_private, open_private, read_private

_OWNER = "process"
_LOCK = "lock"
_MOST_LEFTOVERS = 1000


def worktrees_folder() -> Path:
    """The folder of all processes of this user."""
    return Path(os.path.realpath(settings.user_folder())) / "worktrees"


class WorktreeFolder:
    """A folder of this process. Blocks while it is made and removed.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        """Makes the folder, and removes those that were left. Raises OSError."""
        parent = worktrees_folder()
        make_folders(parent)
        make_private(parent)
        lock = FolderLock(parent / _LOCK)
        try:
            with lock:
                left = _leftovers(parent)
                self.path = parent / secrets.token_hex(6)
                self.path.mkdir(mode=0o700)
                self._owner = open_private(self.path / _OWNER)
                os.write(self._owner, b"%d\n" % os.getpid())
                try_lock(self._owner)
        finally:
            lock.close()
        self._process, self._is_closed = os.getpid(), False
        atexit.register(self.close)
        for folder, owner in left:
            remove_tree(folder)
            os.close(owner)

    def close(self) -> None:
        """Removes the folder with all that is in it. Does nothing the second time, and in a forked child."""
        if self._is_closed or os.getpid() != self._process:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        remove_tree(self.path)
        os.close(self._owner)


def _leftovers(parent: Path) -> List[Tuple[Path, int]]:
    """The folders of processes that have ended, each with a descriptor of its file, which is locked now."""
    found: List[Tuple[Path, int]] = []
    for folder in sorted(parent.iterdir())[:_MOST_LEFTOVERS]:
        if folder.is_symlink() or not folder.is_dir():
            continue
        try:
            owner = read_private(folder / _OWNER)
        except FileNotFoundError:
            # It was killed between making the folder and the file, which happens under the lock.
            owner = open_private(folder / _OWNER)
        if try_lock(owner):
            found.append((folder, owner))
        else:
            os.close(owner)
    return found


def remove_tree(folder: Path) -> None:
    """Removes a folder with all that is in it, whatever the permissions of folders in it."""
    shutil.rmtree(folder, onerror=_make_removable)


def _make_removable(function: Any, path: str, _: Any) -> None:
    """Opens a closed folder and tries again; what is gone is fine, and what stays is left to the next run."""
    with suppress(OSError):
        for one in (os.path.dirname(path), path):
            if stat.S_ISDIR(os.lstat(one).st_mode):
                os.chmod(one, stat.S_IRWXU)
        if function in (os.unlink, os.rmdir):
            function(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
