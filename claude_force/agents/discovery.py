"""Where agents are looked for. Through os.path: to pathlib, a folder that may not be read is an exception."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional, Union

from .. import settings
from ..errors import ConfigurationNotFoundError


class Sources(NamedTuple):
    """The `.claude` folder in charge, its claude.json, and the user's own folder."""

    folder: Path
    config: Path
    user: Path

    @property
    def ledger(self) -> Path:
        """Where executions are recorded."""
        return self.folder / "metrics"


def find_sources(config_path: Union[str, Path, None], start: Path) -> Sources:
    """From `config_path` where it is given, else upwards from `start`, else `~/.claude`.

    Raises ConfigurationNotFoundError for a `config_path` that is not there.
    """
    folder = _given(Path(config_path).expanduser()) if config_path is not None else project_folder(start)
    if folder is None:
        folder = settings.user_folder()
    if os.path.isfile(folder):
        return Sources(folder.parent, folder, settings.user_folder())
    return Sources(folder, folder / "claude.json", settings.user_folder())


def _given(path: Path) -> Path:
    """A claude.json, a `.claude` folder, or the folder of a project that has one."""
    if os.path.isfile(path):
        return path
    if os.path.isdir(path / ".claude"):
        return path / ".claude"
    if os.path.isdir(path):
        return path
    raise ConfigurationNotFoundError(
        f"Configuration {path} not found: name a claude.json, a .claude folder or a project that has one."
    )


def project_folder(start: Path) -> Optional[Path]:
    """The `.claude` folder of the project that `start` lies in; None for the user's own or none at all."""
    home = settings.user_folder().parent
    for folder in (start, *start.parents):
        claude = folder / ".claude"
        if folder != home and (os.path.isfile(claude / "claude.json") or os.path.isdir(claude / "agents")):
            return claude
        if os.path.exists(folder / ".git") or folder == home:
            return None
    return None
