"""From an answer, as callers hand it in, to the entry that is kept, and to the hit that it makes."""

from __future__ import annotations

import json
import logging
import struct
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ..storage.signing import Entry, Secret, seal
from .request_key import RequestFields, cache_key, field_checksums, request_fields

logger = logging.getLogger(__name__)

FORGED = "a cache entry whose signature does not hold was removed"

NO_FINGERPRINT: Mapping[str, str] = {}


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
    key_of: Callable[[RequestFields], bytes] = cache_key,
) -> Tuple[RequestFields, Entry]:
    """Returns the fields of the request, and its entry.

    From `agent` to `extra` the arguments are those of `ResponseCache.set`. `key_of` may know the key already.
    """
    fields = request_fields(agent, task, model, fingerprint)
    about = json.dumps([agent, model, field_checksums(fields)]).encode()
    more = json.dumps(dict(extra)) if extra else ""
    counts = (created, input_tokens, output_tokens, estimated_cost)
    return fields, Entry(key_of(fields), *counts, about, more, response)


def seal_if_fits(entry: Entry, secret: Secret, most: int) -> Optional[bytes]:
    """The sealed entry, in at most so many bytes; None, which is logged, for one that can't be kept."""
    try:
        sealed = seal(entry, secret)
    except struct.error as error:
        logger.warning("an answer is not kept, its counts make no sense: %s", error)
        return None
    if len(sealed) > most:
        logger.info("an answer of %d bytes is too large for the cache", len(sealed))
        return None
    return sealed


def to_hit(entry: Entry, age: float, hits: int) -> Dict[str, Any]:
    """What `ResponseCache.get` returns; `age` in seconds, `hits` with this one among them."""
    # In one step: field by field it takes longer, and this is most of what a hit in memory costs.
    _, _, input_tokens, output_tokens, cost, _, extra, response = entry
    hit = {
        "response": response,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "estimated_cost": cost,
        "cached": True,
        # The clock that wrote it may be a little ahead.
        "cache_age_seconds": age if age > 0 else 0.0,
        "hit_count": hits,
    }
    # Decoded anew each time: a caller may change what it is given.
    return {**json.loads(extra), **hit} if extra else hit
