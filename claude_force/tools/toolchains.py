"""Finds the folders that the programs on PATH need: what a sandbox shows beside the system's folders.

Toolchains often lie in the home folder: `~/.pyenv/shims`, `~/.cargo/bin`. Only they are shown, not what is
around them: `~/.cargo` has credentials beside its `bin`.
"""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache
from glob import escape, glob
from pathlib import Path
from typing import Collection, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

# The system's own: whole, and readable for everybody.
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# Managers of versions, which keep everything in a folder of theirs.
_MANAGERS = frozenset(
    {
        *(".asdf", ".bun", ".deno", ".fnm", ".goenv", ".jenv", ".linuxbrew", ".nodenv", ".nvm", ".phpenv"),
        *(".pyenv", ".rbenv", ".rustup", ".sdkman", ".volta", "mise", "fnm"),
    }
)
_PROGRAMS = ("bin", "sbin", "shims", "condabin")
# Beside the folder of programs, one of these makes their parent an installation of its own.
_MARKS = ("pyvenv.cfg", "conda-meta", "include", "lib", "lib64", "libexec")
# These have programs of several installations, and folders with other data beside them.
_SHARED = frozenset({".local", ".cargo", "opt"})
_BASE_OF_VENV = re.compile(r"^home\s*=\s*(.+?)\s*$", re.MULTILINE)
_MOST_BYTES = 64 * 1024
# Sandboxes have their own, in which nothing can be mounted.
_NO_TOOLCHAINS = ("/proc", "/dev", "/sys")


class Toolchains(NamedTuple):
    """What of PATH is of use in a sandbox.

    Attributes:
        path: the folders of PATH that can be seen there, in its order.
        folders: what is shown beside the system's folders and the project; real paths, none below another.
    """

    path: Tuple[str, ...]
    folders: Tuple[str, ...]


@lru_cache(maxsize=64)
def find_toolchains(path: Tuple[str, ...], home: Path, elsewhere: Tuple[Path, ...] = ()) -> Toolchains:
    """Looks at each folder of PATH, once for the same arguments.

    `home`: never shown itself, nor a folder above it. `elsewhere`: folders that are shown in another way,
    such as the project; nothing is added for a folder of PATH in them.
    """
    programs: List[str] = []
    folders: Set[str] = set()
    unwanted = _with_parents(os.path.realpath(home))
    for entry in path:
        # A relative folder would be another one at each place.
        if not os.path.isabs(entry) or entry in programs or not os.access(entry, os.R_OK | os.X_OK):
            continue
        programs.append(entry)
        if not is_within(entry, (*SYSTEM_FOLDERS, *map(str, elsewhere))):
            folders |= _mountable(_needed_by(entry, unwanted), unwanted, elsewhere)
    outermost = _outermost(folders)
    return Toolchains(tuple(one for one in programs if _is_seen(one, outermost, elsewhere)), outermost)


def add_pythons(
    toolchains: Toolchains, environments: Iterable[Path], home: Path, elsewhere: Collection[Path] = ()
) -> Toolchains:
    """Adds the Python of each virtual environment, which anybody may have written, if there is one.

    `elsewhere` is as in `find_toolchains`.
    """
    unwanted = _with_parents(os.path.realpath(home))
    pythons = {one for each in environments for one in _python_of(str(each))}
    wanted = _mountable(pythons, unwanted, elsewhere)
    return toolchains._replace(folders=_outermost({*toolchains.folders, *wanted})) if wanted else toolchains


def _mountable(folders: Iterable[str], unwanted: Collection[str], elsewhere: Collection[Path]) -> Set[str]:
    """Those that may be mounted by their paths.

    Commands may write to the folders in `elsewhere`. A link there could lead the mount of the next command
    to any place outside.
    """
    refused = (*map(str, elsewhere), *_NO_TOOLCHAINS)
    found = set()
    for folder in folders:
        real = os.path.realpath(folder)
        if real not in unwanted and not is_within(folder, refused) and not is_within(real, refused):
            found.add(folder)
    return found


def _outermost(folders: Set[str]) -> Tuple[str, ...]:
    shown = {folder for folder in folders if not is_within(folder, SYSTEM_FOLDERS)}
    return tuple(sorted(one for one in shown if not is_within(one, shown - {one})))


def is_within(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of the folders, or below one, as it is written."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _is_seen(entry: str, folders: Sequence[str], elsewhere: Sequence[Path]) -> bool:
    return is_within(entry, (*SYSTEM_FOLDERS, *map(str, elsewhere), *folders))


def _needed_by(entry: str, unwanted: Collection[str]) -> Set[str]:
    """The folders that the programs in `entry` need, itself among them."""
    return _installation(entry, unwanted) | _installation(os.path.realpath(entry), unwanted)


def _installation(entry: str, unwanted: Collection[str]) -> Set[str]:
    parts = Path(entry).parts
    for number, part in enumerate(parts):
        if part in _MANAGERS:
            return {os.path.join(*parts[: number + 1])}
    parent, name = os.path.split(entry)
    if os.path.basename(parent) == ".cargo":
        # The programs there are rustup's, which start those of the toolchain.
        return {entry, *_existing(os.path.join(os.path.dirname(parent), ".rustup"))}
    is_shared = os.path.basename(parent) in _SHARED or os.path.realpath(parent) in unwanted
    # A repository, such as one of scripts, has more in it than what its programs need.
    is_shared = is_shared or os.path.lexists(os.path.join(parent, ".git"))
    if name not in _PROGRAMS or is_shared or not _is_installation(parent):
        return {entry}
    return {parent, *_base_of_venv(parent, unwanted)}


def _is_installation(folder: str) -> bool:
    return any(os.path.lexists(os.path.join(folder, mark)) for mark in _MARKS)


def _base_of_venv(folder: str, unwanted: Collection[str]) -> Set[str]:
    """The Python that a virtual environment was made from."""
    programs = _home_of_venv(folder)
    return _installation(programs, unwanted) if programs else set()


def _home_of_venv(folder: str) -> str:
    """The folder of programs that a virtual environment names; "" without one."""
    text = _read(os.path.join(folder, "pyvenv.cfg"))
    found = None if text is None else _BASE_OF_VENV.search(text)
    if found is None or not os.path.isabs(found[1]) or not os.path.isdir(found[1]):
        return ""
    return os.path.normpath(found[1])


def _python_of(folder: str) -> Set[str]:
    """The Python that an untrusted virtual environment names; none if there is no Python in that place."""
    programs = _home_of_venv(folder)
    prefix = os.path.dirname(programs)
    library = glob(os.path.join(escape(prefix), "lib", "python3*", "os.py"))
    is_python = bool(library) and os.access(os.path.join(programs, "python3"), os.X_OK)
    return (
        {prefix, os.path.realpath(prefix)} if is_python and os.path.basename(prefix) not in _SHARED else set()
    )


def _read(path: str) -> Optional[str]:
    try:
        # A project can have anything in its place, such as a FIFO.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(_MOST_BYTES).decode("utf-8", "replace") if is_file else None
    except OSError:
        return None


def _existing(path: str) -> Set[str]:
    return {path} if os.path.isdir(path) else set()


def _with_parents(path: str) -> Set[str]:
    return {path, *map(str, Path(path).parents)}
