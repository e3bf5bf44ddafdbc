"""How many tokens images and PDFs take in a prompt. Pure.

Source: the API's documentation, chapters "Vision" and "PDF support".
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from itertools import islice
from typing import Any, Mapping, NamedTuple, Optional, Tuple

# An image is cut into squares, each of them a token. Larger images are scaled down, by newer models less.
_SQUARE = 28
_USUAL_TOKENS, _MOST_TOKENS = 1600, 4784
# Of a page of a PDF: its image, and its text.
_PAGE_TOKENS, _MOST_PAGE_TOKENS = 3000, _MOST_TOKENS + 4000
_MOST_PAGES = 100
# How many pages are counted: far more than the API takes.
_MOST_COUNTED = 5_000
# Of a PDF that hides its pages, in bytes: what a page usually has, and what it has at least.
_PAGE_BYTES, _LEAST_PAGE_BYTES = 50_000, 1000
# The beginning of an image that has its size, in characters of base64.
_HEAD = 2**18
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")

Size = Optional[Tuple[int, int]]


class MediaTokens(NamedTuple):
    """Tokens of an image or a PDF: as expected, and at most."""

    expected: int
    at_most: int


def media_tokens(block: Mapping[str, Any]) -> Optional[MediaTokens]:
    """Returns the tokens of a content block that has its data as base64; None for any other block."""
    source = block.get("source")
    data = source.get("data") if isinstance(source, Mapping) and source.get("type") == "base64" else None
    if source is None or not isinstance(data, str):
        return None
    if block.get("type") == "document":
        return _pdf_tokens(_decoded(data))
    size = image_size(_decoded(data[:_HEAD]), str(source.get("media_type")))
    if size is None:
        return MediaTokens(_USUAL_TOKENS, _MOST_TOKENS)
    wide, high = (-(-pixels // _SQUARE) for pixels in size)
    return MediaTokens(min(wide * high, _USUAL_TOKENS), min(wide * high, _MOST_TOKENS))


def _pdf_tokens(data: bytes) -> MediaTokens:
    pages = pdf_pages(data)
    usual = pages or len(data) // _PAGE_BYTES + 1
    most = pages or min(_MOST_PAGES, len(data) // _LEAST_PAGE_BYTES + 1)
    return MediaTokens(usual * _PAGE_TOKENS, most * _MOST_PAGE_TOKENS)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def pdf_pages(data: bytes) -> int:
    """Counts the pages of a PDF, up to some thousands; 0 where they are in compressed objects."""
    return sum(1 for _ in islice(_PAGE.finditer(data), _MOST_COUNTED))


def image_size(data: bytes, media_type: str) -> Size:
    """Reads width and height in pixels from the beginning of an image; None if it has none."""
    read = _SIZES.get(media_type)
    try:
        size = read(data) if read else None
    except (struct.error, IndexError):
        return None
    return size if size and min(size) > 0 else None


def _png_size(data: bytes) -> Size:
    if data[12:16] != b"IHDR":
        return None
    wide, high = struct.unpack(">II", data[16:24])
    return wide, high


def _gif_size(data: bytes) -> Size:
    wide, high = struct.unpack("<HH", data[6:10])
    return wide, high


def _webp_size(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8 ":
        wide, high = struct.unpack("<HH", data[26:30])
        return wide & 0x3FFF, high & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        wide = int.from_bytes(data[24:27], "little") + 1
        return wide, int.from_bytes(data[27:30], "little") + 1
    return None


def _jpeg_size(data: bytes) -> Size:
    """Walks the segments up to the one that has the size."""
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            high, wide = struct.unpack(">HH", data[place + 5 : place + 9])
            return wide, high
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        place += 2 + length
    return None


_SIZES = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/gif": _gif_size,
    "image/webp": _webp_size,
}
