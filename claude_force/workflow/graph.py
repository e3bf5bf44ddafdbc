"""What can run when: levels, a topological order, and cycles as paths. Pure, by the standard `graphlib`."""

from __future__ import annotations

from typing import Callable, Dict, Iterable, Iterator, List, Mapping, Sequence, Set, Tuple

from graphlib import CycleError, TopologicalSorter

from .models import ForEach, Step, Workflow

Dependencies = Mapping[str, Sequence[str]]
MAX_CYCLES = 10


def levels(needs: Dependencies) -> List[Tuple[str, ...]]:
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


def cycles(needs: Dependencies) -> List[List[str]]:
    """Cycles that share no id, each as a path that ends where it began: what is needed comes later.

    Of very many the first `MOST_CYCLES`: each takes a look at the whole graph.
    """
    left: Dict[str, List[str]] = {one: [need for need in its if need in needs] for one, its in needs.items()}
    found: List[List[str]] = []
    while len(found) < MAX_CYCLES:
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


def dependents(needs: Dependencies, of: Iterable[str]) -> Set[str]:
    """All ids that need one of these, over however many others."""
    found: Set[str] = set()
    fresh = set(of)
    while fresh:
        fresh = {one for one, its in needs.items() if fresh & set(its)} - found
        found |= fresh
    return found


def to_text(workflow: Workflow) -> str:
    """A line for each step, those that can run at once with the same number before them."""
    groups = levels(workflow.needs)
    rows = [
        (str(level), _flat(step.id), _flat(step.agent), _flat(details(step)))
        for level, group in enumerate(groups, start=1)
        for step in map(workflow.step, group)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def details(step: Step) -> str:
    """What a step waits for, what it is run over, and when."""
    parts: List[str] = []
    if step.dependencies:
        parts.append(f"after {', '.join(step.dependencies)}")
    if step.foreach is not None:
        parts.append(_over(step.foreach))
    if step.when:
        parts.append(f"when {' and '.join(map(str, step.when))}")
    if step.optional:
        parts.append("optional")
    return "; ".join(parts)


def _over(foreach: ForEach) -> str:
    value = foreach.value
    if foreach.source == "list":
        return f"for each of {len(value)}"
    named = ", ".join(value) if isinstance(value, tuple) else value
    of = {"files": "of the files", "lines": "line of", "step": "that answered:", "input": "of the input"}
    return f"for each {of[foreach.source]} {named}"


def to_mermaid(workflow: Workflow) -> str:
    """A flowchart in the language of Mermaid; a dashed arrow leads to a step that has a condition."""
    arrows = (
        f"    {before} {'-.->' if step.when else '-->'} {after}" for before, after, step in _arrows(workflow)
    )
    return "\n".join(["flowchart TD", *_nodes(workflow, _mermaid_node), *arrows])


def to_dot(workflow: Workflow) -> str:
    """A directed graph in the language of Graphviz; arrows as for Mermaid."""
    arrows = (
        f"    {before} -> {after}{' [style=dashed]' if step.when else ''};"
        for before, after, step in _arrows(workflow)
    )
    head = ["digraph {", "    node [shape=box];"]
    return "\n".join([*head, *_nodes(workflow, _dot_node), *arrows, "}"])


def _names(workflow: Workflow) -> Mapping[str, str]:
    # A step may have a name that is a word of either language, such as `end`.
    return {step.id: f"s{number}" for number, step in enumerate(workflow.steps, start=1)}


def _nodes(workflow: Workflow, node: Callable[[str, List[str]], str]) -> Iterator[str]:
    names = _names(workflow)
    for step in workflow.steps:
        extra = [_over(step.foreach)] if step.foreach is not None else []
        yield node(names[step.id], list(map(_flat, (step.id, step.agent, *extra))))


def _flat(text: str) -> str:
    """`text` on one line, so that no name can stand for a further line of the picture."""
    return " ".join(str(text).split())


def _mermaid_node(name: str, lines: List[str]) -> str:
    text = "<br>".join(
        line.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
        for line in lines
    )
    return f'    {name}["{text}"]'


def _dot_node(name: str, lines: List[str]) -> str:
    text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'    {name} [label="{text}"];'


def _arrows(workflow: Workflow) -> Iterator[Tuple[str, str, Step]]:
    names = _names(workflow)
    for step in workflow.steps:
        for need in step.dependencies:
            yield names[need], names[step.id], step
