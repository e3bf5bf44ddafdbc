"""Finds Claude Code plugins in a repository, with their agents, commands and skills.

A repository can be a plugin itself (`.claude-plugin/plugin.json`), contain plugins in `plugins/*/`, and list
plugins in `.claude-plugin/marketplace.json`. Plugins from elsewhere, such as other repositories, are ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import ConfigurationError
from .discovery import PLUGIN_FILES
from .front_matter_keys import parse_names
from .names import is_name, slug
from .snapshot import Problem, RegistrySnapshot

_MANIFEST, _MARKET = PLUGIN_FILES
_PARTS = ("agents", "commands")
_MOST_PLUGINS, _MOST_LISTED = 1000, 100


class Plugin(NamedTuple):
    """One plugin; paths are relative to the repository's root.

    `agents` and `commands` are folders or files.
    """

    name: str
    folder: str
    agents: Tuple[str, ...]
    commands: Tuple[str, ...]


def find_plugins(loaded: RegistrySnapshot, root: Path) -> List[Plugin]:
    """Returns the plugins of a repository, each name once; faults become problems of `loaded`."""
    manifest, market = _read_json(loaded, root, _MANIFEST), _read_json(loaded, root, _MARKET)
    found: Dict[str, Plugin] = {}
    for plugin in (
        *_of_root(root, manifest),
        *_of_folder(loaded, root, bool(manifest or market)),
        *_of_market(loaded, root, market, manifest is not None),
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


def _of_folder(loaded: RegistrySnapshot, root: Path, is_listed: bool) -> Iterator[Plugin]:
    """Yields plugins in `plugins/`. One without a manifest counts if the repository has a manifest."""
    for name in _folders_in(loaded, root, "plugins"):
        place = f"plugins/{name}"
        files = loaded.reader
        has_manifest = files.is_file(root, f"{place}/{_MANIFEST}")
        has_parts = is_listed and any(
            files.is_folder(root, f"{place}/{part}") for part in (*_PARTS, "skills")
        )
        if has_manifest or has_parts:
            manifest = _read_json(loaded, root, f"{place}/{_MANIFEST}") if has_manifest else None
            yield _plugin(manifest or {}, name, place)


def _folders_in(loaded: RegistrySnapshot, root: Path, place: str) -> List[str]:
    try:
        loaded.find_file(root, place, shared=True)
        return loaded.reader.folders_in(root, place)[:_MOST_PLUGINS]
    except ConfigurationError as error:
        loaded.problems.append(Problem(place, place, str(error)))
        return []


def _of_market(
    loaded: RegistrySnapshot, root: Path, market: Optional[Dict[str, Any]], root_is_plugin: bool
) -> Iterator[Plugin]:
    entries = (market or {}).get("plugins")
    metadata = (market or {}).get("metadata")
    base = metadata.get("pluginRoot") if isinstance(metadata, dict) else None
    for entry in entries[:_MOST_PLUGINS] if isinstance(entries, list) else ():
        source = entry.get("source") if isinstance(entry, dict) else None
        if not isinstance(source, str):
            # From another repository, or not an entry.
            continue
        under = base if isinstance(base, str) and not source.startswith(".") else ""
        place = _joined(under, source)
        # The manifest at the root names the root plugin, not the listed ones.
        manifest = _peek(loaded, root, f"{place}/{_MANIFEST}") if place else {}
        name = manifest.get("name") or entry.get("name")
        lists_parts = any(entry.get(part) for part in _PARTS)
        whole = not (not place and (lists_parts or root_is_plugin))
        yield _plugin({**entry, "name": name}, place.rpartition("/")[2] or root.name, place, whole)


def _plugin(manifest: Dict[str, Any], otherwise: str, folder: str, whole: bool = True) -> Plugin:
    """`whole`: also use the default folders, not only the listed ones."""
    written = manifest.get("name")
    name = written if isinstance(written, str) and is_name(written) else slug(str(written or otherwise))
    parts = {
        part: tuple(
            dict.fromkeys(
                _joined(folder, one)
                for one in (
                    *((part,) if whole else ()),
                    *(parse_names(manifest.get(part)) or ())[:_MOST_LISTED],
                )
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


def _read_json(loaded: RegistrySnapshot, root: Path, file: str) -> Optional[Dict[str, Any]]:
    """Returns the object in a manifest; None if missing, {} with a problem if unreadable."""
    try:
        found = loaded.find_file(root, file, shared=True)
        if found is None:
            return None
        value = json.loads(loaded.reader.text(root, file, found))
        if not isinstance(value, dict):
            raise ConfigurationError("it is not a JSON object; begin it with '{'")
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ConfigurationError) else f"it is not valid JSON: {error}"
        loaded.problems.append(Problem(Path(file).parent.parent.name or "plugin", file, reason))
        return {}
    return value


def _peek(loaded: RegistrySnapshot, root: Path, file: str) -> Dict[str, Any]:
    files = loaded.reader
    try:
        value = json.loads(files.text(root, file, files.find(root, file)))
    except (ValueError, RecursionError):
        # Missing, or reported where the folder itself is read.
        return {}
    return value if isinstance(value, dict) else {}
