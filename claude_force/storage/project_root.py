"""Finds the folder that bounds what is read of a project."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Optional, Tuple, Union

from .. import settings
from ..errors import FileAccessError

_SHARED = stat.S_ISVTX | stat.S_IWOTH


def working_folder() -> Path:
    """The working directory. Raises FileAccessError where it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        advice = "Change to another folder."
        raise FileAccessError("The working directory", "is not there any more", advice) from error


def project_root(start: Union[str, Path]) -> Path:
    """Returns the real path of the root of the project that the folder `start` lies in.

    The root is the nearest folder upwards with a `.git`, else the nearest with a `.claude`, else `start`
    itself. The home folder and `/` are roots only if `start` is that folder: a repository of configuration
    files in the home folder does not make the whole home one project. The search ends at a folder that all
    users share, such as `/tmp`: what lies there may be another user's.
    """
    first = os.path.realpath(start)
    holder: Optional[str] = None
    for folder in upwards(first):
        if has_entry(folder, ".git"):
            return Path(folder)
        if holder is None and has_entry(folder, ".claude"):
            holder = folder
    return Path(holder or first)


def upwards(first: str) -> Tuple[str, ...]:
    """Returns `first`, a real path, and the folders above it, as far as they can belong to the project."""
    home = os.path.realpath(settings.user_folder().parent)
    found = [first]
    for folder in map(str, Path(first).parents):
        if found[-1] == home or folder in (home, os.path.dirname(folder)) or _is_shared(folder):
            break
        found.append(folder)
    return tuple(found)


def has_entry(folder: str, name: str) -> bool:
    """Whether there is anything of this name in the folder; a link counts wherever it leads."""
    return os.path.lexists(os.path.join(folder, name))


def _is_shared(folder: str) -> bool:
    try:
        return os.stat(folder).st_mode & _SHARED == _SHARED
    except OSError:
        return False
