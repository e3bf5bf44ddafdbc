"""What `.gitignore` and similar files leave out of a search, as ripgrep reads them.

Only files inside the root are read: not the ones of the user, and not those of folders above.
"""

from __future__ import annotations

from typing import Callable, Iterable, List, NamedTuple, Optional, Tuple

from .glob_patterns import GlobError, GlobList, PathPattern, compile_glob

# The later one wins. Those of git count only in a repository.
_GIT_FILES = (".git/info/exclude", ".gitignore")
_OTHER_FILES = (".ignore", ".rgignore")
# The names that `IgnoreRules.inside` looks for.
IGNORE_NAMES = (".git", ".gitignore", *_OTHER_FILES)
MOST_BYTES = 1024 * 1024
_MOST_LINES = 10_000
# The size of the regular expressions of one file. Lines behind them are not obeyed: they take too long.
# What can't be understood counts as a large one.
_MOST_EXPRESSIONS, _WRONG = 1_000_000, 20_000

Reader = Callable[[str], Optional[bytes]]


class _Rules(NamedTuple):
    """The patterns of one file, and the folder that they belong to, with a slash at its end."""

    folder: str
    globs: GlobList
    is_git: bool


class IgnoreRules:
    """The rules that hold in one folder. Immutable; a folder below it gets further ones."""

    def __init__(self, rules: Tuple[_Rules, ...] = (), in_repository: bool = False) -> None:
        self._rules, self._in_repository = rules, in_repository

    def inside(self, folder: str, names: Iterable[str], read: Reader) -> IgnoreRules:
        """The rules in `folder`, which has `names`.

        Args:
            folder: the path below the root, "" for the root.
            read: returns the bytes of a file by its name in the folder, None where it can't be read.
        """
        known = set(names)
        if not known.intersection(IGNORE_NAMES):
            return self
        kept, in_repository = self._rules, self._in_repository
        if ".git" in known:
            # The rules of a repository end where another one begins.
            kept, in_repository = tuple(rules for rules in kept if not rules.is_git), True
        found: List[_Rules] = []
        prefix = f"{folder}/" if folder else ""
        for name in (*_GIT_FILES, *_OTHER_FILES):
            is_git = name in _GIT_FILES
            if name.split("/")[0] not in known or (is_git and not in_repository):
                continue
            patterns = parse_ignore_file(read(name) or b"")
            if patterns:
                found.append(_Rules(prefix, GlobList(patterns), is_git))
        return IgnoreRules((*kept, *found), in_repository)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether a path below the root is left out. It is asked for each folder before what is in it."""
        for rules in reversed(self._rules):
            decision = rules.globs.decide(path[len(rules.folder) :], is_folder)
            if decision is not None:
                return decision
        return False


def parse_ignore_file(data: bytes) -> List[PathPattern]:
    """The patterns of a file; lines that can't be understood are left out."""
    patterns: List[PathPattern] = []
    size = 0
    for line in data.decode("utf-8-sig", "replace").split("\n")[:_MOST_LINES]:
        text = line.rstrip("\r")
        if text.startswith("#"):
            continue
        while text.endswith(" ") and not text.endswith("\\ "):
            text = text[:-1]
        if size > _MOST_EXPRESSIONS:
            break
        if text.strip("/! "):
            try:
                patterns.append(compile_glob(text))
                size += len(patterns[-1].matches.pattern)
            except GlobError:
                size += _WRONG
    return patterns
