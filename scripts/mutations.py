"""Every mutation of a module: those of mutmut, and statements left out or branches forced."""

from __future__ import annotations

import difflib
from typing import Dict, Iterable, Iterator, List, NamedTuple, Tuple

import libcst as cst
from mutmut.mutation import mutators

# What decides nothing while the program runs.
SKIPPED = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)
NAMED = (cst.FunctionDef, cst.ClassDef)


class Mutation(NamedTuple):
    """A module with one fault. `where` is the function, `change` the lines, as `before -> after`."""

    where: str
    change: str
    source: str


def mutations(source: str) -> List[Mutation]:
    """In the order of the text; two that give the same text are one."""
    module = cst.parse_module(source)
    finder = _Finder()
    module.visit(finder)
    found: Dict[str, Mutation] = {}
    seen: Dict[Tuple[str, str], int] = {}
    for where, node, other in finder.found:
        mutated = module.deep_replace(node, other).code
        if mutated == source or mutated in found:
            continue
        change = _change(source, mutated)
        seen[where, change] = nth = seen.get((where, change), 0) + 1
        found[mutated] = Mutation(where, f"{change} ({nth})" if nth > 1 else change, mutated)
    return list(found.values())


def _left_out(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """`f(x)` or `raise error` as a statement: nothing in its place."""
    if isinstance(node, cst.Raise) or isinstance(node.value, (cst.Call, cst.Await)):
        yield cst.Pass()


def _returned(node: cst.Return) -> Iterator[cst.CSTNode]:
    if node.value is not None and not isinstance(node.value, cst.Name):
        yield node.with_changes(value=cst.Name("None"))


def _string(node: cst.BaseString) -> Iterable[cst.CSTNode]:
    """One change is enough: that it is noticed does not depend on which."""
    return list(mutators.operator_string(node))[:1]


OPERATORS = [
    *((kind, operator) for kind, operator in mutators.mutation_operators if kind is not cst.BaseString),
    (cst.BaseString, _string),
    (cst.Expr, _left_out),
    (cst.Raise, _left_out),
    (cst.Return, _returned),
    (cst.If, mutators.operator_if_exp),
]


class _Finder(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self._names: List[str] = []
        self.found: List[Tuple[str, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, SKIPPED) or _is_of_types_only(node):
            return False
        if isinstance(node, NAMED):
            self._names.append(node.name.value)
        where = ".".join(self._names)
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.found += [(where, node, other) for other in operator(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, NAMED) and not _is_of_types_only(original_node):
            self._names.pop()


def _is_of_types_only(node: cst.CSTNode) -> bool:
    """A name for a type, such as `Prices = Mapping[str, float]`, a TypeVar, a Protocol, or their imports."""
    if isinstance(node, cst.If):
        return isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"
    if isinstance(node, cst.ClassDef):
        return any(isinstance(base.value, cst.Name) and base.value.value == "Protocol" for base in node.bases)
    value = node.value if isinstance(node, cst.Assign) else None
    if isinstance(value, cst.Call):
        return isinstance(value.func, cst.Name) and value.func.value == "TypeVar"
    generic = value.value if isinstance(value, cst.Subscript) else None
    return isinstance(generic, cst.Name) and generic.value[:1].isupper()


def _change(source: str, mutated: str) -> str:
    lines = list(difflib.ndiff(source.splitlines(), mutated.splitlines()))
    before = " ".join(line[2:].strip() for line in lines if line.startswith("- "))
    after = " ".join(line[2:].strip() for line in lines if line.startswith("+ "))
    return f"{before} -> {after}"
