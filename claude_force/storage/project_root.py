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
    """The real path of the root of the project that the folder `start` lies in.

    The root is the nearest folder upwards that has a `.git`, else the nearest that has a `.claude`, else
    `start` itself. The home folder and `/` are the root only of what is run right in them: a repository of
    configuration files in the home folder does not make the whole home one project. Nor is anything beyond a
    folder that all users share, such as `/tmp`, looked at: what lies there may be another user's.
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
    """`first`, a real path, and the folders above it, up to the first that is not the project's to use."""
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
