"""Entries as bytes, and their signatures: HMAC-SHA256 over every field, the key among them. Pure.

A sealed entry is the id of the secret, the signature, and what is signed: a head of fixed length with
the lengths of the texts, then the texts one after the other.

Source of the construction: RFC 2104. Signatures are compared in constant time.
"""

from __future__ import annotations

import hmac
import struct
from typing import NamedTuple, Optional, Union

# Part of what is signed: an entry of another format never passes for one of this.
FORMAT = 1

# Format, key, created, input and output tokens, cost and whether it is known, lengths of the texts.
_HEAD = struct.Struct(">B16sdQQd?3I")
_ID_BYTES = 8
_SIGNED_FROM = _ID_BYTES + 32
_TEXTS_FROM = _SIGNED_FROM + _HEAD.size


class Entry(NamedTuple):
    """One kept answer. `created` is Unix time in seconds, `cost` USD, `extra` JSON or empty.

    `about` says what was asked, as JSON: no hit needs it, so none decodes it.
    """

    key: bytes
    created: float
    input_tokens: int
    output_tokens: int
    cost: Optional[float]
    about: bytes
    extra: str
    response: str


class Secret:
    """What signs. Its id tells entries of another secret, which can't be judged, from forged ones."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self.id = hmac.digest(value, b"claude-force cache secret", "sha256")[:_ID_BYTES]

    def sign(self, signed: Union[bytes, memoryview]) -> bytes:
        return hmac.digest(self._value, signed, "sha256")


def seal(entry: Entry, secret: Secret) -> bytes:
    """Raises struct.error for a count of tokens that is negative or no integer."""
    extra, response = (text.encode("utf-8", "surrogatepass") for text in entry[6:])
    texts = (entry.about, extra, response)
    head = _HEAD.pack(
        FORMAT,
        *entry[:4],
        0.0 if entry.cost is None else entry.cost,
        entry.cost is not None,
        *map(len, texts),
    )
    signed = b"".join((head, *texts))
    return b"".join((secret.id, secret.sign(signed), signed))


def is_of(sealed: object, secret: Secret) -> bool:
    """Whether an entry claims to be signed with this secret."""
    return type(sealed) is bytes and sealed[:_ID_BYTES] == secret.id


def unseal(sealed: bytes, key: bytes, secret: Secret) -> Optional[Entry]:
    """The entry, or None when its signature does not hold for this key and secret."""
    signature = secret.sign(memoryview(sealed)[_SIGNED_FROM:])
    if not hmac.compare_digest(signature, sealed[_ID_BYTES:_SIGNED_FROM]) or len(sealed) < _TEXTS_FROM:
        return None
    head = _HEAD.unpack_from(sealed, _SIGNED_FROM)
    if head[0] != FORMAT or head[1] != key:
        return None
    _, _, created, input_tokens, output_tokens, cost, priced, about, extra, response = head
    about += _TEXTS_FROM
    extra += about
    return Entry(
        key,
        created,
        input_tokens,
        output_tokens,
        cost if priced else None,
        sealed[_TEXTS_FROM:about],
        sealed[about:extra].decode("utf-8", "surrogatepass"),
        sealed[extra : extra + response].decode("utf-8", "surrogatepass"),
    )


def key_of(sealed: bytes) -> bytes:
    """The key that an entry says it is for, not yet verified; empty where it is too short for one."""
    return _HEAD.unpack_from(sealed, _SIGNED_FROM)[1] if len(sealed) >= _TEXTS_FROM else b""
