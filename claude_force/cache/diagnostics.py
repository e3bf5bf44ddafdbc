"""Checks every signature of a store, and explains why an answer was not found."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from ..storage.signing import Secret
from ..storage.sqlite_files import FAULTS
from .entries import CacheEntry, is_signed_by, key_of, unseal
from .request_key import KeyFields, field_checksums, key_digest
from .store import Store, rowid_of

_LOOKED_AT = 10_000


def verify(store: Store, secret: Secret, remove: bool = False, most: int = -1) -> Dict[str, int]:
    """As `ResponseCache.verify`."""
    found = {"checked": 0, "valid": 0, "forged": 0, "unreadable": 0, "other_secret": 0, "removed": 0}
    bad: List[int] = []
    for identity in store.identities(most=most):
        verdict = _verdict(store, secret, identity)
        found["checked"] += 1
        found[verdict] += 1
        if verdict in ("forged", "unreadable"):
            bad.append(identity)
    if remove and bad:
        found["removed"] = store.drop(bad)
    return found


def _verdict(store: Store, secret: Secret, identity: int) -> str:
    try:
        sealed = store.sealed(identity)
    except FAULTS:
        return "unreadable"
    if type(sealed) is not bytes:
        return "unreadable"
    if not is_signed_by(sealed, secret):
        return "other_secret"
    key = key_of(sealed)
    return "valid" if rowid_of(key) == identity and unseal(sealed, key, secret) else "forged"


def explain(store: Store, secret: Secret, fields: KeyFields, now: float, ttl: float) -> Dict[str, Any]:
    """As `ResponseCache.explain_miss`. `now` is Unix time and `ttl` a length, both in seconds."""
    key = key_digest(fields)
    row = store.get(key)
    if row is None:
        return _nearest(store, secret, fields, now)
    if not is_signed_by(row[0], secret):
        return explained(False, "The cached answer was signed with another secret.")
    entry = unseal(row[0], key, secret)
    if entry is None:
        return explained(False, "The cached answer has an invalid signature.")
    if not abs(now - entry.created) < ttl:
        return explained(
            False,
            f"The cached answer is {(now - entry.created) / 3600:.1f} hours old; "
            f"answers are good for {ttl / 3600:g} hours.",
            entry=entry,
            now=now,
        )
    return explained(True, "This answer is cached.", entry=entry, now=now)


def _nearest(store: Store, secret: Secret, fields: KeyFields, now: float) -> Dict[str, Any]:
    best: Optional[Tuple[List[str], CacheEntry]] = None
    checksums = field_checksums(fields)
    for identity in store.identities(fields[0], _LOOKED_AT):
        sealed = store.sealed(identity)
        entry = unseal(sealed, key_of(sealed), secret) if sealed and is_signed_by(sealed, secret) else None
        if entry is None:
            continue
        differs = _differing(checksums, json.loads(entry.about)[2])
        if best is None or len(differs) < len(best[0]):
            best = differs, entry
    if best is None:
        return explained(False, f"No answer of {fields[0]} is cached.")
    differs, entry = best
    model = json.loads(entry.about)[1]
    what = ", ".join(f"model ({model} there, {fields[2]} here)" if one == "model" else one for one in differs)
    return explained(False, f"The nearest cached answer differs in: {what}.", differs, entry, now)


def _differing(mine: Dict[str, int], other: Dict[str, int]) -> List[str]:
    return [name for name in dict.fromkeys([*mine, *other]) if mine.get(name) != other.get(name)]


def explained(
    hit: bool,
    reason: str,
    differs: Optional[List[str]] = None,
    entry: Optional[CacheEntry] = None,
    now: float = 0.0,
) -> Dict[str, Any]:
    """Makes the dict that `explain` returns."""
    return {
        "hit": hit,
        "reason": reason,
        "differs": differs or [],
        "model": json.loads(entry.about)[1] if entry else None,
        "age_seconds": max(0.0, now - entry.created) if entry else None,
    }
