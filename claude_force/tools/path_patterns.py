"""Patterns of paths in rules such as `Read(./secret/**)`. Pure, and fast for any pattern and path.

They are those of .gitignore, with four ways to begin: `//` from the root of the file system, `~/` from the
home folder, `/` from the folder of the settings, anything else from the root of the project. A pattern
without a slash matches at any depth, and a folder that matches stands for all in it. Patterns of a project
are untrusted, so `*` is not translated into a regular expression, which may take exponential time.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import List, NamedTuple, Optional, Pattern, Sequence, Tuple, Union

from ..lazy_pattern import pattern
from .rules import RuleError

# Those of macOS and Windows usually do. There, a rule that denies must not be evaded by another spelling.
FOLDS_NAMES = sys.platform in ("darwin", "win32")
_DEEP = "**"
# With these a rule takes well under a millisecond for a path, however both are written.
_MOST_PARTS, _MOST_WILDCARDS = 24, 16

# What stands between two `*` in a name: text, or an expression of a fixed length.
_Chunk = Union[str, Pattern[str]]


class _Name(NamedTuple):
    """A compiled part of a pattern.

    Attributes:
        chunks: what stands before, between and behind the `*`; one, where there is none.
        sizes: how many characters each matches.
    """

    chunks: Tuple[_Chunk, ...]
    sizes: Tuple[int, ...]

    def matches(self, name: str) -> bool:
        place, end = self.sizes[0], len(name) - self.sizes[-1]
        if len(self.chunks) == 1:
            return len(name) == place and _is_at(self.chunks[0], name, 0)
        if end < place or not _is_at(self.chunks[0], name, 0) or not _is_at(self.chunks[-1], name, end):
            return False
        # The leftmost place of each is enough: it leaves the most for those behind it.
        for chunk, size in zip(self.chunks[1:-1], self.sizes[1:-1]):
            found = _find(chunk, name, place, end)
            if found < 0:
                return False
            place = found + size
        return True


class PathPattern(NamedTuple):
    """One pattern, below an absolute folder.

    Attributes:
        base: the folder, without a slash at its end.
        parts: a compiled pattern for each part of a path; None for `**`.
        literals: the parts that have no wildcard, as they are written.
        is_folded: whether capitals and small letters, and other spellings of the same letters, are the same.
    """

    base: str
    parts: Tuple[Optional[_Name], ...]
    literals: Tuple[str, ...]
    is_folded: bool = False

    def matches(self, path: str) -> bool:
        """Whether it matches a normal absolute path, or a folder above it."""
        below = _below(_folded(path) if self.is_folded else path, self.base)
        return below is not None and _match_parts(self.parts, below)

    def holds_all_in(self, folder: str) -> bool:
        """Whether it matches everything below a folder, whatever its name."""
        return self.matches(f"{folder}/\1") and self.matches(f"{folder}/\1/\2")


def compile_pattern(
    text: str,
    root: str,
    home: str,
    base: Optional[str] = None,
    strict: bool = False,
    fold: bool = FOLDS_NAMES,
) -> PathPattern:
    """Compiles the specifier of a rule. Raises RuleError.

    Args:
        root: of the project.
        base: the folder that `/` at the beginning means; `root` where it is None.
        strict: for a rule that grants: `./x` means only `x` in the root, and names are as they are written.
            For a rule that denies, `./x` is `x` at any depth.
        fold: whether the file system takes other spellings of a name for the same name.
    """
    fold = fold and not strict
    if fold:
        text, root, home, base = _folded(text), _folded(root), _folded(home), _folded(base or root)
    folder, rest, is_anchored = _begin(text, root, home, base or root)
    names = [name for name in rest.split("/") if name not in ("", ".")]
    while names and names[0] == "..":
        folder, names, is_anchored = folder.rpartition("/")[0], names[1:], True
    if ".." in names:
        raise RuleError("has a .. behind a name")
    if text.startswith("!"):
        raise RuleError("begins with !, which can't be used in a rule")
    is_anchored = is_anchored or len(names) > 1 or (strict and text.startswith("./"))
    if not names:
        names = [_DEEP]
    parts = [_DEEP, *names] if not is_anchored else names
    if parts[-1] == _DEEP:
        parts = [*parts, "*"]
    if len(parts) > _MOST_PARTS or sum(map(text.count, "*?[")) > _MOST_WILDCARDS:
        raise RuleError(f"has more than {_MOST_PARTS} parts, or more than {_MOST_WILDCARDS} wildcards")
    literals = tuple(name for name in names if not set(name) & set("*?["))
    return PathPattern(folder.rstrip("/"), tuple(_compile(part) for part in parts), literals, fold)


def _begin(text: str, root: str, home: str, base: str) -> Tuple[str, str, bool]:
    """Returns the folder that a pattern begins at, the rest, and whether it must begin there."""
    if text.startswith("//"):
        return "", text[2:], True
    if text == "~" or text.startswith("~/"):
        return home, text[2:], True
    if text.startswith("/"):
        return base, text[1:], True
    return root, text, False


def _compile(part: str) -> Optional[_Name]:
    """Returns the compiled part; None for `**`. Raises RuleError."""
    if part == _DEEP:
        return None
    # The letters of a chunk, each with whether it is an expression.
    chunks: List[List[Tuple[str, bool]]] = [[]]
    place = 0
    while place < len(part):
        letter = part[place]
        place += 1
        if letter == "*":
            if chunks[-1] or len(chunks) == 1:
                chunks.append([])
        elif letter == "?":
            chunks[-1].append((".", True))
        elif letter == "[":
            expression, place = _characters(part, place)
            chunks[-1].append((expression, True))
        else:
            if letter == "\\" and place < len(part):
                letter = part[place]
                place += 1
            chunks[-1].append((letter, False))
    return _Name(tuple(map(_chunk, chunks)), tuple(map(len, chunks)))


def _chunk(letters: List[Tuple[str, bool]]) -> _Chunk:
    if not any(is_expression for _, is_expression in letters):
        return "".join(letter for letter, _ in letters)
    text = "".join(one if is_expression else re.escape(one) for one, is_expression in letters)
    return pattern(text, re.DOTALL)


def _characters(part: str, place: int) -> Tuple[str, int]:
    """Reads a set such as `[a-z]` or `[!a]`, from behind its bracket.

    Returns it as an expression, and the place behind it. Raises RuleError.
    """
    is_negated = part[place : place + 1] in ("!", "^")
    place += is_negated
    ranges: List[str] = []
    begin = place
    while place < len(part) and (part[place] != "]" or place == begin):
        if part[place : place + 2] in ("[:", "[=", "[."):
            raise RuleError("has a class of characters such as [:alpha:], which is not understood")
        if part[place] == "\\" and place + 1 < len(part):
            place += 1
        first = last = part[place]
        place += 1
        if part[place : place + 1] == "-" and part[place + 1 : place + 2] not in ("", "]"):
            last = part[place + 1]
            place += 2
        if first <= last:
            ranges.append(f"{re.escape(first)}-{re.escape(last)}")
    if place >= len(part):
        raise RuleError("has a [ without a ]")
    if not ranges:
        return ("." if is_negated else "(?!)."), place + 1
    return f"[{'^' if is_negated else ''}{''.join(ranges)}]", place + 1


def _is_at(chunk: _Chunk, name: str, place: int) -> bool:
    if isinstance(chunk, str):
        return name.startswith(chunk, place)
    return chunk.match(name, place) is not None


def _find(chunk: _Chunk, name: str, place: int, end: int) -> int:
    if isinstance(chunk, str):
        return name.find(chunk, place, end)
    found = chunk.search(name, place, end)
    return found.start() if found else -1


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _below(path: str, base: str) -> Optional[List[str]]:
    if not path.startswith(f"{base}/"):
        return None
    return [name for name in path[len(base) :].split("/") if name]


def _match_parts(parts: Sequence[Optional[_Name]], names: Sequence[str]) -> bool:
    """Whether the pattern matches the names or the first few of them.

    At a mismatch it returns to the last `**`, as one more name may belong to it: no earlier one has to be
    tried again.
    """
    part = name = 0
    deep: Optional[Tuple[int, int]] = None
    while part < len(parts):
        wanted = parts[part]
        if wanted is None:
            part += 1
            deep = part, name
        elif name < len(names) and wanted.matches(names[name]):
            part, name = part + 1, name + 1
        elif deep is not None and deep[1] < len(names):
            deep = deep[0], deep[1] + 1
            part, name = deep
        else:
            return False
    return True
