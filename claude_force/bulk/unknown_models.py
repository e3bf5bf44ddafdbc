"""Rows that asked a model which the endpoint does not know, or which the key may not ask.

Where every row asks that model, no row can be run: the run ends, and none of them is written as failed. Where
others ask another one, these go on, and the rows of the unknown model are failed ones. Which of the two it is
shows when a row of another model is answered; until then the results are held back.
"""

from __future__ import annotations

from typing import Callable, Counter, Iterable, List, Optional, Protocol, Set, Tuple

from ..errors import ClaudeForceError, InputError
from ..formatting import pluralize
from ..types import AgentResult
from .results_file import OutputDisturbedError, Results
from .task_file import TaskRow

# Bytes of a line: of a token of the answer, and of all that is neither the answer nor the row's own; of a
# character, which JSON may have to escape.
_TOKEN_BYTES, _REST_BYTES = 8, 2048
_ASCII_BYTES, _OTHER_BYTES = 2, 12


class CallChecks(Protocol):
    """Tells of an agent and a task why no call can be made of them: in a few words, and in full."""

    def kind(self, agent_name: str, task: str) -> Optional[str]: ...

    def reason(self, agent_name: str, task: str) -> str: ...


class UnrunnableRows:
    """The rows that can't be run, by kind: those that can't be read, and those that are refused."""

    def __init__(self, load: Optional[Callable[[], CallChecks]] = None) -> None:
        """`load` is called for the first row that is to be run, and may raise InputError: no row can be."""
        self._load = load
        self._refusals: Optional[CallChecks] = None
        self._first: Optional[TaskRow] = None
        self._counts: Counter[str] = Counter()

    def add(self, row: TaskRow, is_done: bool) -> None:
        """`is_done`: its result is there, whatever its agent has become since."""
        kind = row.kind if row.problem is not None else self._refused(row, is_done)
        if kind is not None:
            self._first = self._first or row
            self._counts[kind] += 1

    def _refused(self, row: TaskRow, is_done: bool) -> Optional[str]:
        if self._load is None or is_done:
            kind = None
        else:
            self._refusals = self._refusals or self._load()
            kind = self._refusals.kind(row.agent, row.task)
        if kind is None:
            # One row can be run: what the others are is said when it is their turn.
            self._load = None
        return kind

    def expect_fewer_than(self, rows: int) -> None:
        """Raises InputError where no row can be run: then the file has another form, and none has failed."""
        if self._first is None or sum(self._counts.values()) < rows:
            return
        kinds = ", ".join(
            f"{pluralize(many, 'row')} with {kind}" for kind, many in self._counts.most_common()
        )
        first = self._first.problem
        if first is None and self._refusals is not None:
            reason = self._refusals.reason(self._first.agent, self._first.task)
            first = f"row {self._first.index + 1}: {reason}"
        ending = "" if str(first).endswith((".", "?")) else "."
        raise InputError(f"No row can be run: {kinds}. The first: {first}{ending}")


def changed(output: Results, how: str) -> InputError:
    return InputError(
        f"{output.path} is the output of other tasks or options: {how}. Name another file for the output, "
        "or start over with --no-resume; answers that are still the same come from the cache."
    )


def disturbed(error: OutputDisturbedError) -> ClaudeForceError:
    path = error.filename
    if error.saved is not None:
        return ClaudeForceError(
            f"{path} was removed or replaced while the run went on. All results of the run are kept in "
            f"{error.saved}: rename that file to {path}, and the same command goes on."
        )
    changed = f"{path} was changed by another program while the run went on."
    if error.is_resumable:
        return ClaudeForceError(
            f"{changed} Results that were cut off are missing from it; answers are in the cache, if it is on."
        )
    return ClaudeForceError(
        f"{changed} It may lack results, and hold lines that are none: take these out before another run. "
        "Answers are in the cache, if it is on."
    )


def no_room(output: Results, answer: int) -> ClaudeForceError:
    return ClaudeForceError(
        f"{output.path} can't be written: there is no room for an answer of {answer // 1024:,} KiB. "
        "No further row was sent. Make room on the disk, or name a file on another one."
    )


def answer_bytes(max_tokens: int) -> int:
    """How long the line of an answer can be, without what is its row's own."""
    return _REST_BYTES + _TOKEN_BYTES * max_tokens


def line_bytes(row: TaskRow, answer: int) -> int:
    """How long the line of a row can be."""
    size = answer + _text_bytes(row.echo or "")
    for field in row.fields.values():
        size += _text_bytes(str(field))
    return size


def _text_bytes(text: str) -> int:
    return len(text) * (_ASCII_BYTES if text.isascii() else _OTHER_BYTES)


def not_written(output: Results, error: OSError) -> ClaudeForceError:
    return ClaudeForceError(
        f"{output.path} can't be written: {error.strerror}. What stands in it is whole; answers that "
        "came after are in the cache, if it is on."
    )


RUN, MODEL = "run", "model"
ModelOf = Callable[[str], Optional[str]]
_Held = Tuple[TaskRow, AgentResult]


class _Run(Protocol):
    def pending_rows(self) -> Iterable[TaskRow]: ...


class UnknownModels:
    """Holds such results of one run back. `model_of` tells the model that an agent asks.

    Attributes:
        held: rows whose results are not written yet.
    """

    def __init__(self, run: _Run, model_of: ModelOf) -> None:
        self._run, self._model_of = run, model_of
        self.held: List[_Held] = []
        self._unknown: Set[str] = set()
        self._answered: Set[str] = set()
        self._asked: Optional[Set[str]] = None

    @property
    def _is_mixed(self) -> bool:
        return bool(self._answered - self._unknown)

    def holds(self, row: TaskRow, result: AgentResult) -> bool:
        """Whether the result is held back, as it may be that of all rows."""
        self._unknown.add(self._model(row))
        if self._is_mixed:
            return False
        self.held.append((row, result))
        return True

    def are_all_unknown(self) -> bool:
        """Whether every row asks a model that is not known."""
        if self._asked is None:
            agents = {row.agent for row in self._run.pending_rows() if not row.problem}
            self._asked = {self._model_of(agent) or agent for agent in agents}
        return self._asked <= self._unknown

    def released_by(self, row: TaskRow, result: AgentResult) -> List[_Held]:
        """The results that were held back, where this one shows that another model is answered."""
        if not (result.cached or result.shared or isinstance(result.error, InputError)):
            self._answered.add(self._model(row))
        if not self.held or not self._is_mixed:
            return []
        self.held, released = [], self.held
        return released

    def _model(self, row: TaskRow) -> str:
        return self._model_of(row.agent) or row.agent
