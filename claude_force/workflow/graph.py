"""The graph of a workflow: its levels and cycles, and pictures as text, Mermaid and Graphviz. Pure."""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, List, Mapping, Sequence, Set, Tuple

from graphlib import CycleError, TopologicalSorter

from .models import ForEach, Step, Workflow

# The ids that each step waits for.
Dependencies = Mapping[str, Sequence[str]]
MAX_CYCLES = 10


def levels(dependencies: Dependencies) -> List[Tuple[str, ...]]:
    """Returns the ids in groups, each of which depends on earlier groups only; the shortest such list.

    Within a group the ids have the order of `dependencies`. Raises CycleError.
    """
    sorter = TopologicalSorter(dependencies)
    sorter.prepare()
    found, position = [], {identity: number for number, identity in enumerate(dependencies)}
    while sorter.is_active():
        ready = tuple(sorted(sorter.get_ready(), key=position.__getitem__))
        found.append(ready)
        sorter.done(*ready)
    return found


def cycles(dependencies: Dependencies) -> List[List[str]]:
    """Returns cycles that share no id, each as a path that ends where it began: dependencies come later.

    At most `MAX_CYCLES`, as each takes a look at the whole graph.
    """
    rest: Mapping[str, Sequence[str]] = dependencies
    found: List[List[str]] = []
    while len(found) < MAX_CYCLES:
        rest = {identity: [one for one in of if one in rest] for identity, of in rest.items()}
        try:
            TopologicalSorter(rest).prepare()
            return found
        except CycleError as error:
            # graphlib names a dependency before what depends on it.
            path = list(reversed(error.args[1]))
            found.append(path)
            rest = {identity: of for identity, of in rest.items() if identity not in path}
    return found


def dependents(dependencies: Dependencies, of: Iterable[str]) -> Set[str]:
    """Returns all ids that depend on one of these, directly or not."""
    found: Set[str] = set()
    fresh = set(of)
    while fresh:
        fresh = {identity for identity, needed in dependencies.items() if fresh & set(needed)} - found
        found |= fresh
    return found


def to_text(workflow: Workflow) -> str:
    """Returns a line per step; steps that can run at once begin with the same number."""
    rows = [
        (str(level), _flat(step.id), _flat(step.agent), _flat(details(step)))
        for level, group in enumerate(levels(workflow.needs), start=1)
        for step in map(workflow.step, group)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def details(step: Step) -> str:
    """Returns what a step waits for, what it is run for, and when."""
    parts: List[str] = []
    if step.dependencies:
        parts.append(f"after {', '.join(step.dependencies)}")
    if step.foreach is not None:
        parts.append(_describe(step.foreach))
    if step.when:
        parts.append(f"when {' and '.join(map(str, step.when))}")
    if step.tools is not None:
        parts.append(f"tools {', '.join(step.tools) or 'none'}")
    if step.optional:
        parts.append("optional")
    return "; ".join(parts)


def _describe(foreach: ForEach) -> str:
    value = foreach.value
    if foreach.source == "list":
        return f"for each of {len(value)}"
    named = ", ".join(value) if isinstance(value, tuple) else value
    of = {"files": "of the files", "lines": "line of", "step": "that answered:", "input": "of the input"}
    return f"for each {of[foreach.source]} {named}"


def to_mermaid(workflow: Workflow) -> str:
    """Returns a Mermaid flowchart; a dashed arrow leads to a step that has a condition."""
    arrows = (
        f"    {before} {'-.->' if step.when else '-->'} {after}" for before, after, step in _arrows(workflow)
    )
    return "\n".join(["flowchart TD", *_nodes(workflow, _mermaid_node), *arrows])


def to_dot(workflow: Workflow) -> str:
    """Returns a directed graph for Graphviz, with the arrows of `to_mermaid`."""
    arrows = (
        f"    {before} -> {after}{' [style=dashed]' if step.when else ''};"
        for before, after, step in _arrows(workflow)
    )
    head = ["digraph {", "    node [shape=box];"]
    return "\n".join([*head, *_nodes(workflow, _dot_node), *arrows, "}"])


def _node_names(workflow: Workflow) -> Mapping[str, str]:
    # The id of a step may be a keyword of either language, such as `end`.
    return {step.id: f"s{number}" for number, step in enumerate(workflow.steps, start=1)}


def _nodes(workflow: Workflow, node: Callable[[str, List[str]], str]) -> Iterator[str]:
    names = _node_names(workflow)
    for step in workflow.steps:
        extra = [_describe(step.foreach)] if step.foreach is not None else []
        yield node(names[step.id], list(map(_flat, (step.id, step.agent, *extra))))


def _flat(text: str) -> str:
    """Returns `text` on one line, so that no name can add a line to the picture."""
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
    names = _node_names(workflow)
    for step in workflow.steps:
        for needed in step.dependencies:
            yield names[needed], names[step.id], step
