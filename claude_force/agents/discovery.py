"""Finds the source folders of agents, and the root of each that links must not leave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple, Union

from .. import settings
from ..errors import ConfigurationError, ConfigurationNotFoundError, FileAccessError
from ..storage.input_paths import InputPaths
from ..storage.path_text import printable
from ..storage.project_files import ProjectFiles
from ..storage.project_root import has_entry, project_root, upwards
from ..storage.regular_files import refuse_irregular
from .files import Bounds

# A project has one of these in its `.claude`, or is a plugin, or has plugins.
_FILE_MARK, _FOLDER_MARKS = "claude.json", ("agents", "commands")
PLUGIN_FILES = (".claude-plugin/plugin.json", ".claude-plugin/marketplace.json")


class Sources(NamedTuple):
    """The `.claude` folder in use, its claude.json, and the user's folder.

    `plugins`: the folder that may be or contain plugins; None without a project. `bounds`: those of each
    folder.
    """

    folder: Path
    config: Path
    user: Path
    plugins: Optional[Path]
    bounds: Dict[Path, Bounds]

    @property
    def ledger(self) -> Path:
        """The folder of the ledger."""
        return self.folder / "metrics"


def find_sources(config_path: Union[str, Path, None], start: Path) -> Sources:
    """Finds sources from `config_path`, else by walking up from `start`, else in `~/.claude`.

    Raises ConfigurationNotFoundError if `config_path` does not exist, ConfigurationError if `.claude` is
    a link out of its project.
    """
    user = settings.user_folder()
    bounds = {user: _of_user(user)}
    if config_path is not None:
        folder, config = _given(Path(config_path).expanduser(), bounds)
    else:
        folder = _upwards(start, bounds) or user
        config = folder / "claude.json"
    is_project = folder.name == ".claude" and folder.absolute() != user.absolute()
    return Sources(folder, config, user, folder.parent if is_project else None, bounds)


def project_folder(start: Path) -> Optional[Path]:
    """Returns the `.claude` folder of the project around `start`.

    None if there is no project, or its `.claude` is the user's or a link out of the project.
    """
    try:
        return _upwards(start, {})
    except ConfigurationError:
        return None


def _upwards(start: Path, bounds: Dict[Path, Bounds]) -> Optional[Path]:
    """Walks up to a project's `.claude`; adds its bounds to `bounds`."""
    home = os.path.realpath(settings.user_folder().parent)
    for folder in upwards(os.path.realpath(start)):
        if folder == home:
            return None
        if has_entry(folder, ".claude") or any(has_entry(folder, name) for name in PLUGIN_FILES):
            one = _bounds(project_root(folder), os.path.join(folder, ".claude"))
            with _opened(one.root) as files:
                if _is_project(files, one, Path(folder)):
                    bounds[Path(folder, ".claude")] = one
                    return Path(folder, ".claude")
        if has_entry(folder, ".git"):
            return None
    return None


def _is_project(files: ProjectFiles, claude: Bounds, folder: Path) -> bool:
    """Raises ConfigurationError if `.claude` is a link to outside the project."""
    path = folder / ".claude"
    try:
        files.find(claude.below, path)
    except FileAccessError as error:
        if not os.path.islink(path):
            return False
        raise ConfigurationError(
            f"{error} To use a folder elsewhere, name it as the configuration."
        ) from error
    above = claude.below.rpartition("/")[0]
    return _has_mark(files, claude.below) or _is_plugin_root(files, above)


def _has_mark(files: ProjectFiles, claude: str) -> bool:
    # Unusable files count as present: reading them reports them by name.
    try:
        if files.find(f"{claude}/{_FILE_MARK}") is not None:
            return True
        found = [files.find(f"{claude}/{name}") for name in _FOLDER_MARKS]
    except FileAccessError as error:
        return error.is_outside
    return any(one is not None and one.is_folder for one in found)


def _is_plugin_root(files: ProjectFiles, folder: str) -> bool:
    """Whether the folder is a Claude Code plugin or lists plugins."""
    try:
        found = [files.find(f"{folder}/{name}".lstrip("/")) for name in PLUGIN_FILES]
    except FileAccessError:
        return False
    return any(one is not None and one.is_file for one in found)


def _given(path: Path, bounds: Dict[Path, Bounds]) -> Tuple[Path, Path]:
    """Returns the folder and claude.json of a path to a claude.json, a `.claude` folder or a project.

    Adds the folder's bounds to `bounds`.
    """
    try:
        one = _named(path)
        with ProjectFiles(one.root) as files:
            place = files.find(one.below, path)
            if place is None:
                raise ConfigurationNotFoundError(
                    f"Configuration {printable(path)} not found: name a claude.json, a .claude folder or a "
                    "project that has one."
                )
            if place.is_folder:
                one = one._replace(below=_claude_of(files, one.below, path))
                config = f"{one.below}/claude.json".lstrip("/")
            else:
                refuse_irregular(path, place.info)
                one, config = one._replace(below=one.below.rpartition("/")[0]), one.below
    except FileAccessError as error:
        raise ConfigurationError(str(error)) from error
    user = settings.user_folder()
    if os.path.realpath(one.root / one.below) == os.path.realpath(user):
        return user, user / os.path.basename(config)
    bounds[one.root / one.below] = one
    return one.root / one.below, one.root / config


def _named(path: Path) -> Bounds:
    """Bounds of a given path: in the current project its root; elsewhere links are resolved."""
    paths = InputPaths()
    if paths.has(path):
        return _bounds(paths.root, str(paths.root / paths.file(path).spot.name))
    real = os.path.realpath(path)
    return _bounds(project_root(real if os.path.isdir(real) else os.path.dirname(real)), real)


def _claude_of(files: ProjectFiles, folder: str, path: Path) -> str:
    inner = f"{folder}/.claude".lstrip("/")
    place = files.find(inner, path / ".claude")
    is_claude = (place is not None and place.is_folder) or _is_plugin_root(files, folder)
    return inner if is_claude else folder


def _of_user(user: Path) -> Bounds:
    """Bounds of the user's folder, which may be a link and may link to anything in the home folder."""
    real, home = os.path.realpath(user), os.path.realpath(user.parent)
    inside = os.path.commonpath((real, home)) == home
    return _bounds(Path(home if inside else real), real)._replace(own=True)


def _bounds(root: Path, path: str) -> Bounds:
    below = os.path.relpath(path, root).replace(os.sep, "/")
    return Bounds(root, "" if below == "." else below)


def _opened(root: Path) -> ProjectFiles:
    try:
        return ProjectFiles(root)
    except FileAccessError as error:
        raise ConfigurationError(str(error)) from error
