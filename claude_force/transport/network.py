"""What connections depend on here: addresses, proxies, certificates, file descriptors."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import Iterator, Optional
from urllib.parse import urlsplit, urlunsplit

from .. import settings
from ..errors import CallError, ConfigurationError
from ..formatting import naming
from .request import wrong_header

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

# Descriptors that the output, the cache, the ledger and the files of the project need.
RESERVED = 48
_ASSUMED_OPEN = 64
_NONE_LEFT = (errno.EMFILE, errno.ENFILE)
_UNKNOWN_AUTHORITY = ("unable to get local issuer", "self-signed", "self signed", "unable to get issuer")


class NoDescriptorError(CallError):
    """No file descriptor was left to open a connection. Nothing was sent."""

    advice = naming("Raise the limit of open files (ulimit -n), or lower {}.", "max_concurrent")


def check_scheme(url: str) -> None:
    """Raises ValueError unless `url` is an HTTP address with a host."""
    parts = urlsplit(url)
    # Reading the port raises ValueError if it is not a port.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(url)


def has_version(url: str) -> bool:
    """Whether the path ends in the API's version, which is added to it anyway."""
    return urlsplit(url).path.rstrip("/").endswith("/v1")


def shown_address(url: str) -> str:
    """`url` without the name and password it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_on_loopback(url: str) -> bool:
    """Whether the host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_for(url: str) -> Optional[str]:
    """The address of the proxy for requests to `url`; None for a direct connection.

    Raises ValueError for a proxy that speaks anything but HTTP.
    """
    parts = urlsplit(url)
    proxy = settings.proxy(parts.scheme, parts.netloc.rpartition("@")[2])
    if proxy is not None:
        check_scheme(proxy)
    return proxy


def tls_context() -> ssl.SSLContext:
    """Verifies servers by the authorities that the environment names, else by the system's and certifi's.

    Raises ConfigurationError if TLS can't be set up.
    """
    try:
        return _tls_context()
    except OSError as error:
        raise ConfigurationError(f"TLS can't be set up: {error}. Check SSLKEYLOGFILE.") from error


def _tls_context() -> ssl.SSLContext:
    named = settings.certificates(False)
    if named:
        return ssl.create_default_context(cafile=named.get("SSL_CERT_FILE"), capath=named.get("SSL_CERT_DIR"))
    if sys.platform in ("darwin", "win32"):
        with suppress(ImportError):
            import truststore

            # OpenSSL does not know the authorities of these systems.
            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context()
    with suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def check_certificates(is_cloud: bool) -> None:
    """Raises ConfigurationError, with variable and file, for certificates in the environment that can't be
    used."""
    for name, value in settings.certificates(is_cloud).items():
        reason = _why_unusable(value, is_folder=name == "SSL_CERT_DIR")
        if reason is not None:
            wanted = "a folder of certificates" if name == "SSL_CERT_DIR" else "a PEM file of certificates"
            error = ConfigurationError(
                f"{name} names {value}, which can't be used: {reason}. Set it to {wanted}, or unset it."
            )
            error.fatal_for = "run"
            raise error


def _why_unusable(value: str, is_folder: bool) -> Optional[str]:
    if is_folder:
        return None if any(map(os.path.isdir, value.split(os.pathsep))) else "there is no such folder"
    try:
        if Path(value).exists() and not Path(value).is_file():
            return "it is not a file"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except ssl.SSLError:
        return "it holds no certificate that can be read"
    except OSError as error:
        return error.strerror or "it can't be read"
    except ValueError:
        return "it is not the name of a file"
    return None


def check_custom_headers() -> None:
    """Raises ConfigurationError for custom headers in the environment that can't be sent."""
    reason = wrong_header(settings.custom_header_fields())
    if reason is not None:
        error = ConfigurationError(
            f"ANTHROPIC_CUSTOM_HEADERS can't be sent: {reason}. Write one NAME: VALUE on each line."
        )
        error.fatal_for = "run"
        raise error


def certificate_advice(reason: str) -> Optional[str]:
    """What to do about a connection that failed for this reason; None where certificates are not it."""
    if "CERTIFICATE_VERIFY_FAILED" not in reason.upper().replace(" ", "_"):
        return None
    if not any(text in reason for text in _UNKNOWN_AUTHORITY):
        return "Check the server's certificate, the machine's clock and the name in ANTHROPIC_BASE_URL."
    named = settings.certificates(False)
    if "SSL_CERT_FILE" in named:
        return f"Add the certificate of the server's authority to {named['SSL_CERT_FILE']} (SSL_CERT_FILE)."
    return (
        "If the server's certificate comes from a private authority, or a proxy reads the traffic, set "
        "SSL_CERT_FILE to a PEM file that holds that authority's certificate."
    )


def is_out_of_descriptors(error: BaseException) -> bool:
    """Whether the cause of the error is that no file descriptor was left."""
    return any(isinstance(one, OSError) and one.errno in _NONE_LEFT for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: Optional[BaseException] = error
    seen = 0
    while one is not None and seen < 20:
        yield one
        one, seen = one.__cause__ or one.__context__, seen + 1


def connections_within(wanted: int, is_ceiling: bool = False) -> int:
    """How many of `wanted` connections this process can open. Raises its soft limit of open files if needed.

    `is_ceiling`: so many are rarely needed, so a lower number is logged without a warning.
    """
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = _open_now() + RESERVED
    soft = _raised(soft, hard, taken + wanted)
    if soft == resource.RLIM_INFINITY or soft - taken >= wanted:
        return wanted
    most = max(1, soft - taken)
    logger.log(
        logging.DEBUG if is_ceiling else logging.WARNING,
        "the limit of open files is %d: %d attempts are made at a time, not %d (ulimit -n raises it)",
        soft,
        most,
        wanted,
    )
    return most


def _raised(soft: int, hard: int, needed: int) -> int:
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    better = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (better, hard))
    except (OSError, ValueError) as error:
        # macOS has a lower limit that it does not report.
        logger.info("the limit of open files stays at %d: %s", soft, error)
        return soft
    return better


def _open_now() -> int:
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return _ASSUMED_OPEN
