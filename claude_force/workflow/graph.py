"""What can run when: levels, a topological order, and cycles as paths. Pure, by the standard `graphlib`."""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from graphlib import CycleError, TopologicalSorter

Needs = Mapping[str, Sequence[str]]
MOST_CYCLES = 10


def levels(needs: Needs) -> List[Tuple[str, ...]]:
    """The ids in groups, each of which needs only what stands in groups before it; the shortest such list.

    Within a group the ids stand in the order of `needs`. Raises CycleError.
    """
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    found, place = [], {identity: number for number, identity in enumerate(needs)}
    while sorter.is_active():
        ready = tuple(sorted(sorter.get_ready(), key=place.__getitem__))
        found.append(ready)
        sorter.done(*ready)
    return found


def cycles(needs: Needs) -> List[List[str]]:
    """Cycles that share no id, each as a path that ends where it began: what is needed comes later.

    Of very many the first `MOST_CYCLES`: each takes a look at the whole graph.
    """
    left: Dict[str, List[str]] = {one: [need for need in its if need in needs] for one, its in needs.items()}
    found: List[List[str]] = []
    while len(found) < MOST_CYCLES:
        try:
            TopologicalSorter(left).prepare()
            return found
        except CycleError as error:
            # graphlib names each before the one that needs it.
            path = list(reversed(error.args[1]))
            found.append(path)
            for one in path:
                left.pop(one, None)
            left = {one: [need for need in its if need in left] for one, its in left.items()}
    return found


def dependents(needs: Needs, of: Iterable[str]) -> Set[str]:
    """All ids that need one of these, over however many others."""
    found: Set[str] = set()
    fresh = set(of)
    while fresh:
        fresh = {one for one, its in needs.items() if fresh & set(its)} - found
        found |= fresh
    return found
