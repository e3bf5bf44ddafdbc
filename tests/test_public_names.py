"""The names that users import, and the tree of errors that they catch."""

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Dict, Optional, Set, Tuple

import pytest

import claude_force
from claude_force import errors
from claude_force.options import Options

ROOT = Path(__file__).resolve().parent.parent

PUBLIC = [
    ("claude_force", "AgentOrchestrator"),
    ("claude_force", "AgentResult"),
    ("claude_force", "AsyncAgentOrchestrator"),
    ("claude_force", "AsyncAgentResult"),
    ("claude_force", "ClaudeForceError"),
    ("claude_force.async_orchestrator", "AsyncAgentOrchestrator"),
    ("claude_force.async_orchestrator", "AsyncAgentResult"),
    ("claude_force.orchestrator", "AgentOrchestrator"),
]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_a_public_name_can_be_imported(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert inspect.isclass(found)
    assert found is getattr(claude_force, name)


BOTH = {
    *("close", "estimate", "plan", "stream_multiple", "spent_usd", "tracker"),
    *("list_agents", "list_workflows", "get_agent_info"),
    *("get_performance_summary", "get_agent_performance", "get_cost_breakdown"),
    "export_performance_metrics",
}
METHODS = {
    "AgentOrchestrator": {"run_agent", "run_multiple", "run_workflow"},
    "AsyncAgentOrchestrator": {
        *("execute_agent", "execute_multiple", "execute_workflow", "runs", "drain", "load"),
        *("check_credentials", "explain_miss", "model_of"),
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_orchestrators_show_nothing_internal(name: str) -> None:
    shown = {one for one in dir(getattr(claude_force, name)) if not one.startswith("_")}
    assert shown - {one.name for one in dataclasses.fields(Options)} == BOTH | METHODS[name]


def test_sync_methods_have_their_names() -> None:
    for name in METHODS["AgentOrchestrator"] | BOTH - {"spent_usd", "tracker"}:
        method = getattr(claude_force.AgentOrchestrator, name)
        assert (method.__qualname__, method.__module__) == (
            f"AgentOrchestrator.{name}",
            "claude_force.orchestrator",
        )


def test_sync_stream_is_an_iterator() -> None:
    shown = inspect.signature(claude_force.AgentOrchestrator.stream_multiple)
    assert shown.return_annotation == "Iterator[AgentResult]"


@pytest.mark.parametrize("name", METHODS)
def test_short_docstrings_lose_no_error(name: str) -> None:
    orchestrator = getattr(claude_force, name)
    assert "AgentNotFoundError" in orchestrator.get_agent_info.__doc__
    assert "`PerformanceTracker.get_cost_breakdown`" in orchestrator.get_cost_breakdown.__doc__


def test_dir_lists_the_public_names() -> None:
    assert dir(claude_force) == sorted(claude_force.__all__)


@pytest.mark.parametrize("name", claude_force.__all__)
def test_every_listed_name_exists(name: str) -> None:
    assert getattr(claude_force, name) is not None


def names_of_typing_api() -> Set[Tuple[str, str]]:
    tree = ast.parse((ROOT / "tests" / "typing_api.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "", alias.name) for node in imports for alias in node.names}


def names_of_the_reference() -> Set[Tuple[str, str]]:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    return set(re.findall(r"^`from ([\w.]+) import (\w+)`$", page, re.M))


def test_typing_file_covers_reference() -> None:
    listed = {("claude_force", name) for name in claude_force.__all__}
    # Functions of a module that the file takes as a whole.
    faults = {(module, name) for module, name in names_of_the_reference() if module.endswith(".faults")}
    assert len(faults) > 5
    assert listed | (names_of_the_reference() - faults) <= names_of_typing_api()


def test_unknown_name_is_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        claude_force.NoSuchName  # noqa: B018


def test_the_async_result_is_the_result() -> None:
    assert claude_force.AsyncAgentResult is claude_force.AgentResult


def drawn_tree() -> Dict[str, Tuple[Optional[str], Optional[str]]]:
    """Each class that the docstring of `errors` draws, with its parent and its second base."""
    tree: Dict[str, Tuple[Optional[str], Optional[str]]] = {"ClaudeForceError": (None, None)}
    open_branches = [(-1, "ClaudeForceError")]
    for line in (errors.__doc__ or "").splitlines():
        entry = re.match(r"(?P<indent>[ |]*)\+- (?P<name>\w+)(?: \(also (?P<also>\w+)\))?", line)
        if entry is None:
            continue
        column = len(entry["indent"])
        while open_branches[-1][0] >= column:
            open_branches.pop()
        tree[entry["name"]] = (open_branches[-1][1], entry["also"])
        open_branches.append((column, entry["name"]))
    return tree


def error_classes() -> Dict[str, type]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }


def test_error_tree_lists_every_error() -> None:
    assert sorted(drawn_tree()) == sorted(error_classes())


@pytest.mark.parametrize("name", sorted(error_classes()))
def test_error_tree_shows_bases(name: str) -> None:
    parent, also = drawn_tree()[name]
    expected = [getattr(errors, parent)] if parent else [Exception]
    if also:
        expected.append(getattr(builtins, also))
    assert list(error_classes()[name].__bases__) == expected
