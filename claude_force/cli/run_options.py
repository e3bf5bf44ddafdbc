"""Reads what the verbs that make calls have in common: options of a call, the task, the output file."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import Any, Dict, List, Mapping, Optional

from .. import settings
from ..errors import FileAccessError, InputError, InvalidTaskError
from ..storage.input_paths import open_input
from ..storage.output_paths import is_special_output, open_output_folder, output_path
from ..storage.path_text import printable
from ..storage.private_files import PUBLIC_FILE, Folder
from .arguments import number

# Options that change an answer, with the names of the orchestrator's arguments.
_CALL_OPTIONS = {name: name for name in ("model", "max_tokens", "temperature", "cache_ttl")}
# Limits of the command, with the names of the orchestrator's arguments.
_LIMITS = {
    "timeout": "timeout_seconds",
    "deadline": "deadline_seconds",
    "max_retries": "max_retries",
    "max_concurrent": "max_concurrent",
    "rpm": "rpm",
    "input_tpm": "input_tpm",
    "output_tpm": "output_tpm",
}
# A longer text can't be a task, so no more is read. A character has at most 4 bytes.
_MAX_TASK_BYTES = 4 * settings.MAX_TASK_CHARACTERS


def call_options(args: argparse.Namespace) -> Dict[str, Any]:
    """Returns the given options that change an answer, as arguments of a call. Raises InputError."""
    options = given_options(args, _CALL_OPTIONS)
    if options.get("max_tokens", 1) < 1:
        raise InputError(f"--max-tokens is {options['max_tokens']}; it must be a whole number from 1 up.")
    return options


def request_options(args: argparse.Namespace) -> Dict[str, Any]:
    """Returns all given options of a call; `args.of_tools` has those of tools. Raises InputError."""
    check_budget(getattr(args, "call_budget", None), "--call-budget")
    budget = given_options(args, {"call_budget": "call_budget_usd"})
    return {**call_options(args), **budget, **args.of_tools}


def given_limits(args: argparse.Namespace) -> Dict[str, Any]:
    """Returns the given limits and prices, as arguments of an orchestrator. Raises InputError."""
    limits = given_options(args, _LIMITS)
    prices = _prices(getattr(args, "price", None))
    return {**limits, "prices": prices} if prices else limits


def check_limits(args: argparse.Namespace) -> None:
    """Raises InputError for an invalid limit or price, also where a cached answer needs neither."""
    limits = given_limits(args)
    if limits:
        # Imported here: most commands give none.
        from ..options import Options

        Options(**limits)


def _prices(texts: Optional[List[str]]) -> Dict[str, Dict[str, float]]:
    """Returns the prices of each `--price MODEL=INPUT,OUTPUT`. Raises InputError."""
    prices: Dict[str, Dict[str, float]] = {}
    for text in texts or ():
        model, _, both = text.partition("=")
        try:
            input_price, output_price = (number(one) for one in both.split(","))
            if not model or min(input_price, output_price) < 0:
                raise ValueError(text)
        except ValueError:
            raise InputError(
                f"--price is {text!r}; write MODEL=INPUT,OUTPUT in USD per million tokens, 0 or more."
            ) from None
        prices[model] = {"input": input_price, "output": output_price}
    return prices


def given_options(args: argparse.Namespace, names: Mapping[str, str]) -> Dict[str, Any]:
    """Returns the options that were given, under the names that `names` maps them to."""
    values = {name: getattr(args, option, None) for option, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def check_budget(budget: Optional[float], option: str = "--budget") -> None:
    """Raises InputError for a budget that is not positive."""
    if budget is not None and budget <= 0:
        raise InputError(f"{option} is {budget:g}; it must be an amount in USD above 0.")


def read_task(args: argparse.Namespace) -> str:
    """Returns the task of `--task`, `--task-file` or standard input, unchanged. Raises InvalidTaskError."""
    if args.stdin and (args.task is not None or args.task_file is not None):
        raise InvalidTaskError("The task is given twice: as an option and as '-'. Leave one out.")
    if args.task is not None:
        return str(args.task)
    if args.task_file is not None and args.task_file != "-":
        return _read_file(args.task_file)
    return _read_stdin(is_named=args.stdin or args.task_file == "-")


def _read_file(path: str) -> str:
    import asyncio

    try:
        data = asyncio.run(_read(path))
    except OSError as error:
        raise InvalidTaskError(f"Task file {printable(path)} can't be read: {error.strerror}.") from error
    except FileAccessError as error:
        raise InvalidTaskError(f"Task file {error}") from error
    return _decoded(data, f"Task file {printable(path)}")


async def _read(path: str) -> bytes:
    import aiofiles

    def opener(name: str, flags: int) -> int:
        return open_input(name, takes_streams=True)

    async with aiofiles.open(path, "rb", opener=opener) as file:
        data: bytes = await file.read(_MAX_TASK_BYTES + 1)
    return data


def _read_stdin(is_named: bool) -> str:
    # Read outside asyncio, whose handling of Ctrl-C would leave a blocking read waiting.
    data: Optional[bytes] = None
    if sys.stdin is not None and (is_named or not sys.stdin.isatty()):
        data = sys.stdin.buffer.read(_MAX_TASK_BYTES + 1)
    if not data:
        raise InvalidTaskError(
            "No task was given. Use --task TEXT, --task-file FILE, or pipe it to standard input."
        )
    return _decoded(data, "Standard input")


def _decoded(data: bytes, source: str) -> str:
    if len(data) > _MAX_TASK_BYTES:
        limit = settings.MAX_TASK_CHARACTERS
        raise InvalidTaskError(f"Task too large: {source} has more than {limit:,} characters.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTaskError(f"{source} is not UTF-8 (byte {error.start}). Convert it to UTF-8.") from error


class AnswerFile:
    """The file of `-o FILE`. It is opened before anything is sent: an answer that is paid for can be written.

    An existing file keeps its content until something is written; a new one to which nothing is written is
    removed. Inside a project no link is followed; outside of one the path is used as the user gave it.
    """

    def __init__(self, path: Optional[str]) -> None:
        """Takes None or "-" for no file: standard output gets the answer anyway."""
        self._path = None if path == "-" else path
        self._descriptor: Optional[int] = None
        # The file's name, and its folder as long as the file is new and empty.
        self._name = ""
        self._new_in: Optional[Folder] = None

    def __enter__(self) -> AnswerFile:
        """Opens the file. Raises InputError."""
        if self._path is not None:
            try:
                self._open(self._path)
            except (OSError, ValueError) as error:
                raise self._unwritable(error) from error
        return self

    def _open(self, path: str) -> None:
        if is_special_output(path):
            self._descriptor = os.open(path, os.O_WRONLY)
            return
        self._name = output_path(path).name
        folder = open_output_folder(path)
        try:
            is_new = not folder.has(self._name)
            self._descriptor = folder.open(self._name, mode=PUBLIC_FILE)
        except BaseException:
            folder.close()
            raise
        if is_new:
            self._new_in = folder
        else:
            folder.close()

    def write(self, text: str) -> None:
        """Replaces the content of the file. Raises InputError."""
        if self._descriptor is None:
            return
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        self._close_folder()
        try:
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                os.ftruncate(self._descriptor, 0)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def __exit__(self, *_: Any) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            if self._new_in is not None:
                self._new_in.unlink(self._name)
                self._close_folder()

    def _close_folder(self) -> None:
        if self._new_in is not None:
            self._new_in.close()
            self._new_in = None

    def _unwritable(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"{self._path} can't be written: {reason}.")
