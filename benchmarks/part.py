"""One part of the benchmarks: a measurement, a section of the page, and goals."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence

Found = Dict[str, Any]


class Goal(NamedTuple):
    """Something to reach; `why` it isn't, where that is known."""

    text: str
    figure: str
    reached: bool
    why: str = ""


def _no_goals(found: Found) -> Iterator[Goal]:
    return iter(())


class Part(NamedTuple):
    """`measure` returns what can be written as JSON, which is all that `page` and `goals` see of it.

    `versions` are of the packages that it depends on; `usual` parts are measured where none is named.
    """

    name: str
    title: str
    measure: Callable[[], Found]
    page: Callable[[Found], Iterable[str]]
    goals: Callable[[Found], Iterable[Goal]] = _no_goals
    versions: Sequence[str] = ("anthropic",)
    usual: bool = True


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """The median, with the lowest and the highest where there are more than one."""
    middle, low, high = (form.format(one) for one in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> List[float]:
    """Within each round, so that the machine's speed cancels out."""
    return [one / other for one, other in zip(mine, theirs)]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """In Markdown."""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
