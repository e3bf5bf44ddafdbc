"""Decodes text files for a model, and encodes them as they were. Pure."""

from __future__ import annotations

import codecs
from bisect import bisect_left
from typing import AnyStr, List, NamedTuple

_BLOCK, _FEW_LINES = 64 * 1024, 1000
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"))


class DecodedText(NamedTuple):
    """The text of a file.

    Attributes:
        text: without byte order mark, with the line ends of the file; wrong bytes are U+FFFD.
        mark: its byte order mark, or nothing.
        encoding: "utf-8", or "utf-16-le" where the mark says so.
        is_valid: whether all bytes are of that encoding.
    """

    text: str
    mark: bytes = b""
    encoding: str = "utf-8"
    is_valid: bool = True

    def encode(self, text: str) -> bytes:
        """The bytes of another text in this file. Raises UnicodeEncodeError for half of a surrogate pair."""
        return self.mark + text.encode(self.encoding)


def decode_text(data: bytes) -> DecodedText:
    """Decodes the bytes of a file."""
    mark, encoding = next((one for one in _MARKS if data.startswith(one[0])), (b"", "utf-8"))
    rest = data[len(mark) :]
    try:
        return DecodedText(rest.decode(encoding), mark, encoding)
    except UnicodeDecodeError:
        return DecodedText(rest.decode(encoding, "replace"), mark, encoding, is_valid=False)


def is_binary(data: bytes) -> bool:
    """Whether bytes are not text: they have a NUL, and are not marked as UTF-16."""
    return b"\0" in data and not data.startswith(codecs.BOM_UTF16_LE)


def line_start(text: AnyStr, place: int, count: int) -> int:
    """The place where the line begins that is `count` lines behind the one at `place`; -1 for none.

    Looks for it in blocks, and in the last one line by line, as there may be millions of lines.
    """
    newline = b"\n" if isinstance(text, bytes) else "\n"
    while count > _FEW_LINES:
        block = text[place : place + _BLOCK]
        found = block.count(newline)
        if found >= count or not block:
            break
        count, place = count - found, place + len(block)
    for _ in range(count):
        place = text.find(newline, place) + 1
        if not place:
            return -1
    return place


class LineEnds:
    """A text with its CRLF shown as LF, and the way back from places in the one to places in the other."""

    def __init__(self, text: str) -> None:
        self.raw = text
        self.text = text.replace("\r\n", "\n") if "\r" in text else text
        self._pairs: List[int] = []
        if self.text is not text and len(self.text) != len(text):
            start = -1
            while True:
                start = text.find("\r\n", start + 1)
                if start < 0:
                    break
                self._pairs.append(start - len(self._pairs))

    @property
    def end(self) -> str:
        """The line end that most lines of the text have."""
        return "\r\n" if 2 * len(self._pairs) > self.text.count("\n") else "\n"

    def raw_place(self, place: int) -> int:
        """The place in `raw` of a place in `text`: for a CRLF the one before it."""
        return place + bisect_left(self._pairs, place)
