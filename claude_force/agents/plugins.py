"""Plugins of Claude Code in a repository: where each has its agents, commands and skills.

A repository can be a plugin itself (`.claude-plugin/plugin.json`), have some in `plugins/*/`, and list some
in `.claude-plugin/marketplace.json`. What is listed from elsewhere, such as another repository, is left out.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import ConfigurationError
from .discovery import PLUGIN_FILES
from .files import read_text, resolve_inside
from .keys import listed
from .loaded import Loaded, Problem
from .names import is_name, slug

logger = logging.getLogger(__name__)

_MANIFEST, _MARKET = PLUGIN_FILES
_PARTS = ("agents", "commands")
_MOST_PLUGINS = 1000


class Plugin(NamedTuple):
    """One plugin; paths are relative to the repository's root.

    `agents` and `commands` are folders or files.
    """

    name: str
    folder: str
    agents: Tuple[str, ...]
    commands: Tuple[str, ...]


def find_plugins(loaded: Loaded, root: Path) -> List[Plugin]:
    """The plugins of a repository, each name once; what is wrong with one is a problem of `loaded`."""
    manifest, market = _read_json(loaded, root, _MANIFEST), _read_json(loaded, root, _MARKET)
    found: Dict[str, Plugin] = {}
    for plugin in (
        *_of_root(root, manifest),
        *_of_folder(loaded, root, bool(manifest or market)),
        *_of_market(root, market, manifest is not None),
    ):
        if not is_name(plugin.name):
            loaded.problems.append(
                Problem(plugin.name, plugin.folder, "its plugin has no usable name; set it in plugin.json")
            )
            continue
        known = found.get(plugin.name)
        if known is None:
            found[plugin.name] = plugin
        elif known.folder == plugin.folder:
            found[plugin.name] = known._replace(
                agents=tuple(dict.fromkeys(known.agents + plugin.agents)),
                commands=tuple(dict.fromkeys(known.commands + plugin.commands)),
            )
        else:
            reason = f"its plugin's name '{plugin.name}' is taken by {known.folder}; rename one"
            loaded.problems.append(Problem(plugin.name, plugin.folder, reason))
    return list(found.values())


def _of_root(root: Path, manifest: Optional[Dict[str, Any]]) -> Iterator[Plugin]:
    if manifest is not None:
        yield _plugin(manifest, root.name, "")


def _of_folder(loaded: Loaded, root: Path, is_listed: bool) -> Iterator[Plugin]:
    """Those in `plugins/`. Without a manifest of its own one counts where the repository has one."""
    folder = root / "plugins"
    loaded.share(folder)
    for name in _folders_in(root, "plugins"):
        place = f"plugins/{name}"
        has_manifest = (root / place / _MANIFEST).is_file()
        has_parts = is_listed and any((root / place / part).is_dir() for part in (*_PARTS, "skills"))
        if (has_manifest or has_parts) and is_inside(root, place):
            manifest = _read_json(loaded, root, f"{place}/{_MANIFEST}") if has_manifest else None
            yield _plugin(manifest or {}, name, place)


def _folders_in(root: Path, place: str) -> List[str]:
    if not (root / place).is_dir() or not is_inside(root, place):
        return []
    try:
        with os.scandir(root / place) as found:
            return sorted(one.name for one in found if one.is_dir())[:_MOST_PLUGINS]
    except OSError as error:
        logger.info("%s can't be listed: %s", root / place, error)
        return []


def is_inside(root: Path, place: str) -> bool:
    """Whether a path leads to what lies below the root."""
    try:
        resolve_inside(root, place)
    except ConfigurationError:
        return False
    return True


def _of_market(root: Path, market: Optional[Dict[str, Any]], root_is_plugin: bool) -> Iterator[Plugin]:
    entries = (market or {}).get("plugins")
    metadata = (market or {}).get("metadata")
    base = metadata.get("pluginRoot") if isinstance(metadata, dict) else None
    for entry in entries[:_MOST_PLUGINS] if isinstance(entries, list) else ():
        source = entry.get("source") if isinstance(entry, dict) else None
        if not isinstance(source, str):
            # From another repository, or no entry at all.
            continue
        under = base if isinstance(base, str) and not source.startswith(".") else ""
        place = _joined(under, source)
        # The repository's own manifest names the plugin that it is, and not those that it lists.
        manifest = _peek(root, f"{place}/{_MANIFEST}") if place else {}
        name = manifest.get("name") or entry.get("name")
        lists_parts = any(entry.get(part) for part in _PARTS)
        whole = not (not place and (lists_parts or root_is_plugin))
        yield _plugin({**entry, "name": name}, place.rpartition("/")[2] or root.name, place, whole)


def _plugin(manifest: Dict[str, Any], otherwise: str, folder: str, whole: bool = True) -> Plugin:
    """`whole` says whether the usual folders count beside those that are listed."""
    written = manifest.get("name")
    name = written if isinstance(written, str) and is_name(written) else slug(str(written or otherwise))
    parts = {
        part: tuple(
            dict.fromkeys(
                _joined(folder, one)
                for one in (*((part,) if whole else ()), *(listed(manifest.get(part)) or ()))
            )
        )
        for part in _PARTS
    }
    return Plugin(name, folder, parts["agents"], parts["commands"])


def _joined(folder: str, path: str) -> str:
    plain = path.replace("\\", "/")
    while plain.startswith("./"):
        plain = plain[2:]
    plain = "" if plain == "." else plain.rstrip("/")
    return "/".join(one for one in (folder, plain) if one)


def _read_json(loaded: Loaded, root: Path, file: str) -> Optional[Dict[str, Any]]:
    """The object in a manifest; None where there is none, {} where it can't be read, which is a problem."""
    loaded.share(root / file)
    if not os.path.lexists(root / file):
        return None
    try:
        value = json.loads(read_text(resolve_inside(root, file)))
        if not isinstance(value, dict):
            raise ConfigurationError("it holds no JSON object; begin it with '{'")
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ConfigurationError) else f"it is not valid JSON: {error}"
        loaded.problems.append(Problem(Path(file).parent.parent.name or "plugin", file, reason))
        return {}
    return value


def _peek(root: Path, file: str) -> Dict[str, Any]:
    try:
        value = json.loads(read_text(resolve_inside(root, file)))
    except (ValueError, RecursionError):
        # Missing, or a problem that is told where the folder is looked at.
        return {}
    return value if isinstance(value, dict) else {}
