"""Certificates that the environment names: which can't be used, and what to do about a refused server."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Optional

from .. import settings
from ..errors import ConfigurationError

_UNKNOWN_AUTHORITY = ("unable to get local issuer", "self-signed", "self signed", "unable to get issuer")


def check_certificates(is_cloud: bool) -> None:
    """Raises ConfigurationError that names the variable and the file, where the environment names
    certificates that can't be used."""
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


def advice_about(reason: str) -> Optional[str]:
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
