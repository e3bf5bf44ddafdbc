"""Recognises images and PDFs by their bytes, and makes content blocks of them. Pure.

The API refuses the whole request for a file that it can't take, and then the agent's run would end. So what
it would refuse is refused here, as the error of one tool call.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import Any, Dict, Optional, Tuple

from ..formatting import format_bytes

# Of the Messages API: 5 MB of base64 an image, 8,000 pixels a side; 100 pages a PDF. A request has at most
# 32 MB, and carries all files of the conversation each time.
MOST_IMAGE_BYTES = 5 * 1024 * 1024 * 3 // 4
MOST_PDF_BYTES = 10 * 1024 * 1024
_MOST_PIXELS = 8000
_MOST_PAGES = 100
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")

Size = Optional[Tuple[int, int]]


class MediaError(Exception):
    """An image or a PDF that the API would not take. The text says why."""


def media_type_of(data: bytes) -> Optional[str]:
    """Returns the media type of an image or a PDF by the first bytes; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "application/pdf" if data.startswith(b"%PDF-") else None


def most_bytes(media_type: str) -> int:
    """How large a file of this type may be."""
    return MOST_PDF_BYTES if media_type == "application/pdf" else MOST_IMAGE_BYTES


def media_block(data: bytes, media_type: str) -> Dict[str, Any]:
    """Makes the content block. Raises MediaError."""
    most = most_bytes(media_type)
    if len(data) > most:
        raise MediaError(f"it has {format_bytes(len(data))}, and at most {format_bytes(most)} can be sent")
    if media_type == "application/pdf":
        _check_pdf(data)
    else:
        _check_image(data, media_type)
    text = base64.b64encode(data).decode("ascii")
    kind = "document" if media_type == "application/pdf" else "image"
    return {"type": kind, "source": {"type": "base64", "data": text, "media_type": media_type}}


def _check_pdf(data: bytes) -> None:
    if b"%%EOF" not in data[-2048:] or b"startxref" not in data:
        raise MediaError("it begins like a PDF, and is no complete one")
    if b"/Encrypt" in data:
        raise MediaError("it is encrypted")
    pages = len(_PAGE.findall(data))
    if pages > _MOST_PAGES:
        raise MediaError(f"it has {pages} pages, and at most {_MOST_PAGES} can be sent")


def _check_image(data: bytes, media_type: str) -> None:
    try:
        size = _SIZES[media_type](data)
    except (struct.error, IndexError):
        size = None
    if not size or min(size) < 1:
        raise MediaError(f"it begins like {media_type}, and is no complete image")
    if max(size) > _MOST_PIXELS:
        wide, high = size
        raise MediaError(f"it has {wide}x{high} pixels, and at most {_MOST_PIXELS} a side can be sent")


def _png_size(data: bytes) -> Size:
    if data[12:16] != b"IHDR" or b"IEND" not in data[-16:]:
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
