"""Named defaults, and the only place that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping, Optional, Tuple

MAX_CONCURRENT = 10
# Where the fleet finds out by itself how many attempts at a time are good.
MOST_CONCURRENT = 500
TIMEOUT_SECONDS = 30.0
MAX_ATTEMPTS = 3
MAX_TOKENS = 4096
MAX_TASK_CHARACTERS = 100_000

CACHE_TTL_HOURS = 24.0
CACHE_MAX_SIZE_MB = 100.0
# How often a process looks whether another one has found the answer that both want, and for how long.
LEASE_POLL_SECONDS = 0.05
LEASE_SECONDS = 300.0

# How many calls of one driver are in a durable run's queue or on their way at a time.
MOST_HANDED_OVER = 500

LEDGER_FILE_MB = 64.0

BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0

# What each alias means when the installed SDK names nothing newer.
NEWEST_MODELS: Mapping[str, str] = {
    "opus": "claude-opus-5-5",
    "sonnet": "claude-sonnet-5-5",
    "haiku": "claude-haiku-5-5",
}
DEFAULT_ALIAS = "sonnet"

# As the SDK reads them, the first that is set before the others.
CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_CACHE_SECRET = "CLAUDE_CACHE_SECRET"
_DATABASE_URL = "CLAUDE_FORCE_DATABASE_URL"
# What is shorter would be found in ordinary text.
_SHORTEST_SECRET = 8
_LOOPBACK_ONLY = "CLAUDE_FORCE_LOOPBACK_ONLY"
_OFF = ("", "0", "false", "no")


def loopback_only() -> bool:
    """Whether calls to anything but this machine are forbidden (tests set this)."""
    return os.environ.get(_LOOPBACK_ONLY, "").strip().lower() not in _OFF


def environment_model() -> Optional[str]:
    """The model that the environment asks for where neither the call nor the agent names one."""
    return os.environ.get("ANTHROPIC_MODEL") or None


def alias_override(alias: str) -> Optional[str]:
    """What `ANTHROPIC_DEFAULT_<ALIAS>_MODEL` says, for example for "opus"."""
    return os.environ.get(f"ANTHROPIC_DEFAULT_{alias.upper()}_MODEL") or None


def endpoint() -> str:
    """Where the SDK sends its requests when nothing else is said; empty for its own default."""
    return os.environ.get("ANTHROPIC_BASE_URL") or ""


def cache_secret() -> Optional[str]:
    """The secret that signs cache entries, where the environment names one."""
    return os.environ.get(_CACHE_SECRET)


def database_url() -> Optional[str]:
    """The database of durable runs, where the environment names one."""
    return os.environ.get(_DATABASE_URL) or None


def credentials() -> Tuple[str, ...]:
    """The names of the variables that hold a key or a token."""
    return tuple(name for name in CREDENTIALS if os.environ.get(name))


def secrets() -> Tuple[str, ...]:
    """Values of the environment that nobody may be shown, the longest first."""
    values = [os.environ.get(name, "") for name in (*CREDENTIALS, _CACHE_SECRET)]
    for url in (endpoint(), os.environ.get(_DATABASE_URL, "")):
        userinfo = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
        values += [userinfo, userinfo.partition(":")[2]]
    return tuple(sorted((one for one in values if len(one) >= _SHORTEST_SECRET), key=len, reverse=True))


def columns() -> Optional[int]:
    """The width of the text that a command writes, where the environment sets it."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdecimal() and int(text) else None


def user_folder() -> Path:
    """`~/.claude`."""
    return Path.home() / ".claude"
