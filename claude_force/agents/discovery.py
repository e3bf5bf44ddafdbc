"""Where agents are looked for. Through os.path: to pathlib, a folder that may not be read is an exception."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional, Union

from .. import settings
from ..errors import ConfigurationNotFoundError

# What a project has at least one of; the first two are looked for in `.claude`.
_MARKS = (("claude.json", os.path.isfile), ("agents", os.path.isdir), ("commands", os.path.isdir))
PLUGIN_FILES = (".claude-plugin/plugin.json", ".claude-plugin/marketplace.json")


class Sources(NamedTuple):
    """The `.claude` folder in charge, its claude.json, and the user's own folder.

    `plugins` is the folder that may be a plugin or hold some; None where there is no project.
    """

    folder: Path
    config: Path
    user: Path
    plugins: Optional[Path] = None

    @property
    def ledger(self) -> Path:
        """Where executions are recorded."""
        return self.folder / "metrics"


def find_sources(config_path: Union[str, Path, None], start: Path) -> Sources:
    """From `config_path` where it is given, else upwards from `start`, else `~/.claude`.

    Raises ConfigurationNotFoundError for a `config_path` that is not there.
    """
    folder = _given(Path(config_path).expanduser()) if config_path is not None else project_folder(start)
    user = settings.user_folder()
    if folder is None:
        folder = user
    config = folder / "claude.json"
    if os.path.isfile(folder):
        folder, config = folder.parent, folder
    is_project = folder.name == ".claude" and folder.absolute() != user.absolute()
    return Sources(folder, config, user, folder.parent if is_project else None)


def _given(path: Path) -> Path:
    """A claude.json, a `.claude` folder, or the folder of a project that has one."""
    if os.path.isfile(path):
        return path
    if os.path.isdir(path / ".claude") or is_plugin_root(path):
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
        has_mark = any(is_there(claude / name) for name, is_there in _MARKS)
        if folder != home and (has_mark or is_plugin_root(folder)):
            return claude
        if os.path.exists(folder / ".git") or folder == home:
            return None
    return None


def is_plugin_root(folder: Path) -> bool:
    """Whether the folder is a plugin of Claude Code's, or lists some."""
    return any(os.path.isfile(folder / name) for name in PLUGIN_FILES)
