"""Cache entries: from an answer to the signed bytes that are stored, and back to the hit that it makes. Pure.

A sealed entry is the id of the secret, the signature, and what is signed: a head of fixed length with the
lengths of the texts, then the texts one after the other. The signature is an HMAC-SHA256 over every field,
including the key.
"""

from __future__ import annotations

import hmac
import json
import logging
import struct
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from ..storage.signing import ID_BYTES, Secret
from .request_key import KeyFields, field_checksums, key_digest, key_fields

logger = logging.getLogger(__name__)

FORGED = "a cache entry whose signature does not hold was removed"
NO_FINGERPRINT: Mapping[str, str] = {}
# Signed too: an entry of another format is never taken for one of this.
FORMAT = 1

# Format, key, created, input and output tokens, cost and whether it is known, lengths of the texts.
_HEAD = struct.Struct(">B16sdQQd?3I")
_SIGNED_FROM = ID_BYTES + 32
_TEXTS_FROM = _SIGNED_FROM + _HEAD.size


class CacheEntry(NamedTuple):
    """A stored answer. `created` is Unix time in seconds, `cost` USD, `extra` JSON or empty.

    `about` is JSON: agent, model, and checksums of the request's fields. No hit needs it, so none decodes it.
    """

    key: bytes
    created: float
    input_tokens: int
    output_tokens: int
    cost: Optional[float]
    about: bytes
    extra: str
    response: str


def to_entry(
    created: float,
    agent: str,
    task: str,
    model: str,
    response: str,
    input_tokens: int = 0,
    output_tokens: int = 0,
    estimated_cost: Optional[float] = None,
    fingerprint: Mapping[str, str] = NO_FINGERPRINT,
    extra: Optional[Mapping[str, Any]] = None,
    key_of: Callable[[KeyFields], bytes] = key_digest,
) -> Tuple[KeyFields, CacheEntry]:
    """Returns the fields of the request, and its entry.

    From `agent` to `extra` the arguments are those of `ResponseCache.set`. `key_of` may know the key already.
    """
    fields = key_fields(agent, task, model, fingerprint)
    about = json.dumps([agent, model, field_checksums(fields)]).encode()
    more = json.dumps(dict(extra)) if extra else ""
    counts = (created, input_tokens, output_tokens, estimated_cost)
    return fields, CacheEntry(key_of(fields), *counts, about, more, response)


def seal_if_fits(entry: CacheEntry, secret: Secret, most: int) -> Optional[bytes]:
    """Returns the sealed entry; None, with a log, where it exceeds `most` bytes or has impossible counts."""
    try:
        sealed = seal(entry, secret)
    except struct.error as error:
        logger.warning("an answer is not cached, its counts make no sense: %s", error)
        return None
    if len(sealed) > most:
        logger.info("an answer of %d bytes is too large for the cache", len(sealed))
        return None
    return sealed


def to_hit(entry: CacheEntry, age: float, hits: int) -> Dict[str, Any]:
    """Makes what `ResponseCache.get` returns; `age` in seconds, `hits` including this one."""
    # Unpacked in one step, because this is most of what a hit in memory costs.
    _, _, input_tokens, output_tokens, cost, _, extra, response = entry
    hit = {
        "response": response,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "estimated_cost": cost,
        "cached": True,
        # The clock of another machine may be a little ahead.
        "cache_age_seconds": age if age > 0 else 0.0,
        "hit_count": hits,
    }
    # Decoded for each hit: the caller may change it.
    return {**json.loads(extra), **hit} if extra else hit


def seal(entry: CacheEntry, secret: Secret) -> bytes:
    """Raises struct.error for a count of tokens that is negative or not an integer."""
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


def is_signed_by(sealed: object, secret: Secret) -> bool:
    """Whether an entry claims to be signed with this secret."""
    return type(sealed) is bytes and sealed[:ID_BYTES] == secret.id


def unseal(sealed: bytes, key: bytes, secret: Secret) -> Optional[CacheEntry]:
    """The entry, or None when its signature does not hold for this key and secret."""
    signature = secret.sign(memoryview(sealed)[_SIGNED_FROM:])
    if not hmac.compare_digest(signature, sealed[ID_BYTES:_SIGNED_FROM]) or len(sealed) < _TEXTS_FROM:
        return None
    head = _HEAD.unpack_from(sealed, _SIGNED_FROM)
    if head[0] != FORMAT or head[1] != key:
        return None
    _, _, created, input_tokens, output_tokens, cost, priced, about, extra, response = head
    about += _TEXTS_FROM
    extra += about
    return CacheEntry(
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
