"""The page on security names the tests of its claims; some claims are checked in the sources."""

import ast
import re

import pytest
from pages import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/\w+\.py(?:::\w+)+)`", PAGE)))
CLAIMS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| claim")]
# What can run code that it reads, by its module or its name.
READS_CODE = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
RUNS_CODE = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"}


def named_in(path):
    """The ids of all tests in a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for one in inner:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name.startswith("test_"):
                within = f"{node.name}::" if one is not node else ""
                yield f"tests/{path.name}::{within}{one.name}"


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_page_names_is_there(name):
    assert name in named_in(ROOT / name.partition("::")[0])


def test_every_claim_names_a_test():
    assert len(CLAIMS) > 20
    assert [line for line in CLAIMS if "`tests/test_" not in line] == []


def dotted(node):
    """`os.system` for that expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def words_of(tree):
    """Names of modules that are imported, and of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call):
            yield dotted(node.func)
            if any(word.arg == "shell" for word in node.keywords):
                yield "shell="


def test_runs_no_text_and_reads_no_pickle():
    found = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in (ROOT / "claude_force").rglob("*.py")
        for word in words_of(ast.parse(path.read_text(encoding="utf-8")))
        if word in READS_CODE | RUNS_CODE | {"shell="}
    }
    assert found == set()
