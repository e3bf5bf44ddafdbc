"""What identifies an answer: all that changes it, in an encoding that no two questions share. Pure."""

from __future__ import annotations

import hashlib
from typing import Iterable, Mapping, NamedTuple, Tuple

KEY_CHARACTERS = 32
_DIGEST_BYTES = 6

Fingerprint = Tuple[Tuple[str, str], ...]


class Question(NamedTuple):
    """What was asked of whom. `fingerprint` holds further fields by name, sorted."""

    agent: str
    task: str
    model: str
    fingerprint: Fingerprint = ()

    def fields(self) -> Tuple[Tuple[str, str], ...]:
        """All fields by name."""
        own = (("agent", self.agent), ("task", self.task), ("model", self.model))
        return own + tuple((f"+{name}", value) for name, value in self.fingerprint)


def question(agent: str, task: str, model: str, fingerprint: Mapping[str, str]) -> Question:
    """The same for the same fields in any order."""
    return Question(agent, task, model, tuple(sorted(fingerprint.items())) if fingerprint else ())


def encode(parts: Iterable[str]) -> bytes:
    """Each part after its length in bytes: `x:y|z` never meets `x|y:z`."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join([b"%d:%b" % (len(part), part) for part in encoded])


def cache_key(asked: Question) -> str:
    """32 hex characters of SHA-256 over all fields and their names."""
    parts = [text for pair in asked.fields() for text in pair]
    return hashlib.sha256(encode(parts)).hexdigest()[:KEY_CHARACTERS]


def digests(asked: Question) -> Mapping[str, str]:
    """A short digest of each field, by which two questions are compared without keeping their text."""
    return {
        name.lstrip("+"): hashlib.blake2b(
            value.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES
        ).hexdigest()
        for name, value in asked.fields()
    }
