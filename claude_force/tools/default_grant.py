"""Reads the grant in the user's own `~/.claude/claude-force.toml`, for runs that name none."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from typing import Any, Dict

from .. import settings
from ..errors import ConfigurationError, FileAccessError
from ..storage.input_paths import open_input
from ..storage.path_text import printable
from ..storage.regular_files import read_all
from .grant import NO_GRANT, Grant, parse_grant

FILE = "claude-force.toml"
LARGEST_FILE = 64 * 1024
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def default_grant() -> Grant:
    """Returns what the user's file grants. A project's file of this name grants nothing, and is not read.

    Raises ConfigurationError, FileAccessError, InvalidOptionError.
    """
    label = str(settings.user_folder() / FILE)
    try:
        descriptor = open_input(label, LARGEST_FILE)
    except FileAccessError as error:
        if error.is_missing:
            return NO_GRANT
        raise
    try:
        _check_owner(descriptor, label)
        data = read_all(descriptor, label, LARGEST_FILE)
    finally:
        os.close(descriptor)
    return parse_grant(_parse(data, label).get("tools"))


def _check_owner(descriptor: int, label: str) -> None:
    """Raises ConfigurationError where somebody else can write the file, and so could grant tools."""
    if os.name != "posix":
        return
    info = os.fstat(descriptor)
    if info.st_uid not in (os.geteuid(), 0) or info.st_mode & _OTHERS_WRITE:
        raise ConfigurationError(
            f"{printable(label)} can be written by others, who could grant tools with it. Make it yours "
            f"alone: chmod 600 {shlex.quote(label)}"
        )


def _parse(data: bytes, label: str) -> Dict[str, Any]:
    # Imported here: few runs have the file.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{printable(label)} is not valid TOML: {error}. Correct it there."
        ) from error
