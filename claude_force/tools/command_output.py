"""Keeps the beginning and the end of a command's output, in memory that does not grow with it. Pure."""

from __future__ import annotations

import re
from collections import deque
from typing import Deque

from ..formatting import byte_size

# An output of at most so many characters is kept whole; of a longer one, its first and its last characters.
MOST_CHARACTERS = 30_000
HEAD_CHARACTERS = 10_000
TAIL_CHARACTERS = 10_000
# A character of UTF-8 has at most four bytes.
_WHOLE_BYTES = 4 * MOST_CHARACTERS
_TAIL_BYTES = 4 * TAIL_CHARACTERS
_BLANK_LINES = re.compile(r"^(?:[^\S\n]*\n)+")


class CommandOutput:
    """Collects bytes as they come.

        output = CommandOutput()
        output.add(b"one\\n")
        output.text()  # "one"

    Attributes:
        size: bytes that were added.
    """

    def __init__(self) -> None:
        self.size = 0
        self._head = bytearray()
        self._tail: Deque[bytes] = deque()
        self._tail_size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        space = _WHOLE_BYTES - len(self._head)
        if space > 0:
            self._head += data[:space]
            data = data[space:]
        if data:
            self._tail.append(data[-_TAIL_BYTES:])
            self._tail_size += len(self._tail[-1])
            while self._tail_size - len(self._tail[0]) >= _TAIL_BYTES:
                self._tail_size -= len(self._tail.popleft())

    def text(self) -> str:
        """The output without blank lines in front and white space at the end.

        Bytes that are not UTF-8 become U+FFFD. What is left out of a long output is said in its place.
        """
        head = self._head.decode("utf-8", "replace")
        if self.size <= _WHOLE_BYTES and len(head) <= MOST_CHARACTERS:
            return _trim(head)
        # The end may lie in both parts.
        end = (bytes(self._head[-_TAIL_BYTES:]) + b"".join(self._tail))[-_TAIL_BYTES:]
        first, last = head[:HEAD_CHARACTERS], end.decode("utf-8", "replace")[-TAIL_CHARACTERS:]
        left_out = max(0, self.size - byte_size(first) - byte_size(last))
        return _trim(f"{first}\n\n... {left_out:,} bytes left out ...\n\n{last}")


def _trim(text: str) -> str:
    return _BLANK_LINES.sub("", text).rstrip()
