"""Patterns of paths in rules such as `Read(./secret/**)`. Pure; never slower than pattern times path.

They are those of .gitignore, with four ways to begin: `//` from the root of the file system, `~/` from the
home folder, `/` from the folder of the settings, anything else from the root of the project. A pattern
without a slash matches at any depth, and a folder that matches stands for all in it. Patterns of a project
are untrusted, so they are not translated into regular expressions, which may take exponential time.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from .rules import RuleError

_ANY, _ONE = "*", "?"
_DEEP = "**"


class _Characters(NamedTuple):
    """A set such as `[a-z]` or `[!a]`."""

    ranges: Tuple[Tuple[str, str], ...]
    is_negated: bool

    def has(self, letter: str) -> bool:
        return any(first <= letter <= last for first, last in self.ranges) != self.is_negated


class _Literal(NamedTuple):
    letter: str


class PathPattern(NamedTuple):
    """One pattern, below an absolute folder.

    Attributes:
        base: the folder, without a slash at its end.
        parts: a compiled pattern for each part of a path.
        literals: the parts that have no wildcard, as they are written.
    """

    base: str
    parts: Tuple[Tuple[object, ...], ...]
    literals: Tuple[str, ...]

    def matches(self, path: str) -> bool:
        """Whether it matches a normal absolute path, or a folder above it."""
        below = _below(path, self.base)
        return below is not None and _match_parts(self.parts, below)

    def holds_all_in(self, folder: str) -> bool:
        """Whether it matches everything below a folder, whatever its name."""
        return self.matches(f"{folder}/\1") and self.matches(f"{folder}/\1/\2")


def compile_pattern(
    text: str, root: str, home: str, base: Optional[str] = None, strict: bool = False
) -> PathPattern:
    """Compiles the specifier of a rule. Raises RuleError.

    Args:
        root: of the project.
        base: the folder that `/` at the beginning means; `root` where it is None.
        strict: whether `./x` means only `x` in the root. For a rule that denies, it is `x` at any depth.
    """
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
        parts = [*parts, _ANY]
    literals = tuple(name for name in names if not set(name) & set("*?["))
    return PathPattern(folder.rstrip("/"), tuple(_compile(part) for part in parts), literals)


def _begin(text: str, root: str, home: str, base: str) -> Tuple[str, str, bool]:
    """Returns the folder that a pattern begins at, the rest, and whether it must begin there."""
    if text.startswith("//"):
        return "", text[2:], True
    if text == "~" or text.startswith("~/"):
        return home, text[2:], True
    if text.startswith("/"):
        return base, text[1:], True
    return root, text, False


def _compile(part: str) -> Tuple[object, ...]:
    if part == _DEEP:
        return (_DEEP,)
    found: List[object] = []
    place = 0
    while place < len(part):
        letter = part[place]
        place += 1
        if letter == "*":
            if not found or found[-1] is not _ANY:
                found.append(_ANY)
        elif letter == "?":
            found.append(_ONE)
        elif letter == "[":
            characters, place = _characters(part, place)
            found.append(characters)
        else:
            if letter == "\\" and place < len(part):
                letter = part[place]
                place += 1
            found.append(_Literal(letter))
    return tuple(found)


def _characters(part: str, place: int) -> Tuple[_Characters, int]:
    """Reads a set, from behind its bracket. Returns it and the place behind it. Raises RuleError."""
    if "[:" in part or "[=" in part or "[." in part:
        raise RuleError("has a class of characters such as [:alpha:], which is not understood")
    is_negated = part[place : place + 1] in ("!", "^")
    place += is_negated
    ranges: List[Tuple[str, str]] = []
    begin = place
    while place < len(part) and (part[place] != "]" or place == begin):
        first = part[place]
        if part[place + 1 : place + 2] == "-" and part[place + 2 : place + 3] not in ("", "]"):
            ranges.append((first, part[place + 2]))
            place += 3
        else:
            ranges.append((first, first))
            place += 1
    if place >= len(part):
        raise RuleError("has a [ without a ]")
    return _Characters(tuple(ranges), is_negated), place + 1


def _below(path: str, base: str) -> Optional[List[str]]:
    if not path.startswith(f"{base}/"):
        return None
    return [name for name in path[len(base) :].split("/") if name]


def _match_parts(parts: Sequence[Tuple[object, ...]], names: Sequence[str]) -> bool:
    """Whether the pattern matches the names or the first few of them.

    At a mismatch it returns to the last `**`, as one more name may belong to it: no earlier one has to be
    tried again.
    """
    part = name = 0
    deep: Optional[Tuple[int, int]] = None
    while part < len(parts):
        if parts[part] == (_DEEP,):
            part += 1
            deep = part, name
        elif name < len(names) and _match_name(parts[part], names[name]):
            part, name = part + 1, name + 1
        elif deep is not None and deep[1] < len(names):
            deep = deep[0], deep[1] + 1
            part, name = deep
        else:
            return False
    return True


def _match_name(tokens: Sequence[object], name: str) -> bool:
    token = letter = 0
    star: Optional[Tuple[int, int]] = None
    while letter < len(name) or token < len(tokens):
        if token < len(tokens) and tokens[token] is _ANY:
            token += 1
            star = token, letter
        elif token < len(tokens) and letter < len(name) and _match_letter(tokens[token], name[letter]):
            token, letter = token + 1, letter + 1
        elif star is not None and star[1] < len(name):
            star = star[0], star[1] + 1
            token, letter = star
        else:
            return False
    return True


def _match_letter(token: object, letter: str) -> bool:
    if isinstance(token, _Characters):
        return token.has(letter)
    return token is _ONE or (isinstance(token, _Literal) and token.letter == letter)
