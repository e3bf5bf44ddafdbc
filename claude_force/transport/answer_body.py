"""What the body of an answer is, by its first bytes: a stream of events, JSON, or neither. Pure.

Media types are not trusted: gateways label streams as JSON or as plain text, and JSON as a stream. JSON
begins with a brace or a bracket, which begins no line of a stream (HTML standard, "Server-sent events"), and
no frame of an AWS event stream, whose first four bytes would be its size: two gigabytes.
"""

from __future__ import annotations

from typing import Callable, Optional

from ..errors import AnswerTooLargeError, BadReplyError
from .error_mapping import readable
from .messages import EVENTS_MEDIA_TYPE, BodyReader, Reader, StreamReader

# Bytes of an answer. A token is a few letters, and a stream's event around it has some 200 bytes, a gateway's
# more. What the server's own tools found comes beside; it has to fit into a later request, of 32 MB.
_PER_TOKEN, _BESIDE, _MOST_OF_ALL = 2**10, 2**25, 2**28
_BLANK = b" \t\r\n\xef\xbb\xbf"
_FIELDS = (b"event:", b"data:", b"id:", b"retry:")
_MOST_OF_A_PAGE = 4096


def reader_of(
    first: bytes, label: str, expected: Reader, new_stream: Callable[[], StreamReader], events: str
) -> Optional[Reader]:
    """What reads an answer that begins with `first` and has the media type `label`; None as long as nothing
    but blanks has come. `events` is the media type that streams of this service have.

    Raises BadReplyError for what is neither a stream nor JSON.
    """
    start = first.lstrip(_BLANK)
    if not start:
        return None
    if start[:1] in (b"{", b"["):
        return expected if isinstance(expected, BodyReader) else BodyReader()
    if events != EVENTS_MEDIA_TYPE and label.lower().startswith(events):
        return expected
    if start[:1] != b"<" and (label.lower().startswith(EVENTS_MEDIA_TYPE) or _is_stream(start)):
        plain = isinstance(expected, BodyReader) or events != EVENTS_MEDIA_TYPE
        return new_stream() if plain else expected
    raise bad_reply(start, label, events if isinstance(expected, StreamReader) else "application/json")


def bad_reply(start: bytes, label: str, wanted: str) -> BadReplyError:
    """The error for a body that can't be an answer."""
    words = readable(start[:_MOST_OF_A_PAGE].decode("utf-8", "replace"))
    said = f": {words}" if words else ""
    return BadReplyError(f"The server answered with {label or 'no content type'}, not {wanted}{said}")


def _is_stream(start: bytes) -> bool:
    # A first piece may end within the name of the field.
    return start[:1] == b":" or any(field.startswith(start[: len(field)]) for field in _FIELDS)


def most_bytes(max_tokens: int) -> int:
    """What an answer may have: far more than any that is one, and so little that many without end at the
    same time do not fill the memory."""
    return min(_BESIDE + _PER_TOKEN * max_tokens, _MOST_OF_ALL)


def too_large(max_tokens: int) -> AnswerTooLargeError:
    """The error for an answer with more bytes than that."""
    size = most_bytes(max_tokens) >> 20
    return AnswerTooLargeError(f"The answer to max_tokens={max_tokens} had more than {size} MB")
