"""Writes to the two standard streams: results to stdout, everything about them to stderr."""

from __future__ import annotations

import os
import re
import select
import sys
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Pattern, Sequence, TextIO, cast

from .. import settings

_PREFIX = "claude-force"
_quiet = False
# All control characters except tab and line feed.
_ASCII_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), 127])


class StdoutError(Exception):
    """Stdout can't be written; for example, its disk is full."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(f"stdout can't be written: {failure.strerror}")


def set_quiet(quiet: bool) -> None:
    """Makes stderr show errors only, or everything again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Returns whether stderr shows errors only."""
    return _quiet


def prepare_streams() -> None:
    """Makes stdout and stderr accept every character (pipes get UTF-8), and opens what is closed."""
    set_quiet(False)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            encoding = None if stream.isatty() else "utf-8"
            reconfigure(encoding=encoding, errors="backslashreplace")


def _open_closed_streams() -> None:
    # The next file to be opened would get the descriptor of a closed stream, and be written to.
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", encoding="utf-8"))


def flush(code: int) -> int:
    """Flushes both streams. Returns the exit code: `code`, or 1 if stdout can't be written."""
    _flush_stderr()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as failure:
        _discard(sys.stdout)
        error(str(StdoutError(failure)), json=False)
        return 1
    return code


def discard_blocked_stdout() -> None:
    """Discards what is left for stdout if its reader has stopped reading: the command ends without it."""
    with suppress(OSError, ValueError):
        if not select.select((), (sys.stdout,), (), 0)[1]:
            _discard(sys.stdout)


def _discard(stream: TextIO) -> None:
    # The reader is gone (`| head -1`) or the disk is full. Python would try again at exit, and complain.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


def write_line(text: str = "") -> None:
    """Writes a line for people to stdout, without control characters even in a pipe. Raises StdoutError."""
    write_data(strip_control_chars(text))


def write_data(text: str) -> None:
    """Writes an answer or other data to stdout, with a newline at the end; unchanged in a pipe."""
    write_chunk(text if text.endswith("\n") else text + "\n")


def write_chunk(text: str) -> None:
    """Writes a part of an answer to stdout: `write_data` without the newline. Raises StdoutError."""
    with_stdout(lambda stdout: stdout.write(text))


def with_stdout(produce: Callable[[TextIO], Any]) -> None:
    """Calls `produce` with stdout. It ends early if the reader is gone.

    On a terminal, control characters are removed. Raises StdoutError.
    """
    stdout = _Stdout()
    try:
        produce(cast("TextIO", stdout))
        stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)


class _Stdout:
    """Stdout, whose errors can't be mistaken for those of another file."""

    def write(self, text: str) -> int:
        with _named_errors():
            return sys.stdout.write(strip_control_chars(text) if stdout_is_terminal() else text)

    def flush(self) -> None:
        with _named_errors():
            sys.stdout.flush()


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as failure:
        _discard(sys.stdout)
        raise StdoutError(failure) from failure


def status(text: str) -> None:
    """Writes a line to stderr, unless it is quiet."""
    if not _quiet:
        _write_stderr(text)


def warn(text: str) -> None:
    """Writes a warning to stderr, unless it is quiet."""
    status(f"warning: {text}")


def error(text: str, json: bool, details: Sequence[str] = ()) -> None:
    """Reports the error that ended the command: as lines on stderr, or as a JSON object on stdout."""
    if json:
        more = {"details": [redact_secrets(one) for one in details]} if details else {}
        write_json({"success": False, "error": redact_secrets(text), **more})
        return
    _write_stderr(f"error: {text}")
    for one in details:
        _write_stderr(f"- {one}")


def _write_stderr(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{_PREFIX}: {one_line(text)}\n")
    _flush_stderr()


def _flush_stderr() -> None:
    # A message that can't be written changes neither what the command does nor its exit code.
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def redact_secrets(text: str) -> str:
    """Returns `text` with the keys and passwords of the environment replaced by "***"."""
    for secret in settings.secrets():
        text = text.replace(secret, "***")
    return text


def write_json(value: Any) -> None:
    """Writes JSON to stdout, in ASCII, so that no reader can decode it wrongly."""
    write_data(json_text(value))


def json_text(value: Any) -> str:
    """Returns `value` as JSON, with the names of `UNIT_NAMES` added."""
    import json

    return json.dumps(with_unit_names(value), indent=2, default=str)


def stdout_is_terminal() -> bool:
    """Returns whether a person reads stdout."""
    return sys.stdout.isatty()


def one_line(text: str) -> str:
    """Returns `text` in one line, without secrets and control characters."""
    return strip_control_chars(" ".join(redact_secrets(str(text)).split()))


def strip_control_chars(text: str) -> str:
    """Returns `text` without characters that a terminal obeys or does not show.

    Removes control characters (except line feeds and tabs), marks that change the direction of writing, and
    invisible characters (except those that join letters).
    """
    if text.isascii():
        return text if text.isprintable() else text.translate(_ASCII_CONTROLS)
    return _control_pattern().sub("", text)


@lru_cache(maxsize=1)
def _control_pattern() -> Pattern[str]:
    return re.compile(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
        "\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    )


def can_encode(text: str, stream: Optional[TextIO] = None) -> bool:
    """Returns whether `stream` (default: stdout) can write these characters."""
    try:
        text.encode((stream or sys.stdout).encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# Names in JSON without a unit; beside each, every command adds the name with its unit.
UNIT_NAMES: Mapping[str, str] = {
    "cost": "cost_usd",
    "cost_at_most": "cost_at_most_usd",
    "cost_before": "cost_before_usd",
    "estimated_cost": "cost_usd",
    "spent": "cost_usd",
    "lost_cost": "lost_usd",
    "saved": "saved_usd",
    "saved_cost": "saved_usd",
    "prompt_cache_saving": "prompt_cache_saving_usd",
    "unpriced_at_most": "unknown_at_most_usd",
    "duration": "duration_seconds",
    "wall_seconds": "duration_seconds",
}


def with_unit_names(value: object) -> object:
    """Returns `value` with the names of `UNIT_NAMES` added where they are missing."""
    if isinstance(value, (list, tuple)):
        return [with_unit_names(one) for one in value]
    if not isinstance(value, dict):
        return value
    named: Dict[object, object] = {name: with_unit_names(one) for name, one in value.items()}
    for name, one in value.items():
        # An agent or a workflow may have such a name: only numbers are figures.
        if name in UNIT_NAMES and (one is None or isinstance(one, (int, float))):
            named.setdefault(UNIT_NAMES[name], one)
    return named
