"""What looks for a regular expression in the bytes of files: RE2, ripgrep, or Python in a process of its own.

They get bytes and no paths, and so can't leave the workspace. RE2 (the package google-re2) takes time in
proportion to the text, needs no other process, and lets the other threads go on meanwhile. ripgrep is the
next choice. Python's own expressions may take for ever, so they run in a process that can be killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Type

from . import pattern_worker
from .pattern_worker import Lines, matched_lines, matched_parts, matched_spans
from .regex_syntax import PYTHON, RE2, RE2_ASCII, Dialect, PatternError, translate
from .tree_walk import Deadline

# Of the automaton that RE2 builds; beyond it, it searches in a slower way.
_RE2_MEMORY = 32 * 1024 * 1024
_WINDOW, _MOST_WINDOW = 128 * 1024, 8 * 1024 * 1024
_FAST_SECONDS = 0.25
_BATCH = 8 * 1024 * 1024
_POLL_SECONDS = 0.1
# Not those of PATH: one of them may be in a project, whose programs are not started.
_PROGRAM_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin", "/run/current-system/sw/bin")
_MOST_ERROR = 4000
# Of one line; more than a result shows.
_MOST_PARTS = 20_000
# All bytes are text.
_RIPGREP_OPTIONS = ("-a", "-n", "-E", "none")


class Query(NamedTuple):
    """What is looked for.

    Attributes:
        pattern: in the syntax of ripgrep.
        spans_lines: whether a match may span lines, and `.` matches line ends.
    """

    pattern: str
    ignores_case: bool = False
    spans_lines: bool = False

    def for_engine(self, dialect: Dialect) -> str:
        """The expression for an engine. Raises PatternError."""
        flags = "m" + "i" * self.ignores_case + "s" * self.spans_lines
        return f"(?{flags}){translate(self.pattern, dialect, self.spans_lines)}"


class Engine(Protocol):
    """One way to search.

    Attributes:
        batch_bytes: how much text one call of `search` should have.
    """

    batch_bytes: int

    def __init__(self, query: Query, deadline: Deadline) -> None:
        """Raises PatternError."""

    @staticmethod
    def serves(query: Query) -> bool:
        """Whether it is there, and can do this."""

    def search(self, texts: Sequence[bytes], most: Optional[int]) -> List[Lines]:
        """The first and last lines, from 0, of the matches in each text, or of the first `most` of them.

        Raises PatternError, ToolError.
        """

    def parts(self, lines: Sequence[bytes]) -> List[List[bytes]]:
        """The parts of each line that match. Raises as `search` does."""


class Re2Engine:
    """RE2, in this thread."""

    batch_bytes = 0

    def __init__(self, query: Query, deadline: Deadline) -> None:
        self._deadline = deadline
        self._find = matched_spans if query.spans_lines else matched_lines
        self._compiled = _compile_re2(query)

    @staticmethod
    def serves(query: Query) -> bool:
        return _re2() is not None

    def search(self, texts: Sequence[bytes], most: Optional[int]) -> List[Lines]:
        found = []
        for text in texts:
            self._deadline.check()
            found.append(self._find(self._search, text, most))
        return found

    def parts(self, lines: Sequence[bytes]) -> List[List[bytes]]:
        return [matched_parts(self._search, line, _MOST_PARTS) for line in lines]

    def _search(self, text: bytes, place: int) -> Any:
        """Finds the first match from `place` on, in windows of the text, to see the deadline between them.

        The worst expressions take two seconds for a window of the first size, so only fast ones get larger
        ones. A match that is longer than a quarter of its window can be missed. Anchors look beyond it.
        """
        size = _WINDOW
        while len(text) - place > size:
            begin = time.monotonic()
            match = self._compiled.search(text, place, place + size)
            self._deadline.check()
            if match is not None:
                is_cut = match.end() == place + size
                return self._compiled.search(text, match.start(), place + 2 * size) if is_cut else match
            is_fast = time.monotonic() - begin < _FAST_SECONDS
            if is_fast and size < _MOST_WINDOW:
                size *= 4
            else:
                place += size - size // 4
                size = size if is_fast else _WINDOW
        return self._compiled.search(text, place)


class RipgrepEngine:
    """ripgrep, which reads the texts from its standard input. Not for matches that span lines."""

    batch_bytes = _BATCH

    def __init__(self, query: Query, deadline: Deadline) -> None:
        self._deadline = deadline
        try:
            query.for_engine(PYTHON)
        except PatternError as error:
            # Another text than ripgrep's: only Python can't do that.
            if str(error).startswith("rg: "):
                raise
        self._command = [_ripgrep() or "rg", "--no-config", "--color=never", *_RIPGREP_OPTIONS]
        self._query = ["-i"] * query.ignores_case + ["-e", query.pattern, "--", "-"]

    @staticmethod
    def serves(query: Query) -> bool:
        return not query.spans_lines and _ripgrep() is not None

    def search(self, texts: Sequence[bytes], most: Optional[int]) -> List[Lines]:
        whole = [text if text.endswith(b"\n") or not text else text + b"\n" for text in texts]
        answer = self._run(["--max-columns=1"], b"".join(whole))
        numbers = iter([int(line.partition(b":")[0]) - 1 for line in answer])
        number = next(numbers, None)
        first, found = 0, []
        for text in whole:
            end = first + text.count(b"\n")
            lines: Lines = []
            while number is not None and number < end:
                lines.append((number - first, number - first))
                number = next(numbers, None)
            found.append(lines)
            first = end
        return found

    def parts(self, lines: Sequence[bytes]) -> List[List[bytes]]:
        found: List[List[bytes]] = [[] for _ in lines]
        for line in self._run(["-o"], b"".join(line + b"\n" for line in lines)):
            number, _, part = line.partition(b":")
            if part:
                found[int(number) - 1].append(part)
        return found

    def _run(self, options: Sequence[str], data: bytes) -> List[bytes]:
        """The lines of the answer, each with a number and a colon at its beginning."""
        code, out, err = run_bounded([*self._command, *options, *self._query], data, self._deadline)
        if code > 1:
            text = err.decode("utf-8", "replace").strip()[:_MOST_ERROR]
            raise PatternError(text or f"rg: exit code {code}")
        return [line for line in out.split(b"\n") if line]


class PythonEngine:
    """Python's expressions, in a process of their own."""

    batch_bytes = _BATCH

    def __init__(self, query: Query, deadline: Deadline) -> None:
        self._deadline = deadline
        self._pattern, self._finds = query.for_engine(PYTHON), "spans" if query.spans_lines else "lines"
        self._command = [sys.executable, "-I", "-S", str(Path(pattern_worker.__file__).resolve())]

    @staticmethod
    def serves(query: Query) -> bool:
        return True

    def search(self, texts: Sequence[bytes], most: Optional[int]) -> List[Lines]:
        numbers = array("q")
        numbers.frombytes(self._run(self._finds, texts, most))
        found, place = [], 0
        for _ in texts:
            end = place + 1 + numbers[place]
            found.append([(numbers[one], numbers[one + 1]) for one in range(place + 1, end, 2)])
            place = end
        return found

    def parts(self, lines: Sequence[bytes]) -> List[List[bytes]]:
        answer = json.loads(self._run("parts", lines, _MOST_PARTS))
        return [[part.encode("utf-8", "surrogateescape") for part in parts] for parts in answer]

    def _run(self, finds: str, texts: Sequence[bytes], most: Optional[int]) -> bytes:
        head = json.dumps({"pattern": self._pattern, "finds": finds, "most": most}).encode("ascii") + b"\n"
        framed = [piece for text in texts for piece in (len(text).to_bytes(8, "big"), text)]
        code, out, _ = run_bounded(self._command, b"".join([head, *framed]), self._deadline)
        if code == pattern_worker.REFUSED:
            raise PatternError(f"The pattern can't be searched for: {out.decode('utf-8', 'replace')}")
        if code:
            raise PatternError("The search took too much memory or time. Try a simpler pattern.")
        return out


ENGINES: Tuple[Type[Engine], ...] = (Re2Engine, RipgrepEngine, PythonEngine)


def make_engine(query: Query, deadline: Deadline, engines: Sequence[Type[Engine]] = ENGINES) -> Engine:
    """The first engine that serves the query. Raises PatternError."""
    return next(engine for engine in engines if engine.serves(query))(query, deadline)


def run_bounded(command: Sequence[str], data: bytes, deadline: Deadline) -> Tuple[int, bytes, bytes]:
    """Runs a program with nothing of this process's environment. Returns its exit code and output.

    It is killed, with all that it has started, when the deadline is over. Raises ToolError.
    """
    pipe = subprocess.PIPE
    with TemporaryFile() as given:
        # Not through a pipe: `communicate` does not go on writing after a time-out.
        given.write(data)
        given.seek(0)
        # A session of its own is a group of its own, which can be killed as a whole.
        process = subprocess.Popen(
            command, stdin=given, stdout=pipe, stderr=pipe, env={}, cwd="/", start_new_session=True
        )
    try:
        out, err = _communicate(process, deadline)
    except BaseException:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, out, err


def _communicate(process: subprocess.Popen[bytes], deadline: Deadline) -> Tuple[bytes, bytes]:
    while True:
        try:
            return process.communicate(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            deadline.check()


def _compile_re2(query: Query) -> Any:
    module = _re2()
    options = module.Options()
    options.log_errors, options.max_mem = False, _RE2_MEMORY
    try:
        compiled = module.compile(query.for_engine(RE2).encode("utf-8", "replace"), options)
    except module.error:
        try:
            # The classes of Unicode are large: many repetitions of them don't fit.
            compiled = module.compile(query.for_engine(RE2_ASCII).encode("utf-8", "replace"), options)
        except module.error as error:
            reason = error.args[0] if error.args else ""
            text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            raise PatternError(f"The pattern can't be searched for: {text}") from error
    return compiled


@lru_cache(maxsize=None)
def _re2() -> Any:
    try:
        re2 = import_module("re2")
    except ImportError:
        return None
    # Other packages have this name too.
    return re2 if hasattr(re2, "Options") else None


@lru_cache(maxsize=None)
def _ripgrep() -> Optional[str]:
    """The path of ripgrep."""
    return shutil.which("rg", path=os.pathsep.join(_PROGRAM_FOLDERS))
