"""The two streams: what was asked for on stdout, everything about it on stderr."""

from __future__ import annotations

import os
import re
import select
import sys
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Pattern, Sequence, TextIO, cast

from .. import settings

_NAME = "claude-force"
_quiet = False
# Control characters but tabs and line feeds.
_ASCII_ORDERS = dict.fromkeys([*range(9), *range(11, 32), 127])


class StdoutError(Exception):
    """What was asked for can't be written: the disk that stdout goes to is full, for example."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(f"stdout can't be written: {failure.strerror}")


def set_quiet(quiet: bool) -> None:
    """Whether stderr gets errors only, from here on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    return _quiet


def prepare_streams() -> None:
    """Makes of them streams that take every character: pipes get UTF-8. What is closed is nowhere."""
    set_quiet(False)
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            encoding = None if stream.isatty() else "utf-8"
            reconfigure(encoding=encoding, errors="backslashreplace")


def _open_what_is_closed() -> None:
    # Else the next file to be opened would take the place of one of them, and get what it gets.
    for name, way in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, way)
            setattr(sys, name, os.fdopen(descriptor, "r" if way == os.O_RDONLY else "w", encoding="utf-8"))


def finish(code: int) -> int:
    """Flushes both streams and returns the exit code."""
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
    # Nobody reads it (`| head -1`), or its disk is full. Python would try once more at exit, and complain.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


def write(text: str = "") -> None:
    """Text for people on stdout, ending in a newline: without orders to a terminal, in a pipe too."""
    data(harmless(text))


def data(text: str) -> None:
    """An answer, or another piece of data, on stdout, ending in a newline: in a pipe it stays as it is."""
    write_raw(text if text.endswith("\n") else text + "\n")


def write_raw(text: str) -> None:
    """As `data`, without a newline of its own. Raises StdoutError."""
    let_write(lambda stdout: stdout.write(text))


def let_write(produce: Callable[[TextIO], Any]) -> None:
    """Gives stdout to `produce`, which ends early where the reader is gone.

    On a terminal, what is written loses whatever the terminal would obey. Raises StdoutError.
    """
    stdout = _Stdout()
    try:
        produce(cast("TextIO", stdout))
        stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)


class _Stdout:
    """Its errors can't be taken for those of another file."""

    def write(self, text: str) -> int:
        with _checked():
            return sys.stdout.write(harmless(text) if on_terminal() else text)

    def flush(self) -> None:
        with _checked():
            sys.stdout.flush()


@contextmanager
def _checked() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as failure:
        _discard(sys.stdout)
        raise StdoutError(failure) from failure


def status(text: str) -> None:
    """One line on stderr, unless that is to be quiet."""
    if not _quiet:
        _say(text)


def warn(text: str) -> None:
    """A warning on stderr, likewise."""
    status(f"warning: {text}")


def error(text: str, json: bool, details: Sequence[str] = ()) -> None:
    """What ended the command: a line on stderr and one for each detail, or an object on stdout."""
    if json:
        more = {"details": [without_secrets(one) for one in details]} if details else {}
        as_json({"success": False, "error": without_secrets(text), **more})
        return
    _say(f"error: {text}")
    for one in details:
        _say(f"- {one}")


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{_NAME}: {one_line(text)}\n")
    _flush_stderr()


def _flush_stderr() -> None:
    # What can be told to nobody changes nothing of what the command does, or of its exit code.
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def without_secrets(text: str) -> str:
    """`text`, in which no key or password of the environment can be read."""
    for secret in settings.secrets():
        text = text.replace(secret, "***")
    return text


def as_json(value: Any) -> None:
    """Writes JSON in ASCII only, so that no encoding of the reader's can spoil it."""
    data(json_text(value))


def json_text(value: Any) -> str:
    """JSON with the one name of each figure beside its older ones."""
    import json

    return json.dumps(with_one_name(value), indent=2, default=str)


def on_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def one_line(text: str) -> str:
    """`text` as it may be shown: in one line, without secrets, and nothing that a terminal obeys."""
    return harmless(" ".join(without_secrets(str(text)).split()))


def harmless(text: str) -> str:
    """`text` without what a terminal obeys or does not show.

    Left out are control characters but line feeds and tabs, marks that change the direction of writing, and
    invisible characters but those that join letters.
    """
    if text.isascii():
        return text if text.isprintable() else text.translate(_ASCII_ORDERS)
    return _orders().sub("", text)


@lru_cache(maxsize=1)
def _orders() -> Pattern[str]:
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


# An older name, and the one that says the unit too.
NAMES: Mapping[str, str] = {
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


def with_one_name(value: object) -> object:
    """Returns `value` with the one name of each figure that has an older one, where it is missing."""
    if isinstance(value, (list, tuple)):
        return [with_one_name(one) for one in value]
    if not isinstance(value, dict):
        return value
    named: Dict[object, object] = {name: with_one_name(one) for name, one in value.items()}
    for name, one in value.items():
        # An agent or a workflow of such a name is no figure.
        if name in NAMES and (one is None or isinstance(one, (int, float))):
            named.setdefault(NAMES[name], one)
    return named
