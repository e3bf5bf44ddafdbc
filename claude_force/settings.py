"""Named defaults, and the only place that reads the environment."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

MAX_CONCURRENT = 10
# The upper limit for max_concurrent="auto".
MOST_CONCURRENT = 500
TIMEOUT_SECONDS = 30.0
# While a model thinks and its thoughts are not sent, the server sends only pings.
QUIET_SECONDS = 600.0
MAX_ATTEMPTS = 3
MAX_TOKENS = 4096
# For a model that thinks: thinking counts as part of the answer.
MAX_TOKENS_THINKING = 16_384
MAX_TASK_CHARACTERS = 100_000

API_ADDRESS = "https://api.anthropic.com"
# The version that the newest SDK sends, whichever SDK is installed.
API_VERSION = "2026-10-21"
# The last version under which the API takes `SAMPLING`.
API_VERSION_WITH_SAMPLING = "2023-06-01"
SAMPLING = frozenset({"temperature", "top_k", "top_p"})

CACHE_TTL_HOURS = 24.0
CACHE_MAX_SIZE_MB = 100.0
# How often, and how long, a process polls for an answer that another process is getting.
LEASE_POLL_SECONDS = 0.05
LEASE_SECONDS = 300.0

# The most unfinished calls that one driver hands to the queue of durable runs.
MAX_ENQUEUED_CALLS = 500

LEDGER_FILE_MB = 64.0
LEDGER_FOLDER = Path(".claude", "metrics")

BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0

# The model of each alias, unless the installed SDK names a newer one.
NEWEST_MODELS: Mapping[str, str] = {
    "opus": "claude-opus-5-5",
    "sonnet": "claude-sonnet-5-5",
    "haiku": "claude-haiku-5-5",
    "fable": "claude-fable-5-2",
}
DEFAULT_ALIAS = "sonnet"

NO_TOOLS = "none"
# The options of a call that concern tools. `tools` may be the field of the Messages API instead.
TOOL_OPTIONS = frozenset({"tools", "max_turns", "max_tool_calls", "add_dirs", "in_place"})
# Of an agent with tools: its requests, and the read-only tools that it may have running.
MAX_TURNS = 50
MAX_TOOLS_AT_ONCE = 10

# In the SDK's order: the first that is set is used.
CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_CUSTOM_HEADERS = "ANTHROPIC_CUSTOM_HEADERS"
_PROFILE = "ANTHROPIC_PROFILE"
_SDK_FOLDER = "ANTHROPIC_CONFIG_DIR"
# A workload identity, which the SDK uses where no profile is named.
_WORKLOAD = (
    "ANTHROPIC_FEDERATION_RULE_ID",
    "ANTHROPIC_ORGANIZATION_ID",
    "ANTHROPIC_SERVICE_ACCOUNT_ID",
    "ANTHROPIC_WORKSPACE_ID",
)
# As in Claude Code: these select a cloud instead of Anthropic's own API.
_CLOUDS: Mapping[str, str] = {"bedrock": "CLAUDE_CODE_USE_BEDROCK", "vertex": "CLAUDE_CODE_USE_VERTEX"}
_REGIONS: Mapping[str, Tuple[str, ...]] = {
    "bedrock": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "vertex": ("CLOUD_ML_REGION",),
}
_ENDPOINTS: Mapping[str, str] = {
    "": "ANTHROPIC_BASE_URL",
    "bedrock": "ANTHROPIC_BEDROCK_BASE_URL",
    "vertex": "ANTHROPIC_VERTEX_BASE_URL",
}
_VERTEX_PROJECT = "ANTHROPIC_VERTEX_PROJECT_ID"
_AWS_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK")
# Other secrets that the SDK reads.
_SDK_SECRETS = ("ANTHROPIC_IDENTITY_TOKEN", "ANTHROPIC_ENVIRONMENT_KEY", "ANTHROPIC_WORK_SECRET")
# As in Claude Code; the first is for agents only.
_MODEL_VARIABLES = ("CLAUDE_CODE_SUBAGENT_MODEL", "ANTHROPIC_MODEL")
# The older name of ANTHROPIC_DEFAULT_HAIKU_MODEL.
_SMALL_FAST_MODEL = "ANTHROPIC_SMALL_FAST_MODEL"
_CACHE_SECRET = "CLAUDE_CACHE_SECRET"
_DATABASE_URL = "CLAUDE_FORCE_DATABASE_URL"
# A shorter value would match ordinary text.
_SHORTEST_SECRET = 8
# A header whose name contains one of these has a secret value.
_SECRET_HEADERS = ("auth", "cookie", "cred", "key", "pass", "secret", "sign", "token")
# Where toolchains are found by a variable; nothing in them is secret.
_TOOLCHAINS = (
    *(
        "ASDF_DATA_DIR",
        "ASDF_DIR",
        "CONDA_PREFIX",
        "GOROOT",
        "JAVA_HOME",
        "NVM_DIR",
        "PYENV_ROOT",
        "PYENV_VERSION",
    ),
    *("RBENV_ROOT", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "VIRTUAL_ENV", "VOLTA_HOME"),
)
_LOOPBACK_ONLY = "CLAUDE_FORCE_LOOPBACK_ONLY"
_OFF = ("", "0", "false", "no")


def loopback_only() -> bool:
    """Whether only this machine may be called, which tests set."""
    return _is_on(_LOOPBACK_ONLY)


def environment_models() -> Tuple[Tuple[str, str], ...]:
    """The variables that set the default model, with their values, in order of precedence."""
    return tuple((name, os.environ.get(name, "")) for name in _MODEL_VARIABLES)


def alias_override(alias: str) -> Optional[str]:
    """The model that the environment sets for an alias such as "opus", or None."""
    older = os.environ.get(_SMALL_FAST_MODEL) if alias == "haiku" else None
    return os.environ.get(alias_variable(alias)) or older or None


def alias_variable(alias: str) -> str:
    """The variable that sets the model of an alias."""
    return f"ANTHROPIC_DEFAULT_{alias.upper()}_MODEL"


def alias_of(model: str) -> str:
    """The alias that a model belongs to, by its name."""
    return next((alias for alias in NEWEST_MODELS if alias in model), DEFAULT_ALIAS)


def endpoint(cloud: str = "") -> str:
    """The endpoint that the environment sets, or "" for the SDK's default."""
    return os.environ.get(_ENDPOINTS[cloud]) or ""


def clouds(api_key: Optional[str] = None) -> Tuple[str, ...]:
    """The clouds that the environment selects, "bedrock" and "vertex"; none where an API key is given."""
    return () if api_key is not None else tuple(name for name, switch in _CLOUDS.items() if _is_on(switch))


def cloud_switch(cloud: str) -> str:
    """The variable that selects a cloud."""
    return _CLOUDS[cloud]


def region(cloud: str) -> str:
    """The cloud's region, or ""."""
    return next(filter(None, map(os.environ.get, _REGIONS[cloud])), "")


def vertex_project() -> str:
    """The id of the Google project that is billed, or ""."""
    return os.environ.get(_VERTEX_PROJECT) or ""


def missing_for(cloud: str) -> Tuple[str, ...]:
    """The variables that the cloud needs and that are not set."""
    missing = () if region(cloud) else _REGIONS[cloud][:1]
    return missing if cloud != "vertex" or vertex_project() else (*missing, _VERTEX_PROJECT)


def has_aws_key() -> bool:
    """Whether the environment holds AWS credentials, which come before any other."""
    return all(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def aws_profile() -> str:
    """The AWS profile, or ""."""
    return os.environ.get("AWS_PROFILE") or ""


def custom_headers() -> str:
    """The header lines that the SDK adds to each request, or ""."""
    return os.environ.get(_CUSTOM_HEADERS) or ""


def custom_header_fields() -> Dict[str, str]:
    """The custom headers by name; lines without ":" are ignored, as the SDK does."""
    lines = (line.partition(":") for line in custom_headers().split("\n"))
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def sdk_profile() -> str:
    """The name of the SDK's profile, or ""."""
    return os.environ.get(_PROFILE) or ""


def sdk_folder() -> Optional[Path]:
    """The folder of the SDK's profiles; None where there is no home folder."""
    named = os.environ.get(_SDK_FOLDER)
    if named:
        return Path(named)
    home = home_folder()
    return None if home is None else home / ".config" / "anthropic"


def workload() -> Tuple[str, ...]:
    """The ids of the SDK's workload identity; "" for each that is not set."""
    return tuple(os.environ.get(name) or "" for name in _WORKLOAD)


def google_credentials_file() -> str:
    """The file of Google's credentials, or ""."""
    return os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or ""


def certificates(is_cloud: bool) -> Mapping[str, str]:
    """The variables that name certificates of authorities, with their values.

    Of those that httpx reads, only the first counts; a cloud's credential libraries read one more.
    """
    own = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)][:1]
    more = [name for name in ("REQUESTS_CA_BUNDLE",) if is_cloud and os.environ.get(name)]
    return {name: os.environ[name] for name in (*own, *more)}


def cache_secret() -> Optional[str]:
    """The secret that signs cache entries, or None."""
    return os.environ.get(_CACHE_SECRET)


def database_url() -> Optional[str]:
    """The URL of the database of durable runs, or None."""
    return os.environ.get(_DATABASE_URL) or None


def credentials() -> Tuple[str, ...]:
    """The names of the variables that hold a key or a token."""
    return tuple(name for name in CREDENTIALS if os.environ.get(name))


def credential(api_key: Optional[str]) -> Tuple[str, str]:
    """The key or token for Anthropic's API, with the name of its variable; ("", "") for none."""
    if api_key is not None:
        return CREDENTIALS[0], api_key
    return next(((name, os.environ[name]) for name in credentials()), ("", ""))


def uses_sdk_profile(api_key: Optional[str]) -> bool:
    """Whether the credentials for Anthropic's API are for the SDK to find, in a profile or by an identity."""
    if credential(api_key)[0]:
        return False
    folder = sdk_folder()
    in_files = folder is not None and any((folder / name).exists() for name in ("configs", "active_config"))
    return bool(sdk_profile() or all(workload()[:2]) or os.environ.get(_SDK_FOLDER) or in_files)


def use_api_key(key: str) -> None:
    """Makes an API key the only credentials of this process's environment."""
    for name in (*CREDENTIALS, *_CLOUDS.values()):
        os.environ.pop(name, None)
    os.environ[CREDENTIALS[0]] = key


@contextmanager
def credentials_restored() -> Iterator[None]:
    """Undoes `use_api_key` when its block ends."""
    before = {name: os.environ.get(name) for name in (*CREDENTIALS, *_CLOUDS.values())}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                os.environ[name] = value
            elif name in os.environ:
                del os.environ[name]


def secrets() -> Tuple[str, ...]:
    """The secret values of the environment, the longest first."""
    values = [
        os.environ.get(name, "") for name in (*CREDENTIALS, *_SDK_SECRETS, *_AWS_SECRETS, _CACHE_SECRET)
    ]
    values += _secret_headers()
    for url in (*map(endpoint, _ENDPOINTS), os.environ.get(_DATABASE_URL, ""), *proxies()):
        userinfo = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
        values += [userinfo, userinfo.partition(":")[2]]
    return tuple(sorted((one for one in values if len(one) >= _SHORTEST_SECRET), key=len, reverse=True))


def _secret_headers() -> List[str]:
    """The values of custom headers whose names mark them as secret."""
    found = []
    for line in custom_headers().splitlines():
        name, _, value = line.partition(":")
        if any(word in name.lower() for word in _SECRET_HEADERS):
            found += [value.strip(), *value.split()]
    return found


def proxies() -> Tuple[str, ...]:
    """The URLs of the proxies."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return tuple(filter(None, map(os.environ.get, (*names, *map(str.lower, names)))))


def proxy(scheme: str, host: str) -> Optional[str]:
    """The address of the proxy for requests of this kind to this host, as Python and the SDK find it."""
    from urllib import request

    # The system's own settings on macOS and Windows, if the environment names no proxy.
    named = request.getproxies()
    found = named.get(scheme) or named.get("all")
    # NO_PROXY has addresses of IPv6 with brackets or without.
    bare = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    exempt = any(_exempts(one.strip(), scheme, bare, host) for one in named.get("no", "").split(","))
    if not found or exempt or any(request.proxy_bypass(one) for one in (host, bare)):
        return None
    return found if "://" in found else f"http://{found}"


def _exempts(entry: str, scheme: str, bare: str, host: str) -> bool:
    """Whether an entry of NO_PROXY names a host in a form that the SDK knows and urllib does not: "*" in a
    list, "*.example.com", "10.0.0.0/8", "http://example.com"."""
    kind, _, name = entry.lower().rpartition("://")
    if kind not in ("", "all", scheme):
        return False
    if "/" in name.rstrip("/"):
        from ipaddress import ip_address, ip_network

        with suppress(ValueError):
            return ip_address(bare) in ip_network(name.replace("[", "").replace("]", ""), strict=False)
    is_named = bool(kind) and name.rstrip("/") in (bare.lower(), host.lower())
    return is_named or name == "*" or (name.startswith("*.") and bare.lower().endswith(name[1:]))


def search_path() -> Tuple[str, ...]:
    """The folders of PATH, in their order."""
    return tuple(filter(None, os.environ.get("PATH", os.defpath).split(os.pathsep)))


def toolchain_variables() -> Mapping[str, str]:
    """The variables by which toolchains find themselves, with their values."""
    return {name: os.environ[name] for name in _TOOLCHAINS if os.environ.get(name)}


def columns() -> Optional[int]:
    """The width of a command's output in characters, or None."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdecimal() and int(text) else None


def home_folder() -> Optional[Path]:
    """The user's home folder; None where neither HOME nor the user database has one."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        return None


def user_folder() -> Path:
    """`~/.claude`; without a home folder, a temporary folder that is removed when the process ends."""
    home = home_folder()
    return (_temporary_home() if home is None else home) / ".claude"


@contextmanager
def with_a_home() -> Iterator[None]:
    """Sets HOME for the SDK, which looks for profiles there and fails without it."""
    if home_folder() is not None:
        yield
        return
    os.environ["HOME"] = str(user_folder().parent)
    try:
        yield
    finally:
        del os.environ["HOME"]


@lru_cache(maxsize=None)
def _temporary_home() -> Path:
    # Not of a fixed name in the temporary folder: another user could have put agents there.
    import atexit
    import shutil
    import tempfile

    folder, owner = Path(tempfile.mkdtemp(prefix="claude-force-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    # Not above: `--help` needs no logging.
    import logging

    logging.getLogger(__name__).warning(
        "this user has no home folder: answers, runs and outputs are remembered until this process ends. Set "
        "HOME to keep them."
    )
    return folder


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in _OFF
