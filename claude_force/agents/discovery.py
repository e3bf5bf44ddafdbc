"""Where agents are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from .. import settings
from ..errors import ConfigurationError


@dataclass(frozen=True)
class Sources:
    """The `.claude` folder in charge, its claude.json, and the user's own folder."""

    folder: Path
    config: Path
    user: Path


def find_sources(config_path: Union[str, Path, None], start: Path) -> Sources:
    """From `config_path` where it is given, else upwards from `start`, else `~/.claude`.

    Raises ConfigurationError for a `config_path` that is not there.
    """
    folder = _given(Path(config_path).expanduser()) if config_path is not None else _upwards(start)
    if folder is None:
        folder = settings.user_folder()
    if folder.is_file():
        return Sources(folder.parent, folder, settings.user_folder())
    return Sources(folder, folder / "claude.json", settings.user_folder())


def _given(path: Path) -> Path:
    """A claude.json, a `.claude` folder, or the folder of a project that has one."""
    if path.is_file():
        return path
    if (path / ".claude").is_dir():
        return path / ".claude"
    if path.is_dir():
        return path
    raise ConfigurationError(
        f"Configuration {path} not found: name a claude.json, a .claude folder or a project that has one."
    )


def _upwards(start: Path) -> Optional[Path]:
    home = settings.user_folder().parent
    for folder in (start, *start.parents):
        claude = folder / ".claude"
        if folder != home and ((claude / "claude.json").is_file() or (claude / "agents").is_dir()):
            return claude
        if (folder / ".git").exists() or folder == home:
            return None
    return None
