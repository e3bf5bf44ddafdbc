"""Decides where a private folder of the package may be, and lets only its owner read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Iterable, Iterator, Union

from .. import settings
from ..agents.discovery import project_folder
from ..errors import CacheError
from ..formatting import Wording
from ..storage.output_paths import absolute_path, base_in_project
from ..storage.private_files import Folder, make_folders, make_private

_OWN_FILES = ("secret", "lock", "generation", "leases", "secret.*", "answers-*", "probe-*")


def cache_folder(wanted: Union[str, Path, None], allowed: Iterable[Union[str, Path]] = ()) -> Path:
    """Returns the real path of the folder, made with mode 0700 if missing; None means `~/.claude/cache`.

    Raises CacheError for a folder
    - outside of `~/.claude`, the system's temporary folder, the working directory, the project and `allowed`,
      after `..` and symbolic links are resolved;
    - that is reached through a link inside a project;
    - that other users own, can write or can replace;
    - that is open to others and has files that are not the cache's, which must not lose their readers. The
      user's own cache folder may have files of an older cache.
    """
    given = settings.user_folder() / "cache" if wanted is None else Path(wanted).expanduser()
    _refuse_links_of_project(given)
    real = Path(os.path.realpath(given))
    named = [_real(one) for one in allowed]
    if not any(base in real.parents for base in _usual()) and not any(
        base == real or base in real.parents for base in named
    ):
        text = (
            f"The cache folder {given} is not inside ~/.claude, the temporary folder, the working directory "
            "or the project. Choose one inside"
        )
        raise CacheError(Wording(f"{text}, or name it in allowed_dirs.", f"{text}."))
    try:
        _make_private(real, shared=wanted is not None)
    except OSError as error:
        raise CacheError(f"The cache folder {given} can't be used: {error.strerror}.") from error
    return real


def _refuse_links_of_project(given: Path) -> None:
    whole = absolute_path(given)
    base = base_in_project(whole)
    if base is None:
        return
    try:
        Folder(whole, base).close()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CacheError(f"The cache folder {given} can't be used: {error.strerror}.") from error


def _usual() -> Iterator[Path]:
    yield _real(settings.user_folder())
    yield _real(Path.cwd())
    project = project_folder(Path.cwd())
    if project is not None:
        yield _real(project.parent)
    # Last, and imported only then: hardly anybody has a cache there.
    import tempfile

    yield _real(tempfile.gettempdir())


def _real(path: Union[str, Path]) -> Path:
    return Path(os.path.realpath(Path(path).expanduser()))


def _make_private(folder: Path, shared: bool) -> None:
    _refuse_replaceable(folder)
    if folder.exists():
        if not folder.is_dir():
            raise CacheError(f"The cache folder {folder} is a file: remove it, or choose another folder.")
        _refuse_foreign(folder, shared)
    else:
        make_folders(folder)
    make_private(folder)


def _refuse_foreign(folder: Path, shared: bool) -> None:
    if _is_anothers(folder):
        raise CacheError(f"The cache folder {folder} belongs to another user: choose one of your own.")
    if shared and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        foreign = [one.name for one in folder.iterdir() if not any(one.match(own) for own in _OWN_FILES)]
        if foreign:
            raise CacheError(
                f"The cache folder {folder} has other files ({foreign[0]}) and is open to other users: "
                "choose a folder that the cache has to itself."
            )


def _refuse_replaceable(folder: Path) -> None:
    for parent in folder.parents:
        if not parent.exists():
            continue
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and _is_anothers(parent):
            raise CacheError(
                f"The cache folder {folder} lies in {parent}, which belongs to another user and which anyone "
                "may write: choose another place."
            )


def _is_anothers(path: Path) -> bool:
    return hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid()
