"""Removes keys, tokens and passwords from what a server says: it may repeat anything it was sent."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Iterable, List, Mapping, Optional, Tuple
from urllib.parse import unquote, urlsplit

from .. import settings
from ..errors import CallError
from ..types import Reply, Usage

# Shorter ones are placeholders, and occur in ordinary words.
_SHORTEST = 8
# Fewer characters of a secret, at the end of a truncated text, reveal nothing.
_SHORTEST_PART = 4
_LONGEST_MESSAGE, _LONGEST_NAME = 2000, 200
_CUT = "..."
_SECRET_FORM = re.compile(
    r"(sk-ant-|Bearer\s+|\bSignature=|x-amz-security-token:\s*)[\w.~+/=-]{4,}", re.IGNORECASE
)
_PARTS = re.compile(r"[^\s;,=\"']+")
# Headers whose values are not secrets.
_OPEN_HEADERS = ("anthropic-beta", "anthropic-version", "user-agent", "content-type", "accept")


def redact(text: str) -> str:
    """Replaces what has the form of a key or token by `***`; `Redactor` replaces known ones."""
    return _SECRET_FORM.sub(r"\1***", text)


class Redactor:
    """Hides the secrets of one client in errors and answers.

    `secrets`: the exact values; those with fewer than 8 characters are ignored.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = _usable(secrets)

    def hide(self, text: str, others: Iterable[str] = ()) -> str:
        """Replaces each secret by `***`, even if it is truncated at the end of `text`."""
        for secret in (*self._secrets, *_usable(others)) if others else self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
            if text.endswith(_CUT):
                text = _without_part(text, secret)
        return text

    def name(self, text: Optional[str], others: Iterable[str] = ()) -> Optional[str]:
        """Cleans an id or another short name from a server; returns at most 200 characters."""
        if text is None:
            return None
        if not text.isprintable():
            text = "".join(char for char in text if char.isprintable())
        return self.hide(text, others)[:_LONGEST_NAME]

    def clean_error(self, error: CallError, others: Iterable[str] = ()) -> None:
        """Removes secrets from all fields of the error."""
        others = tuple(others)
        message = self.hide(error.message, others)
        error.message = message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + _CUT
        error.kind = self.name(error.kind, others)
        error.request_id = self.name(error.request_id, others)
        error.args = (error.message,)

    def clean_reply(self, reply: Reply, requested: str, others: Iterable[str] = ()) -> Reply:
        """Removes secrets from the names in a reply; its text stays. `requested` is the model of the call."""
        others = tuple(others)
        model = self.model(reply.model, requested, others)
        stop_reason, request_id = self.name(reply.stop_reason, others), self.name(reply.request_id, others)
        usage = self.usage(reply.usage, others)
        if usage is reply.usage and (model, stop_reason, request_id) == (
            reply.model,
            reply.stop_reason,
            reply.request_id,
        ):
            return reply
        return replace(reply, model=model, stop_reason=stop_reason, request_id=request_id, usage=usage)

    def usage(self, usage: Usage, others: Iterable[str] = ()) -> Usage:
        """Removes secrets from the names in a usage: tier, speed and place."""
        names = (usage.service_tier, usage.speed, usage.inference_geo)
        if not any(names):
            return usage
        tier, speed, geo = (self.name(one, others) for one in names)
        if (tier, speed, geo) == names:
            return usage
        return replace(usage, service_tier=tier, speed=speed, inference_geo=geo)

    def model(self, answered: str, requested: str, others: Iterable[str] = ()) -> str:
        """Cleans the id of the model that, by the server's word, answered a call of `requested`."""
        if not answered or answered == requested:
            return answered
        if not answered.isprintable():
            answered = "".join(char for char in answered if char.isprintable())
        for secret in (*self._secrets, *_usable(others)):
            # A custom header may name the model, to route requests by it: that is not a secret.
            if secret in answered and secret not in requested:
                answered = answered.replace(secret, "***")
        return answered[:_LONGEST_NAME]


def secrets_of(keys: Iterable[str], base_url: str) -> List[str]:
    """What requests carry that must not be shown: keys, custom headers, passwords of addresses."""
    found = [*keys, *settings.secrets()]
    found += header_secrets(settings.custom_header_fields())
    for url in (base_url, *settings.proxies()):
        found += _of_address(url)
    return found


def header_secrets(headers: Mapping[str, str]) -> List[str]:
    """The values to hide, whole and in parts: `Bearer TOKEN`, `session=TOKEN; theme=dark`."""
    values = [value for name, value in headers.items() if name.lower() not in _OPEN_HEADERS]
    return [*values, *(part for value in values for part in _PARTS.findall(value))]


def _of_address(url: str) -> List[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    userinfo = parts.netloc.rpartition("@")[0]
    password = userinfo.partition(":")[2]
    return [userinfo, password, unquote(password)]


def _usable(secrets: Iterable[str]) -> Tuple[str, ...]:
    # Stripped of a newline from the end of a file, which messages show as two letters. Longest first, as one
    # may be part of another.
    stripped = {one.strip() for one in secrets if one}
    return tuple(sorted((one for one in stripped if len(one) >= _SHORTEST), key=len, reverse=True))


def _without_part(text: str, secret: str) -> str:
    stem = text[: -len(_CUT)]
    for size in range(min(len(secret) - 1, len(stem)), _SHORTEST_PART - 1, -1):
        if stem.endswith(secret[:size]):
            return f"{stem[:-size]}***{_CUT}"
    return text
