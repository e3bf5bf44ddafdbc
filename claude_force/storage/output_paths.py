"""Opens files for output, and decides which links on the way are the user's own.

Inside a project every link may have come with the project, and none is followed. Outside of projects links
are followed as the user gave them.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Optional, Union

from .. import settings
from .private_files import PUBLIC_FILE, Folder, check_database
from .project_root import has_entry, project_root


def base_in_project(path: Path) -> Optional[Path]:
    """Returns the root of the project that the absolute `path` lies in; None outside of projects.

    The project of the working directory comes first: a folder inside it never counts as another project.
    Outside of all projects the working directory counts as a project too, unless it is the home folder or
    above.
    """
    root = _root_here()
    if root is not None and (path == root or root in path.parents):
        return root
    return _root_above(path)


def _root_here() -> Optional[Path]:
    try:
        root = project_root(Path.cwd())
    except FileNotFoundError:
        # The working directory was removed.
        return None
    home = Path(os.path.realpath(settings.user_folder().parent))
    return None if root == home or root in home.parents else root


def _root_above(path: Path) -> Optional[Path]:
    """As `project_root`, without resolving links: a link on the way to a project is the user's own."""
    holder: Optional[Path] = None
    home = settings.user_folder().parent
    for folder in path.parents:
        if folder in (home, folder.parent):
            break
        if has_entry(str(folder), ".git"):
            return folder
        if holder is None and has_entry(str(folder), ".claude"):
            holder = folder
    return holder


def open_package_folder(path: Union[str, Path], make: bool = False) -> Folder:
    """Opens a folder of the package, such as a project's `.claude/metrics`, through no link of the project.

    Raises UnsafePathError, OSError.
    """
    whole = absolute_path(path)
    return Folder(whole, base_in_project(whole) or whole.parent, make)


def open_output_folder(path: Union[str, Path], make: bool = False) -> Folder:
    """Opens the folder of an output that the user named; the file in it is `output_path(path).name`.

    Raises UnsafePathError, OSError.
    """
    place = output_path(path)
    base = base_in_project(place)
    return Folder(place.parent, place.parent if base is None or base == place else base, make)


def check_output_database(path: Union[str, Path]) -> None:
    """Checks a file that the user named, before SQLite opens it and the files beside it by their names.

    Raises UnsafePathError where a link of a project is on the way, or one of the files is not a regular file.
    """
    try:
        with open_output_folder(path) as folder:
            check_database(folder.path / output_path(path).name)
    except FileNotFoundError:
        return


def open_output(path: Union[str, Path]) -> int:
    """Returns a descriptor for writing of an output that the user named, and truncates it.

    Outside of projects it may also be a pipe or a terminal. Raises UnsafePathError, OSError.
    """
    if is_special_output(path):
        return os.open(path, os.O_WRONLY)
    place = output_path(path)
    with open_output_folder(place) as folder:
        return folder.open(place.name, os.O_TRUNC, PUBLIC_FILE)


def replace_output(path: Union[str, Path], data: bytes) -> None:
    """Writes an output that the user named, completely or not at all. Raises UnsafePathError, OSError."""
    if is_special_output(path):
        with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file:
            file.write(data)
        return
    place = output_path(path)
    with open_output_folder(place) as folder:
        _replace(folder, place.name, data)


def _replace(folder: Folder, name: str, data: bytes) -> None:
    folder.expect_file(name)
    part = f".{name}.{os.getpid()}"
    try:
        with os.fdopen(folder.open(part, os.O_TRUNC, PUBLIC_FILE), "wb") as file:
            file.write(data)
        folder.replace(part, name)
    except OSError:
        with suppress(OSError):
            folder.unlink(part)
        raise


def is_special_output(path: Union[str, Path]) -> bool:
    """Whether the user named a pipe, a terminal or the like, outside of projects."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return False
    is_special = not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode)
    return is_special and base_in_project(absolute_path(path)) is None


def absolute_path(path: Union[str, Path]) -> Path:
    """Makes the path absolute without following links: `..` removes the part before it."""
    return Path(os.path.abspath(path))


def output_path(path: Union[str, Path]) -> Path:
    """Returns the absolute path of an output; links are resolved outside of projects only."""
    whole = absolute_path(path)
    return whole if base_in_project(whole) is not None else Path(os.path.realpath(whole))
