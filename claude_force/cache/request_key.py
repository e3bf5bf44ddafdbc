"""Identifies a request by all that decides its answer, and turns a cached answer into a reply. Pure."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

from .. import settings
from ..errors import InvalidOptionError
from ..types import Call, Reply, Usage

if TYPE_CHECKING:
    from ..conversation import ContentBlock

logger = logging.getLogger(__name__)

KEY_BYTES = 16
USE, REFRESH, OFF = "use", "refresh", "off"
_POLICIES = (USE, REFRESH, OFF)
_SMALL_BYTES = 2**16

# Agent, task, model, and any further fields by name: plain tuples, which a dict finds fastest.
KeyFields = Tuple[str, str, str, Tuple[Tuple[str, str], ...]]
# Fields of the fingerprint by name that tell who answers.
ServiceFields = Tuple[Tuple[str, str], ...]


def check_policy(policy: str) -> None:
    """Raises InvalidOptionError for anything but `use`, `refresh` and `off`."""
    if policy not in _POLICIES:
        raise InvalidOptionError(f"cache is {policy!r}; choose one of {', '.join(_POLICIES)}.")


class RequestKey(NamedTuple):
    """The arguments of `ResponseCache.get`: `fingerprint` has the further fields that decide the answer."""

    agent: str
    task: str
    model: str
    fingerprint: Dict[str, str]

    def fields(self) -> KeyFields:
        """The same as a value that can be hashed."""
        return key_fields(*self)

    def digest(self) -> bytes:
        """The key under which the cache stores the answer, a hash of all fields."""
        return key_digest(self.fields())


def request_key(call: Call, service: ServiceFields) -> Optional[RequestKey]:
    """Identifies the answer to `call`; None if an option has no JSON form to compare.

    A new field that all calls have would change all keys, so that no stored answer is found: leave it out of
    the fingerprint where it has its default.
    """
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
    if call.conversation is not None:
        fingerprint["conversation"] = call.conversation.digest.hex()
        fingerprint["tool_choice"] = call.conversation.tool_choice
    return RequestKey(call.agent_name, call.task, call.model, fingerprint)


def key_fields(agent: str, task: str, model: str, fingerprint: Mapping[str, str]) -> KeyFields:
    """Puts the fields in one order, so that the same request compares equal."""
    return (agent, task, model, tuple(sorted(fingerprint.items())) if fingerprint else ())


def key_digest(fields: KeyFields) -> bytes:
    """The first 16 bytes of SHA-256 over all fields; as text, its 32 hex characters."""
    agent, task, model, fingerprint = fields
    parts = [agent, task, model]
    for pair in fingerprint:
        parts += pair
    return hashlib.sha256(encode(parts)).digest()[:KEY_BYTES]


def field_checksums(fields: KeyFields) -> Dict[str, int]:
    """A CRC-32 of each field by name: tells which fields differ without storing their text."""
    agent, task, model, fingerprint = fields
    named = (("agent", agent), ("task", task), ("model", model), *fingerprint)
    return {name: zlib.crc32(value.encode("utf-8", "surrogatepass")) for name, value in named}


def encode(parts: Iterable[str]) -> bytes:
    """Puts the length before each part: `x:y|z` never meets `x|y:z`."""
    return "".join([f"{len(part)}:{part}" for part in parts]).encode("utf-8", "surrogatepass")


def reply_from_hit(hit: Optional[Dict[str, Any]], key: RequestKey) -> Optional[Reply]:
    """Turns what `ResponseCache.get` returned for a key into a reply.

    None for a hit without the content that a conversation goes on from.
    """
    content = () if hit is None else _content(hit, key)
    if hit is None or content is None:
        return None
    usage = hit.get("usage")
    return Reply(
        text=hit["response"],
        model=hit.get("model", key.model),
        usage=Usage(**usage) if usage else Usage(hit["input_tokens"], hit["output_tokens"]),
        stop_reason=hit.get("stop_reason"),
        request_id=hit.get("request_id"),
        attempts=0,
        cost=0.0,
        saved_cost=hit["estimated_cost"],
        cached=True,
        cache_age=hit["cache_age_seconds"],
        content=content,
    )


def _content(hit: Mapping[str, Any], key: RequestKey) -> Optional[Tuple[ContentBlock, ...]]:
    if "conversation" not in key.fingerprint:
        return ()
    # Other calls don't need it.
    from ..conversation import content_of

    content = content_of(hit.get("content"))
    if not content:
        logger.warning("a cache entry without the content of its answer was not used")
    return content or None


def service_fields(api_key: Optional[str], base_url: Optional[str]) -> ServiceFields:
    """Returns fields that identify who answers: the API or cloud, its address, headers, the SDK's profile.

    The API key is not part of it: a new key for the same address gets the same answers.
    """
    names = settings.clouds(api_key)
    if names:
        fields = [("endpoint", " ".join(_cloud(name, base_url) for name in names))]
    else:
        fields = [("endpoint", (base_url or settings.endpoint()).rstrip("/"))]
    headers = settings.custom_headers()
    if headers:
        fields.append(("headers", _digest(_header_fields(headers))))
    # With a key, explicit or from the environment, the SDK does not use its profiles.
    if api_key is None and not names and not settings.credentials():
        fields += _profile()
    return tuple(fields)


def _cloud(name: str, base_url: Optional[str]) -> str:
    place = [name, (base_url or settings.endpoint(name)).rstrip("/"), settings.region(name)]
    place.append(settings.vertex_project() if name == "vertex" else settings.aws_profile())
    return " ".join(filter(None, place))


def _profile() -> ServiceFields:
    """The SDK's profile by its name and the text of its file, else the ids of a workload identity."""
    name = settings.sdk_profile()
    if not name and any(settings.workload()):
        return (("profile", _digest(settings.workload())),)
    folder = settings.sdk_folder()
    if folder is None:
        return (("profile", name),) if name else ()
    name = name or _small_text(folder / "active_config").strip() or "default"
    text = _small_text(folder / "configs" / f"{name}.json")
    return (("profile", _digest((name, text))),) if text or name != "default" else ()


def _header_fields(text: str) -> Tuple[str, ...]:
    """The headers as the SDK reads them: the case of names and the order don't matter."""
    pairs = (line.partition(":") for line in text.split("\n") if ":" in line)
    found = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return tuple(part for name in sorted(found) for part in (name, found[name]))


def _digest(parts: Tuple[str, ...]) -> str:
    """A hash, because headers can hold secrets, and request keys stay in memory."""
    return hashlib.sha256(encode(parts)).hexdigest()


def _small_text(path: Path) -> str:
    """The beginning of a small regular file of the user's, read again only when the file has changed.

    Empty where the file can't be read.
    """
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
