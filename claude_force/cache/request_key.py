"""A call as the cache knows it: what identifies its answer, and the reply that a kept answer makes. Pure."""

from __future__ import annotations

import hashlib
import json
import stat
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

from .. import settings
from ..errors import InvalidOptionError
from ..types import Call, Reply, Usage

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


# Fields of the question by name, beside those of the call.
Service = Tuple[Tuple[str, str], ...]

_SMALL_BYTES = 2**16


def service(api_key: Optional[str], base_url: Optional[str]) -> Service:
    """What decides who answers: the API or the cloud, its address, custom headers and the SDK's profile.

    The API key is not part of it: a new key for the same address gives the same answers.
    """
    names = settings.clouds(api_key)
    if names:
        place = " ".join(_cloud(name, base_url) for name in names)
    else:
        place = (base_url or settings.endpoint()).rstrip("/")
    fields = _of_address(place, settings.custom_headers())
    # An explicit key, or one of the environment, keeps the SDK from its profiles.
    if api_key is None and not names and not settings.has_credentials():
        return (*fields, *_profile())
    return fields


@lru_cache(maxsize=16)
def _of_address(place: str, headers: str) -> Service:
    """It is asked for at each call, and seldom another one."""
    fields = (("endpoint", place),)
    return (*fields, ("headers", _digest(_header_fields(headers)))) if headers else fields


def _cloud(name: str, base_url: Optional[str]) -> str:
    place = [name, (base_url or settings.endpoint(name)).rstrip("/"), settings.region(name)]
    place.append(settings.vertex_project() if name == "vertex" else settings.aws_profile())
    return " ".join(filter(None, place))


def _profile() -> Service:
    """The SDK's profile by its name and the text of its file, else the ids of a workload identity."""
    name = settings.sdk_profile()
    if not name and any(settings.workload()):
        return (("profile", _digest(settings.workload())),)
    folder = settings.sdk_folder()
    if folder is None:
        return (("profile", name),) if name else ()
    name = name or small_text(folder / "active_config").strip() or "default"
    text = small_text(folder / "configs" / f"{name}.json")
    return (("profile", _digest((name, text))),) if text or name != "default" else ()


def _header_fields(text: str) -> Tuple[str, ...]:
    """The headers as the SDK reads them: names in any case, and the order does not matter."""
    pairs = (line.partition(":") for line in text.split("\n") if ":" in line)
    found = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return tuple(part for name in sorted(found) for part in (name, found[name]))


def _digest(parts: Tuple[str, ...]) -> str:
    """A hash, because headers can hold secrets, and a question is kept in memory."""
    return hashlib.sha256(encode(parts)).hexdigest()


def small_text(path: Path) -> str:
    """The beginning of a small regular file of the user's, read again only when it has changed; "" where it
    can't be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return ""
        return _text_of(path, found.st_ino, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=16)
def _text_of(path: Path, inode: int, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return file.read(_SMALL_BYTES).decode("utf-8", "replace")


USE, REFRESH, OFF = "use", "refresh", "off"
_POLICIES = (USE, REFRESH, OFF)


class RequestKey(NamedTuple):
    """What identifies an answer, as the cache takes it."""

    agent: str
    task: str
    model: str
    fingerprint: Dict[str, str]

    def key(self) -> Tuple[Any, ...]:
        return (*self[:3], *sorted(self.fingerprint.items()))


def check_policy(policy: str) -> None:
    """Raises InvalidOptionError for anything but `use`, `refresh` and `off`."""
    if policy not in _POLICIES:
        raise InvalidOptionError(f"cache is {policy!r}; choose one of {', '.join(_POLICIES)}.")


def request_key(call: Call, service: Service) -> Optional[RequestKey]:
    """All that changes the answer to `call`; None where an option has no written form to compare."""
    try:
        options = json.dumps(dict(call.options), sort_keys=True)
    except (TypeError, ValueError):
        return None
    definition, *contract = call.system or ("",)
    fingerprint = {
        "definition": definition,
        "contract": "\n".join(contract),
        "max_tokens": str(call.max_tokens),
        "options": options,
        **dict(service),
    }
    return RequestKey(call.agent_name, call.task, call.model, fingerprint)


def reply_from_hit(hit: Optional[Dict[str, Any]], model: str) -> Optional[Reply]:
    """What `ResponseCache.get` found, as a reply; `model` is the one that was asked."""
    if hit is None:
        return None
    usage = hit.get("usage")
    return Reply(
        text=hit["response"],
        model=hit.get("model", model),
        usage=Usage(**usage) if usage else Usage(hit["input_tokens"], hit["output_tokens"]),
        stop_reason=hit.get("stop_reason"),
        request_id=hit.get("request_id"),
        attempts=0,
        cost=0.0,
        saved_cost=hit["estimated_cost"],
        cached=True,
        cache_age=hit["cache_age_seconds"],
    )
