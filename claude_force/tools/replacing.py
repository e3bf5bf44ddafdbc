"""Replaces a string in the text of a file, as Edit does. Pure.

Line ends that the replaced strings don't contain stay as they are. A string with straight quotes also matches
curly ones, because models write the former where a file has the latter; the new string then gets curly ones.
"""

from __future__ import annotations

from typing import Iterator, List, Optional, Tuple

from .text_files import LineEnds

_CURLY = {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"}
_STRAIGHTEN = str.maketrans(_CURLY)
# After one of these, and at the beginning, a quote opens.
_BEFORE_OPENING = " \t\n\r([{\u2014\u2013"

# A replacement of more places takes seconds, and many times the memory of the file.
_MOST_PLACES = 200_000


class NoReplacementError(Exception):
    """The string is not in the text, or in more places than one. The text is for the model."""


def replace_in(text: str, old: str, new: str, replace_all: bool = False, most: Optional[int] = None) -> str:
    """Replaces `old`, which is not empty, by `new`. Raises NoReplacementError.

    A line that is replaced by nothing as a whole takes its line end with it. `most`: how many characters the
    text may have then.
    """
    ends = LineEnds(text)
    old, new = old.replace("\r\n", "\n"), new.replace("\r\n", "\n")
    searched, wanted = _spelled(ends.text, old)
    count = searched.count(wanted)
    if not count:
        raise NoReplacementError(f"String to replace not found in file.\nString: {old}")
    if count > 1 and not replace_all:
        raise NoReplacementError(
            f"Found {count} matches of the string to replace, but replace_all is false. To replace all "
            "occurrences, set replace_all to true. To replace only one occurrence, please provide more "
            f"context to uniquely identify the instance.\nString: {old}"
        )
    if count > _MOST_PLACES or (most is not None and len(text) + count * (len(new) - len(old)) > most):
        raise NoReplacementError(
            f"Found {count} matches of the string to replace: too many to replace at once, or the file would "
            "become too large."
        )
    pieces: List[str] = []
    done, line_end = 0, ends.end
    for start in _places(searched, wanted):
        end = start + len(old)
        put = _with_quotes(new, ends.text[start:end], old).replace("\n", line_end)
        if not new and _is_whole_line(ends.text, start, end):
            end += 1
        pieces += [ends.raw[done : ends.raw_place(start)], put]
        done = ends.raw_place(end)
    return "".join([*pieces, ends.raw[done:]])


def _spelled(text: str, old: str) -> Tuple[str, str]:
    """Text and string in the spelling in which the one is searched for the other: with straight quotes, if
    that is needed to find it.
    """
    if old in text or not any(quote in old or quote in text for quote in _CURLY):
        return text, old
    return text.translate(_STRAIGHTEN), old.translate(_STRAIGHTEN)


def _places(text: str, old: str) -> Iterator[int]:
    """Where `old` stands, without overlaps."""
    place = text.find(old)
    while place >= 0:
        yield place
        place = text.find(old, place + len(old))


def _is_whole_line(text: str, start: int, end: int) -> bool:
    begins = start == 0 or text[start - 1] == "\n"
    return begins and text[end - 1] != "\n" and text[end : end + 1] == "\n"


def _with_quotes(new: str, found: str, old: str) -> str:
    """Gives `new` the curly quotes of the text that was found for `old`."""
    if found == old:
        return new
    if any(quote in found for quote in "\u201c\u201d"):
        new = _curled(new, '"', "\u201c", "\u201d")
    if any(quote in found for quote in "\u2018\u2019"):
        new = _curled(new, "'", "\u2018", "\u2019")
    return new


def _curled(text: str, straight: str, opening: str, closing: str) -> str:
    letters = list(text)
    for place, letter in enumerate(letters):
        if letter == straight:
            opens = place == 0 or letters[place - 1] in _BEFORE_OPENING
            letters[place] = opening if opens else closing
    return "".join(letters)
