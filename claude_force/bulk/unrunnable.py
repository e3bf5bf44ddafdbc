"""Rows that can't be run: unreadable and invalid rows, and rows whose model is unknown. Pure."""

from __future__ import annotations

from typing import Callable, Counter, Iterable, List, Optional, Protocol, Set, Tuple

from ..errors import InputError
from ..formatting import pluralize
from ..types import AgentResult
from .task_file import TaskRow

# Returns the model of an agent; None where the agent can't be called.
ModelOf = Callable[[str], Optional[str]]
_Withheld = Tuple[TaskRow, AgentResult]


class CallChecks(Protocol):
    """Says why no call can be made of an agent and a task: `kind` in a few words, `reason` in full."""

    def kind(self, agent_name: str, task: str) -> Optional[str]: ...

    def reason(self, agent_name: str, task: str) -> str: ...


class UnrunnableRows:
    """Counts the rows that can't be run, by kind, until one is found that can.

    `load` is called for the first row that is to be run. It may raise InputError where no row can be.
    """

    def __init__(self, load: Optional[Callable[[], CallChecks]] = None) -> None:
        self._load = load
        self._checks: Optional[CallChecks] = None
        self._first: Optional[TaskRow] = None
        self._counts: Counter[str] = Counter()

    def add(self, row: TaskRow, is_saved: bool) -> None:
        """Adds a row. If it `is_saved`, it has its result, even if its agent can't be run any more."""
        kind = row.kind if row.problem is not None else self._check(row, is_saved)
        if kind is not None:
            self._first = self._first or row
            self._counts[kind] += 1

    def _check(self, row: TaskRow, is_saved: bool) -> Optional[str]:
        kind = None
        if self._load is not None and not is_saved:
            self._checks = self._checks or self._load()
            kind = self._checks.kind(row.agent, row.task)
        if kind is None:
            # A row can be run, so the others fail one by one.
            self._load = None
        return kind

    def expect_fewer_than(self, rows: int) -> None:
        """Raises InputError where none of the `rows` can be run: the file has another form then."""
        if self._first is None or sum(self._counts.values()) < rows:
            return
        kinds = ", ".join(
            f"{pluralize(many, 'row')} with {kind}" for kind, many in self._counts.most_common()
        )
        first = self._first.problem
        if first is None and self._checks is not None:
            reason = self._checks.reason(self._first.agent, self._first.task)
            first = f"row {self._first.index + 1}: {reason}"
        ending = "" if str(first).endswith((".", "?")) else "."
        raise InputError(f"No row can be run: {kinds}. The first: {first}{ending}")


class UnknownModels:
    """Withholds results of rows whose model the endpoint does not know, or the key may not use.

    Where every row asks for such a model, the run ends and no row is recorded as failed. Where rows of other
    models are answered, only the rows of the unknown one have failed. Which of the two it is shows with the
    first answer of another model; until then results are withheld. `rows` returns the rows of the run.

    Attributes:
        withheld: rows whose results are not written yet.
    """

    def __init__(self, rows: Callable[[], Iterable[TaskRow]], model_of: ModelOf) -> None:
        self._rows, self._model_of = rows, model_of
        self.withheld: List[_Withheld] = []
        self._unknown: Set[str] = set()
        self._answered: Set[str] = set()
        self._all: Optional[Set[str]] = None

    @property
    def _is_mixed(self) -> bool:
        return bool(self._answered - self._unknown)

    def withhold(self, row: TaskRow, result: AgentResult) -> bool:
        """Withholds a result whose error all rows may meet; returns whether it did."""
        self._unknown.add(self._model(row))
        if self._is_mixed:
            return False
        self.withheld.append((row, result))
        return True

    def are_all_unknown(self) -> bool:
        """Returns whether every row asks for an unknown model."""
        if self._all is None:
            agents = {row.agent for row in self._rows() if not row.problem}
            self._all = {self._model_of(agent) or agent for agent in agents}
        return self._all <= self._unknown

    def release(self, row: TaskRow, result: AgentResult) -> List[_Withheld]:
        """Returns the withheld results, once `result` shows that another model is answered."""
        if not (result.cached or result.shared or isinstance(result.error, InputError)):
            self._answered.add(self._model(row))
        if not self.withheld or not self._is_mixed:
            return []
        self.withheld, released = [], self.withheld
        return released

    def _model(self, row: TaskRow) -> str:
        return self._model_of(row.agent) or row.agent
