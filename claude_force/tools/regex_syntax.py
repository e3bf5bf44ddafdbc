"""Reads regular expressions as ripgrep does, and writes them for RE2 and for Python. Pure.

Models write the syntax of ripgrep: that of Rust, without look-around and backreferences. What it refuses is
refused here with the same text, so that a search says the same whatever carries it out.
"""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, NoReturn, Optional, Tuple

from ..lazy_pattern import pattern

MOST_LENGTH = 10_000
# Of groups and classes in each other, as in Rust.
_MOST_NESTED = 250
_MOST_STACKED = 20
_LOOK_AROUND = "look-around, including look-ahead and look-behind, is not supported"
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_COUNTS = pattern(r"\{(\d*)(,?)(\d*)\}")
_FLAGS = pattern(r"\(\?([imsuUxR]*)(-[imsuUxR]+)?([:)])")
_NAMED = pattern(r"\(\?P?<([A-Za-z_][\w.\[\]]*)>")
_HEX = pattern(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|[xuU]\{([0-9A-Fa-f]{1,8})\})")
_PROPERTY = pattern(r"\\[pP](?:[A-Za-z]|\{\^?[\w=!: -]+\})")
_ASSERTIONS = {"\\b": r"\b", "\\B": r"\B", "\\A": r"\A", "\\<": r"\b", "\\>": r"\b"}
_EDGES = frozenset(("^", "$", r"\b", r"\B", r"\A", r"\Z"))
_WORD_EDGES = pattern(r"\\b\{(?:start|end|start-half|end-half)\}")


class PatternError(ValueError):
    """A pattern that is not searched for. The text is the one of ripgrep where it has one."""


class Dialect(NamedTuple):
    r"""How one engine writes what the engines write differently.

    Attributes:
        end: the end of the text, `\z`.
        classes: Unicode's classes for the letters d, w and s, as they stand inside brackets.
        has_properties: whether it knows `\p{...}`.
        scopes_flags: whether flags in the middle of a group are only allowed with a scope.
        wrong_bytes: the characters that stand for bytes that are not UTF-8, which nothing matches.
    """

    end: str
    classes: Dict[str, str]
    has_properties: bool
    scopes_flags: bool
    wrong_bytes: str = ""


RE2 = Dialect(
    r"\z",
    {"d": r"\p{Nd}", "w": r"\p{L}\p{M}\p{Nd}\p{Pc}", "s": r"\t\n\v\f\r\x{85}\p{Z}"},
    has_properties=True,
    scopes_flags=False,
)
# With the classes of ASCII an expression of many repetitions needs less memory.
RE2_ASCII = RE2._replace(classes={"d": r"\d", "w": r"\w", "s": r"\s\v"})
PYTHON = Dialect(r"\Z", {"d": r"\d", "w": r"\w", "s": r"\s"}, False, True, r"\udc80-\udcff")


def translate(text: str, dialect: Dialect, spans_lines: bool) -> str:
    """Writes a pattern of ripgrep for an engine. Raises PatternError.

    `spans_lines`: whether it may match line ends.
    """
    if len(text) > MOST_LENGTH:
        raise PatternError(f"rg: regex of {len(text):,} characters is too long")
    return _Reader(f"(?:{text})", dialect, spans_lines).run()


class _Group(NamedTuple):
    """An open group: where it began, and the scopes of flags that it opened."""

    start: int
    scopes: List[str]


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: str, dialect: Dialect, spans_lines: bool) -> None:
        self._text, self._dialect, self._spans_lines = text, dialect, spans_lines
        self._place = 0
        self._out: List[str] = []
        self._groups: List[_Group] = [_Group(0, [])]
        self._stacked = 0
        # Whether there is something that a repetition could repeat.
        self._repeatable = False

    def run(self) -> str:
        steps = {"(": self._open, ")": self._close, "|": self._or, "[": self._bracket, "\\": self._escape}
        steps.update(dict.fromkeys("*+?{", self._repeat))
        while self._place < len(self._text):
            letter = self._text[self._place]
            step = steps.get(letter)
            if step is not None:
                step()
            elif letter == "\n" and not self._spans_lines:
                self._refuse_line_end()
            else:
                self._put(self._plain(letter), 1)
        if len(self._groups) > 1:
            self._fail("unclosed group", self._groups[-1].start, 1)
        return "".join(self._out)

    def _plain(self, letter: str) -> str:
        wrong = self._dialect.wrong_bytes
        if letter == "." and wrong:
            return f"(?:(?![{wrong}]).)"
        return letter if letter in ".^$" else re.escape(letter)

    def _put(self, written: str, length: int, repeatable: bool = True) -> None:
        self._out.append(written)
        self._place += length
        self._repeatable = repeatable

    def _fail(self, why: str, start: int, length: int) -> NoReturn:
        carets = " " * start + "^" * max(length, 1)
        raise PatternError(f"rg: regex parse error:\n    {self._text}\n    {carets}\nerror: {why}")

    def _refuse_line_end(self) -> NoReturn:
        raise PatternError(
            'rg: the literal "\\n" is not allowed in a regex\n\n'
            "Consider enabling multiline mode with the --multiline flag (or -U for short).\n"
            "When multiline mode is enabled, new line characters can be matched."
        )

    def _open(self) -> None:
        text, place = self._text, self._place
        for start in ("(?=", "(?!", "(?<=", "(?<!"):
            if text.startswith(start, place):
                self._fail(_LOOK_AROUND, place, len(start))
        named, flags = _NAMED.match(text, place), _FLAGS.match(text, place)
        if flags and flags.group(3) == ")":
            self._set_flags(flags.group(1), flags.group(2) or "", len(flags.group()))
            return
        self._groups.append(_Group(place, []))
        self._expect_shallow(len(self._groups) - 1, place)
        if named:
            name = re.sub(r"\W", "_", named.group(1))
            self._put(f"(?P<{name}>", len(named.group()), repeatable=False)
        elif flags:
            put = self._flags(flags.group(1), flags.group(2) or "")
            self._put(f"(?{put}:", len(flags.group()), repeatable=False)
        elif text.startswith("(?", place):
            self._fail("unrecognized flag", place + 2, 1)
        else:
            self._put("(", 1, repeatable=False)

    def _expect_shallow(self, depth: int, place: int) -> None:
        scopes = sum(len(group.scopes) for group in self._groups)
        if depth + scopes > _MOST_NESTED:
            why = f"exceeded the maximum number of nested parentheses/brackets ({_MOST_NESTED})"
            self._fail(why, place, 1)

    def _set_flags(self, on: str, off: str, length: int) -> None:
        """Flags that hold up to the end of the group."""
        put = self._flags(on, off)
        if self._dialect.scopes_flags:
            self._groups[-1].scopes.append(f"(?{put}:")
            self._expect_shallow(len(self._groups) - 1, self._place)
            self._put(f"(?{put}:", length, repeatable=False)
        else:
            self._put(f"(?{put})" if put else "", length, repeatable=False)

    def _flags(self, on: str, off: str) -> str:
        used = set(on + off[1:])
        unknown = sorted(used & ({"x", "U", "R"} if self._dialect.scopes_flags else {"x", "R"}))
        if unknown:
            raise PatternError(f"The flag {unknown[0]!r} of a regex is not supported here.")
        on, off = on.replace("u", ""), off[1:].replace("u", "")
        return on + (f"-{off}" if off else "")

    def _close(self) -> None:
        if len(self._groups) == 1:
            self._fail("unopened group", self._place, 1)
        self._put(")" * (1 + len(self._groups.pop().scopes)), 1)

    def _or(self) -> None:
        scopes = self._groups[-1].scopes
        self._put(")" * len(scopes) + "|" + "".join(scopes), 1, repeatable=False)

    def _repeat(self) -> None:
        text, start = self._text, self._place
        if not self._repeatable:
            self._fail("repetition operator missing expression", start, 1)
        written, length = text[start], 1
        if written == "{":
            written = self._counts(start)
            length = text.index("}", start) + 1 - start
        if text[start + length : start + length + 1] == "?":
            written, length = written + "?", length + 1
        if self._out[-1] in _EDGES:
            # Python repeats no assertion, but it does repeat a group of one.
            self._out[-1] = f"(?:{self._out[-1]})"
        if self._out[-1][-1:] in ("*", "+", "?", "}") and self._out[-1][:1] in ("*", "+", "?", "{"):
            # Repeating what is repeated: `a**`. Others than Rust take it for something else.
            self._stacked += 1
            if self._stacked > _MOST_STACKED:
                self._fail("too many repetitions of a repetition", start, 1)
            self._wrap_last()
        self._put(written, length)

    def _wrap_last(self) -> None:
        """Puts the last repetition and what it repeats into a group."""
        repetition = self._out.pop()
        place = len(self._out) - 1
        depth = 0
        while place >= 0:
            piece = self._out[place]
            depth += piece.count(")") if set(piece) == {")"} else 0
            depth -= 1 if piece.startswith("(") else 0
            if depth <= 0 and not (piece[:1] in "*+?{" and place):
                break
            place -= 1
        self._out.insert(max(place, 0), "(?:")
        self._out.append(f"{repetition})")

    def _counts(self, start: int) -> str:
        found = _COUNTS.match(self._text, start)
        if not found:
            closed = "}" in self._text[start:]
            why = "repetition quantifier expects a valid decimal" if closed else "unclosed counted repetition"
            self._fail(why, start if not closed else start + 1, 1)
        least, comma, most = found.groups()
        if not least and not most:
            self._fail("repetition quantifier expects a valid decimal", start + 1, 1)
        if comma and least and most and int(least[:9]) > int(most[:9]):
            why = "invalid repetition count range, the start must be <= the end"
            self._fail(why, start, len(found.group()))
        return f"{{{least or 0}{comma}{most}}}"

    def _escape(self) -> None:
        text, place = self._text, self._place
        edge = _WORD_EDGES.match(text, place)
        pair = text[place : place + 2]
        if edge or pair in _ASSERTIONS:
            self._put(_ASSERTIONS[pair], len(edge.group()) if edge else 2)
        elif pair == "\\z":
            self._put(self._dialect.end, 2)
        elif pair[1:] in tuple("dwsDWS"):
            inside = self._dialect.classes[pair[1].lower()]
            self._put(f"[^{inside}{self._dialect.wrong_bytes}]" if pair[1].isupper() else f"[{inside}]", 2)
        elif pair[1:] in ("p", "P"):
            written = self._property(place)
            self._put(written, len(written))
        else:
            written, length = self._character(place)
            self._put(written, length)

    def _property(self, place: int) -> str:
        found = _PROPERTY.match(self._text, place)
        if not found:
            self._fail("invalid Unicode property", place, 2)
        if not self._dialect.has_properties:
            raise PatternError(f"{found.group()} needs ripgrep or the package google-re2 on this machine")
        return found.group()

    def _character(self, place: int) -> Tuple[str, int]:
        """An escape that stands for one character, as it is written anywhere, and its length."""
        text = self._text
        code = _HEX.match(text, place)
        if code:
            number = int(next(group for group in code.groups() if group), 16)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                self._fail("hexadecimal literal is not a Unicode scalar value", place, len(code.group()))
            if number == 10 and not self._spans_lines:
                self._refuse_line_end()
            return re.escape(chr(number)), len(code.group())
        letter = text[place + 1 : place + 2]
        if letter == "n" and not self._spans_lines:
            self._refuse_line_end()
        if letter in tuple("nrtfva"):
            return f"\\{letter}", 2
        if letter.isdigit():
            self._fail("backreferences are not supported", place, 2)
        if not letter or letter.isalnum() or ord(letter) > 127:
            self._fail("unrecognized escape sequence", place, 2)
        return re.escape(letter), 2

    def _bracket(self) -> None:
        start = self._place
        inside, end = self._class(start)
        inside += self._dialect.wrong_bytes if inside.startswith("^") else ""
        self._put(f"[{inside}]", end - start)

    def _class(self, start: int, depth: int = 0) -> Tuple[str, int]:
        """The inside of a class, and where it ends."""
        text, place = self._text, start + 1
        written = ""
        if text[place : place + 1] == "^":
            written, place = "^", place + 1
        is_first = True
        while True:
            letter = text[place : place + 1]
            if not letter:
                self._fail("unclosed character class", start, 1)
            if letter == "]" and not is_first:
                return written, place + 1
            if text[place : place + 2] in ("&&", "--", "~~") and not is_first:
                raise PatternError(f"{text[place : place + 2]} in a class of a regex is not supported here.")
            is_first = False
            piece, place = self._class_item(place, depth)
            written += piece

    def _class_item(self, place: int, depth: int) -> Tuple[str, int]:
        text = self._text
        letter, pair = text[place], text[place : place + 2]
        if pair == "[:":
            found = self._posix(place)
            if found is not None:
                return found, text.index(":]", place) + 2
        if letter == "[":
            self._expect_shallow(depth, place)
            inside, end = self._class(place, depth + 1)
            if inside.startswith("^"):
                raise PatternError("A negated class in a class of a regex is not supported here.")
            return inside, end
        if letter == "\\":
            if pair[1:] in tuple("dws"):
                return self._dialect.classes[pair[1]], place + 2
            if pair[1:] in tuple("DWS"):
                return pair, place + 2
            if pair[1:] in ("p", "P"):
                written = self._property(place)
                return written, place + len(written)
            if pair == "\\b":
                self._fail("invalid escape sequence found in character class", place, 2)
            written, length = self._character(place)
            return written, place + length
        if letter == "-":
            return "-", place + 1
        return ("\\" + letter if letter in "^[]\\&~|" else letter), place + 1

    def _posix(self, place: int) -> Optional[str]:
        end = self._text.find(":]", place)
        name = self._text[place + 2 : end] if end > 0 else ""
        if name.startswith("^") and name[1:] in _POSIX:
            raise PatternError("A negated class in a class of a regex is not supported here.")
        return _POSIX.get(name)
