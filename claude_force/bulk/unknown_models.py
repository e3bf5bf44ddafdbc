"""Rows that asked a model which the endpoint does not know, or which the key may not ask.

Where every row asks that model, no row can be run: the run ends, and none of them is written as failed. Where
others ask another one, these go on, and the rows of the unknown model are failed ones. Which of the two it is
shows when a row of another model is answered; until then the results are held back.
"""

from __future__ import annotations

from typing import Callable, Iterable, List, Optional, Protocol, Set, Tuple

from ..errors import InputError
from ..types import AgentResult
from .task_file import Row

RUN, MODEL = "run", "model"
ModelOf = Callable[[str], Optional[str]]
_Held = Tuple[Row, AgentResult]


class _Run(Protocol):
    def tasks(self) -> Iterable[Row]: ...


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

    def holds(self, row: Row, result: AgentResult) -> bool:
        """Whether the result is held back, as it may be that of all rows."""
        self._unknown.add(self._model(row))
        if self._is_mixed:
            return False
        self.held.append((row, result))
        return True

    def are_all_unknown(self) -> bool:
        """Whether every row asks a model that is not known."""
        if self._asked is None:
            agents = {row.agent for row in self._run.tasks() if not row.problem}
            self._asked = {self._model_of(agent) or agent for agent in agents}
        return self._asked <= self._unknown

    def released_by(self, row: Row, result: AgentResult) -> List[_Held]:
        """The results that were held back, where this one shows that another model is answered."""
        if not (result.cached or result.shared or isinstance(result.error, InputError)):
            self._answered.add(self._model(row))
        if not self.held or not self._is_mixed:
            return []
        self.held, released = [], self.held
        return released

    def _model(self, row: Row) -> str:
        return self._model_of(row.agent) or row.agent
