"""Entries as rows, and their signatures: HMAC-SHA256 over every field, the key among them. Pure.

Source of the construction: RFC 2104. The comparison takes constant time.
"""

from __future__ import annotations

import hmac
from typing import Any, NamedTuple, Optional, Tuple

# Part of what is signed: an entry of another format never passes for one of this.
FORMAT = 1


class Entry(NamedTuple):
    """One kept answer. `created` is Unix time in seconds, `cost` USD, `extra` JSON text."""

    key: str
    agent: str
    model: str
    created: float
    input_tokens: int
    output_tokens: int
    cost: Optional[float]
    extra: str
    response: str


Row = Tuple[Any, ...]


def seal(entry: Entry, secret: bytes) -> Row:
    """The entry's fields, its response as bytes, then its signature."""
    head, body = entry[:-1], entry.response.encode("utf-8", "surrogatepass")
    return (*head, body, _sign(head, body, secret))


def unseal(row: Row, key: str, secret: bytes) -> Optional[Entry]:
    """The entry of a row, or None when its signature does not hold for this key and secret."""
    head, body, signature = row[:-2], row[-2], row[-1]
    if row[0] != key or type(body) is not bytes or type(signature) is not bytes:
        return None
    if not hmac.compare_digest(_sign(head, body, secret), signature):
        return None
    return Entry._make((*head, body.decode("utf-8", "surrogatepass")))


def _sign(head: Tuple[Any, ...], body: bytes, secret: bytes) -> bytes:
    # repr tells 5 from "5", quotes text so that no field runs into the next, and keeps every float's bits.
    text = repr((FORMAT, head)).encode("ascii", "backslashreplace")
    return hmac.digest(secret, b"%d:%b%b" % (len(text), text, body), "sha256")
