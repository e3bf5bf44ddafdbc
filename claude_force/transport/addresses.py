"""What an endpoint's address says. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit, urlunsplit


def check_scheme(url: str) -> None:
    """Raises ValueError unless it is an address of HTTP with a host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(url)


def has_version(url: str) -> bool:
    """Whether its path ends in the version of the API, which the SDK adds."""
    return urlsplit(url).path.rstrip("/").endswith("/v1")


def shown_address(url: str) -> str:
    """`url` without the name and the password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_on_loopback(url: str) -> bool:
    """Whether it is on this machine."""
    return _is_loopback(urlsplit(url).hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
