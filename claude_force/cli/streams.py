"""The two streams: what was asked for on stdout, everything about it on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Sequence, TextIO

from .. import settings

_NAME = "claude-force"
_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether stderr gets errors only, from here on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    return _quiet


def prepare_streams() -> None:
    """A character that a stream can't show must not end the command; pipes get UTF-8."""
    be_quiet(False)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            encoding = None if stream.isatty() else "utf-8"
            reconfigure(encoding=encoding, errors="backslashreplace")


def finish(code: int) -> int:
    """Flushes stdout and returns the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as failure:
        _discard_stdout()
        error(f"stdout can't be written: {failure.strerror}", json=False)
        return 1
    return code


def _discard_stdout() -> None:
    # The reader is gone (`| head -1`). Without this Python tries once more at exit, and complains.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def out(text: str = "") -> None:
    """One piece of output on stdout, ending in a newline."""
    write(text if text.endswith("\n") else text + "\n")


def write(text: str) -> None:
    """As `out`, without a newline of its own."""
    if on_terminal():
        text = _without_controls(text)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()


def let_write(produce: Callable[[TextIO], None]) -> None:
    """Gives stdout to `produce`, which ends early where the reader is gone."""
    try:
        produce(sys.stdout)
    except BrokenPipeError:
        _discard_stdout()


def note(text: str) -> None:
    """One line on stderr, unless that is to be quiet."""
    if not _quiet:
        _say(text)


def warn(text: str) -> None:
    """A warning on stderr, likewise."""
    note(f"warning: {text}")


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
    sys.stderr.write(f"{_NAME}: {one_line(text)}\n")
    sys.stderr.flush()


def without_secrets(text: str) -> str:
    """`text`, in which no key or password of the environment can be read."""
    for secret in settings.secrets():
        text = text.replace(secret, "***")
    return text


def as_json(value: Any) -> None:
    """ASCII only, so that no encoding of the reader's can spoil it."""
    import json

    out(json.dumps(value, indent=2, default=str))


def on_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def one_line(text: str) -> str:
    """`text` as it may be shown: in one line, without secrets, and nothing that a terminal obeys."""
    return _without_controls(" ".join(without_secrets(str(text)).split()))


def _without_controls(text: str) -> str:
    # An answer can hold escape sequences; a terminal would obey them.
    return "".join(char for char in text if char in "\n\t" or (char >= " " and not "\x7f" <= char <= "\x9f"))
