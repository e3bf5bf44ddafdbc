"""Where the task comes from. It reaches the agent byte for byte: no newline is touched."""

from __future__ import annotations

import argparse
import sys
from typing import Optional

from .. import settings
from ..errors import FileAccessError, InvalidTaskError
from ..storage.named_paths import open_named
from ..storage.project_files import shown

_THREE_WAYS = "No task was given. Use --task TEXT, --task-file FILE, or pipe it to standard input."

# No longer text can be a task, so nothing beyond it is read. A character has at most 4 bytes.
_MOST_BYTES = 4 * settings.MAX_TASK_CHARACTERS


def read_task(args: argparse.Namespace) -> str:
    """The task that the arguments name. Raises InvalidTaskError."""
    if args.stdin and (args.task is not None or args.task_file is not None):
        raise InvalidTaskError("The task is given twice: as an option and as '-'. Leave one out.")
    if args.task is not None:
        return str(args.task)
    if args.task_file is not None and args.task_file != "-":
        return _from_file(args.task_file)
    return _from_stdin(explicit=args.stdin or args.task_file == "-")


def _from_file(path: str) -> str:
    import asyncio

    try:
        data = asyncio.run(_read(path))
    except OSError as error:
        raise InvalidTaskError(f"Task file {shown(path)} can't be read: {error.strerror}.") from error
    except FileAccessError as error:
        raise InvalidTaskError(f"Task file {error}") from error
    return _text(data, f"Task file {shown(path)}")


async def _read(path: str) -> bytes:
    import aiofiles

    def opener(name: str, flags: int) -> int:
        return open_named(name, takes_streams=True)

    async with aiofiles.open(path, "rb", opener=opener) as file:
        data: bytes = await file.read(_MOST_BYTES + 1)
    return data


def _from_stdin(explicit: bool) -> str:
    # Read outside asyncio, whose handling of Ctrl-C would leave a blocking read waiting.
    data: Optional[bytes] = None
    if sys.stdin is not None and (explicit or not sys.stdin.isatty()):
        data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if not data:
        raise InvalidTaskError(_THREE_WAYS)
    return _text(data, "Standard input")


def _text(data: bytes, source: str) -> str:
    if len(data) > _MOST_BYTES:
        limit = settings.MAX_TASK_CHARACTERS
        raise InvalidTaskError(f"Task too large: {source} has more than {limit:,} characters.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTaskError(f"{source} is not UTF-8 (byte {error.start}). Convert it to UTF-8.") from error
