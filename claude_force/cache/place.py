"""Where a cache may be, and that only its owner can read it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Iterable, List, Union

from .. import settings
from ..errors import CacheError


def cache_folder(wanted: Union[str, Path, None], allowed: Iterable[Union[str, Path]] = ()) -> Path:
    """The real path of the folder, made if it is missing, with mode 0700.

    Raises CacheError for one outside `~/.claude`, the system's temporary folder, the working directory
    and `allowed`; `..` and symbolic links are followed before that is decided.
    """
    given = settings.user_folder() / "cache" if wanted is None else Path(wanted).expanduser()
    real = Path(os.path.realpath(given))
    if not any(_is_within(real, Path(os.path.realpath(base))) for base in _bases(allowed)):
        raise CacheError(
            f"The cache folder {given} is outside ~/.claude, the temporary folder and the project. "
            "Choose one inside, or name it in allowed_dirs."
        )
    try:
        real.mkdir(mode=0o700, parents=True, exist_ok=True)
        real.chmod(0o700)
    except OSError as error:
        raise CacheError(f"The cache folder {given} can't be used: {error.strerror}.") from error
    return real


def _bases(allowed: Iterable[Union[str, Path]]) -> List[Path]:
    own = [settings.user_folder(), Path(tempfile.gettempdir()), Path.cwd()]
    return own + [Path(one).expanduser() for one in allowed]


def _is_within(path: Path, base: Path) -> bool:
    return path == base or base in path.parents
