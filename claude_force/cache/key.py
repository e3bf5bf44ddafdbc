"""What identifies an answer: all that changes it, in an encoding that no two questions share. Pure."""

from __future__ import annotations

import hashlib
import zlib
from typing import Dict, Iterable, Mapping, Tuple

KEY_BYTES = 16

# Agent, task, model, and any further fields by name: plain tuples, which a dict finds fastest.
Question = Tuple[str, str, str, Tuple[Tuple[str, str], ...]]


def question(agent: str, task: str, model: str, fingerprint: Mapping[str, str]) -> Question:
    """The same for the same fields in any order."""
    return (agent, task, model, tuple(sorted(fingerprint.items())) if fingerprint else ())


def encode(parts: Iterable[str]) -> bytes:
    """Each part after its length: `x:y|z` never meets `x|y:z`."""
    return "".join([f"{len(part)}:{part}" for part in parts]).encode("utf-8", "surrogatepass")


def cache_key(asked: Question) -> bytes:
    """The first 16 bytes of SHA-256 over all fields; in text, its 32 hex characters."""
    agent, task, model, fingerprint = asked
    parts = [agent, task, model]
    for pair in fingerprint:
        parts += pair
    return hashlib.sha256(encode(parts)).digest()[:KEY_BYTES]


def field_checksums(asked: Question) -> Dict[str, int]:
    """A CRC-32 of each field: tells which fields of two questions differ without keeping their text."""
    agent, task, model, fingerprint = asked
    fields = (("agent", agent), ("task", task), ("model", model), *fingerprint)
    return {name: zlib.crc32(value.encode("utf-8", "surrogatepass")) for name, value in fields}
