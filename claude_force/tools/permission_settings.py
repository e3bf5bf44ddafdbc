"""Reads the deny and ask rules of settings files. Their allow rules, modes and folders grant nothing.

A file that can't be read or understood is an error: a rule that denies something must not be lost in silence.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Iterator, List, Sequence, Tuple

from .. import settings
from ..errors import ConfigurationError, FileAccessError
from ..storage.input_paths import read_input
from ..storage.path_text import printable
from ..storage.project_files import ProjectFiles
from .permission_rules import ASK, DENY, PermissionRules, SourcedRule, compile_rules
from .rules import RuleError

LARGEST_FILE = 1024 * 1024
_MOST_RULES = 500
PROJECT_FILES = (".claude/settings.json", ".claude/settings.local.json")
_USER_FILE = "settings.json"


def read_permission_rules(root: Path, folders: Sequence[Path] = ()) -> PermissionRules:
    """Reads the settings of the user and of a project.

    Args:
        root: of the project, an absolute path without links.
        folders: further folders in `root` that have a `.claude`.

    Raises ConfigurationError, FileAccessError.
    """
    home = os.path.realpath(settings.user_folder().parent)
    found = [*_of_user(str(root), home), *_of_project(root, folders, home)]
    deny = tuple(rule for kind, rules in found if kind == DENY for rule in rules)
    ask = tuple(rule for kind, rules in found if kind == ASK for rule in rules)
    return PermissionRules(deny, ask)


# Pairs of DENY or ASK, and rules.
_Found = Iterator[Tuple[str, Tuple[SourcedRule, ...]]]


def _of_user(root: str, home: str) -> _Found:
    user = settings.user_folder()
    label = str(user / _USER_FILE)
    try:
        data = read_input(label, LARGEST_FILE)
    except FileAccessError as error:
        if error.is_missing:
            return
        raise
    # `/x` is below the folder of the settings; taken as below the project as well, it denies more.
    for base in (root, os.path.realpath(user)):
        yield from _rules_in(_decoded(data, label), label, root, home, base)


def _of_project(root: Path, folders: Sequence[Path], home: str) -> _Found:
    with ProjectFiles(root) as files:
        places = [files.below(os.path.realpath(folder)) for folder in folders]
        for parts in dict.fromkeys([(), *(tuple(one) for one in places if one is not None)]):
            base = os.path.join(str(root), *parts)
            for name in PROJECT_FILES:
                path = "/".join((*parts, name))
                place = files.find(path)
                if place is not None:
                    text = files.read_text(path, LARGEST_FILE, path, place)
                    yield from _rules_in(text, path, str(root), home, base)


def _decoded(data: bytes, label: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(label, f"is not UTF-8 at byte {error.start}") from error


def _rules_in(text: str, label: str, root: str, home: str, base: str) -> _Found:
    permissions = _permissions_of(text, label)
    for kind in (DENY, ASK):
        yield kind, _compile(_texts(permissions, kind, label), label, root, home, base)


def _permissions_of(text: str, label: str) -> Any:
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _unreadable(label, f"is not valid JSON: {error}") from error
    permissions = value.get("permissions") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(permissions, (dict, type(None))):
        raise _unreadable(label, 'is not an object with an object "permissions"')
    return permissions or {}


def _texts(permissions: Any, kind: str, label: str) -> List[str]:
    texts = permissions.get(kind) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _unreadable(label, f'has "permissions.{kind}" that is not a list of texts')
    if len(texts) > _MOST_RULES:
        raise _unreadable(label, f"has more than {_MOST_RULES:,} rules")
    return texts


def _compile(texts: List[str], label: str, root: str, home: str, base: str) -> Tuple[SourcedRule, ...]:
    found: List[SourcedRule] = []
    for text in texts:
        try:
            found += compile_rules([text], label, root, home, base)
        except RuleError as error:
            raise _unreadable(label, f"has the rule {text[:60]!r}, which {error}") from error
    return tuple(found)


def _unreadable(label: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{printable(label)} {what}. Its rules may deny something, so agents get no tools: correct the file, "
        "or grant no tools."
    )
