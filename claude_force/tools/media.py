"""Recognises images and PDFs by their bytes, and makes content blocks of them. Pure.

The API refuses the whole request for a file that it can't take, and then the agent's run would end. So what
it would refuse is refused here, as the error of one tool call.
"""

from __future__ import annotations

import base64
from typing import Any, Dict, Optional

from ..formatting import format_bytes
from ..media_tokens import image_size, pdf_pages

# Of the Messages API: 5 MB of base64 an image, 8,000 pixels a side; 100 pages a PDF. A request has at most
# 32 MB, and carries all files of the conversation each time.
MOST_IMAGE_BYTES = 5 * 1024 * 1024 * 3 // 4
MOST_PDF_BYTES = 10 * 1024 * 1024
_MOST_PIXELS = 8000
_MOST_PAGES = 100


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
    pages = pdf_pages(data)
    if pages > _MOST_PAGES:
        raise MediaError(f"it has {pages} pages, and at most {_MOST_PAGES} can be sent")


def _check_image(data: bytes, media_type: str) -> None:
    size = image_size(data, media_type)
    is_cut_off = media_type == "image/png" and b"IEND" not in data[-16:]
    if not size or is_cut_off:
        raise MediaError(f"it begins like {media_type}, and is no complete image")
    if max(size) > _MOST_PIXELS:
        wide, high = size
        raise MediaError(f"it has {wide}x{high} pixels, and at most {_MOST_PIXELS} a side can be sent")
