"""Patterns of paths as in `.gitignore` and in the globs of ripgrep. Pure.

A pattern without a slash, apart from one at its end, matches at any depth; any other from the folder that
it belongs to. `*`, `?` and `[...]` match no slash, `**` matches folders, `{a,b}` alternatives. A name that
begins with a dot is like any other.

Patterns come from models and from projects, so none may take long. Each `*` becomes a group that is not
entered again: the earliest place for what follows a `*` is always good enough.
"""

from __future__ import annotations

import re
from typing import Iterable, List, NamedTuple, Optional, Pattern, Sequence, Tuple

_MOST_ALTERNATIVES = 1000
_MOST_LENGTH = 4096
# Of all alternatives together. More take seconds to compile, and a lot of memory.
_MOST_EXPANDED, _MOST_WILDCARDS = 20_000, 5_000


class GlobError(ValueError):
    """A pattern that can't be understood. The text is the one of ripgrep."""


class PathPattern(NamedTuple):
    """One compiled pattern.

    Attributes:
        matches: a regular expression for a whole path, relative to the folder of the pattern.
        only_folders: it ended with a slash.
        is_negated: it began with `!`.
    """

    matches: Pattern[str]
    only_folders: bool
    is_negated: bool


def compile_glob(text: str) -> PathPattern:
    """Compiles a pattern. Raises GlobError."""
    if len(text) > _MOST_LENGTH:
        raise GlobError(f"error parsing glob of {len(text)} characters: too long")
    rest = text
    is_negated = rest.startswith("!")
    if is_negated or rest.startswith(("\\!", "\\#")):
        rest = rest[1:]
    is_anchored = rest.startswith("/")
    rest = rest[1:] if is_anchored else rest
    only_folders = rest.endswith("/")
    rest = rest[:-1] if only_folders else rest
    if not is_anchored and "/" not in rest:
        rest = f"**/{rest}"
    expanded = _alternatives(rest, text)
    if sum(map(len, expanded)) > _MOST_EXPANDED or sum(map(_wildcards_in, expanded)) > _MOST_WILDCARDS:
        raise _wrong(text, "too many alternatives or wildcards")
    names = _Names()
    options = [_whole(option, names, text) for option in expanded]
    try:
        matches = re.compile(f"(?s:{'|'.join(options)})\\Z")
    except (re.error, OverflowError, RecursionError) as error:
        raise _wrong(text, str(error)) from error
    return PathPattern(matches, only_folders, is_negated)


class GlobList:
    """Patterns of which the last one that matches decides.

    >>> GlobList.of(["*.log", "!keep.log"]).decide("a/x.log", is_folder=False)
    True
    """

    def __init__(self, patterns: Sequence[PathPattern]) -> None:
        self._patterns = list(reversed(patterns))
        self.has_plain = any(not pattern.is_negated for pattern in patterns)

    @classmethod
    def of(cls, texts: Iterable[str]) -> GlobList:
        """Raises GlobError."""
        return cls([compile_glob(text) for text in texts])

    def decide(self, path: str, is_folder: bool) -> Optional[bool]:
        """True where a plain pattern decides, False where a negated one does, None where none matches."""
        for pattern in self._patterns:
            if (is_folder or not pattern.only_folders) and pattern.matches.match(path):
                return not pattern.is_negated
        return None


def _wildcards_in(text: str) -> int:
    """How many of the characters of a pattern take long to compile."""
    return text.count("*") + text.count("[")


def literal_start(text: str) -> List[str]:
    """The names that every match of the pattern begins with; the last part of a pattern is never one."""
    parts = text.split("/")
    found: List[str] = []
    for part in parts[:-1]:
        if not part or part in (".", "..") or re.search(r"[*?\[\]{}\\!]", part):
            break
        found.append(part)
    return found


class _Names:
    """Numbers the groups of one expression."""

    def __init__(self) -> None:
        self._last = 0

    def lazy(self, many: str, piece: str) -> str:
        """As `many` followed by `piece`, at the earliest place, and without another try."""
        self._last += 1
        return f"(?=(?P<g{self._last}>{many}?{piece}))(?P=g{self._last})"


def _whole(pattern: str, names: _Names, text: str) -> str:
    """The expression of a pattern without alternatives."""
    parts = pattern.split("/")
    if parts[-1] == "**" and len(parts) > 1:
        parts.append("*")
    # Runs of parts, with `**` between them.
    runs: List[List[str]] = [[]]
    for part in parts:
        if part == "**":
            runs.append([])
        else:
            runs[-1].append(_part(part, names, text))
    first, *others = runs
    if not others:
        return "/".join(first)
    last = others.pop()
    found = "".join(f"{part}/" for part in first)
    for run in others:
        if run:
            found += names.lazy("(?:[^/]+/)*", "".join(f"{part}/" for part in run))
    return f"{found}(?:[^/]+/)*{'/'.join(last) or '[^/]+'}"


def _part(part: str, names: _Names, text: str) -> str:
    """The expression of a part between slashes."""
    pieces: List[List[str]] = [[]]
    place = 0
    while place < len(part):
        letter = part[place]
        if letter == "*":
            while part[place : place + 1] == "*":
                place += 1
            pieces.append([])
            continue
        if letter == "[":
            end = _class_end(part, place, text)
            pieces[-1].append(_class(part[place + 1 : end], text))
            place = end + 1
            continue
        if letter == "\\":
            place += 1
            if place == len(part):
                raise _wrong(text, "dangling '\\'")
            letter = part[place]
            pieces[-1].append(re.escape(letter))
        else:
            pieces[-1].append("[^/]" if letter == "?" else re.escape(letter))
        place += 1
    texts = ["".join(piece) for piece in pieces]
    if len(texts) == 1:
        return texts[0]
    middle = "".join(names.lazy("[^/]*", piece) for piece in texts[1:-1] if piece)
    return f"{texts[0]}{middle}[^/]*{texts[-1]}"


def _class_end(part: str, start: int, text: str) -> int:
    begin = start + 2 if part[start + 1 : start + 2] in ("!", "^") else start + 1
    # A bracket right at the beginning belongs to the class.
    end = part.find("]", begin + 1)
    if end < 0:
        raise _wrong(text, "unclosed character class; missing ']'")
    return end


def _class(inside: str, text: str) -> str:
    is_negated = inside[:1] in ("!", "^")
    inside = inside[1:] if is_negated else inside
    for place in range(1, len(inside) - 1):
        if inside[place] == "-" and inside[place - 1] > inside[place + 1]:
            raise _wrong(text, f"invalid range; '{inside[place - 1]}' > '{inside[place + 1]}'")
    letters = "".join(letter if letter == "-" else re.escape(letter) for letter in inside)
    return f"(?!/)[{'^' if is_negated else ''}{letters}]"


def _alternatives(pattern: str, text: str) -> List[str]:
    """Expands the braces of a pattern."""
    done: List[str] = []
    rest = [pattern]
    while rest:
        one = rest.pop()
        start = _find_brace(one)
        if start < 0:
            done.append(one)
        else:
            end, commas = _brace_parts(one, start, text)
            cuts = [start, *commas, end]
            options = [one[cut + 1 : cuts[number + 1]] for number, cut in enumerate(cuts[:-1])]
            rest.extend(one[:start] + option + one[end + 1 :] for option in reversed(options))
        if len(done) + len(rest) > _MOST_ALTERNATIVES or len(done) * len(pattern) > 2 * _MOST_EXPANDED:
            raise _wrong(text, "too many alternatives")
    return done


def _find_brace(pattern: str) -> int:
    place = 0
    while place < len(pattern):
        if pattern[place] == "\\":
            place += 1
        elif pattern[place] == "[" and "]" in pattern[place + 2 :]:
            place = pattern.index("]", place + 2)
        elif pattern[place] == "{":
            return place
        place += 1
    return -1


def _brace_parts(pattern: str, start: int, text: str) -> Tuple[int, List[int]]:
    """Where the brace at `start` ends, and its commas."""
    depth, place = 0, start
    commas: List[int] = []
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\":
            place += 1
        elif letter == "{":
            depth += 1
        elif letter == "," and depth == 1:
            commas.append(place)
        elif letter == "}":
            depth -= 1
            if not depth:
                return place, commas
        place += 1
    raise _wrong(text, "unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)")


def _wrong(text: str, why: str) -> GlobError:
    return GlobError(f"error parsing glob '{text}': {why}")
