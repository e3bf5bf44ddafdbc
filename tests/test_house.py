"""The rules that keep the package easy to walk through, checked on its sources."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "claude_force"

# Imports point from a later row to an earlier one.
ROWS = (
    "formatting",
    "lazy_pattern",
    "agent_types",
    "errors",
    "media_tokens",
    "conversation",
    "types",
    "settings",
    "costs",
    "storage",
    "agents",
    "tools",
    "cache",
    "transport",
    "limits",
    "response_cache",
    "tool_options",
    "options",
    "engine",
    "ledger",
    "performance_tracker",
    "report",
    "durable",
    "bulk",
    "tool_runs",
    "call_runner",
    "workflow",
    "async_orchestrator",
    "loop_thread",
    "orchestrator",
    "testing",
    "integrations",
    "cli",
    "__main__",
)
GROUND_FLOOR = ("errors", "types", "settings")
NARROW = {"testing": GROUND_FLOOR}

MAX_ROOT_DOCUMENTS = 4
HEAVY = ("anthropic", "pydantic", "rich", "yaml", "aiohttp", "dbos", "sqlalchemy", "psycopg")


@dataclass(frozen=True)
class Module:
    """One source file, under the dotted name that it is imported by."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def row(self) -> str:
        """The name right below the package; "" for the package's own `__init__.py`."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


class Import(NamedTuple):
    """That `module` imports `target`, a dotted name; `place` is the line."""

    module: Module
    target: str
    place: str


def load(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(name, path, text, ast.parse(text, str(path)))


@pytest.fixture(scope="module")
def modules() -> Dict[str, Module]:
    found = [load(path) for path in sorted((ROOT / PACKAGE).rglob("*.py"))]
    return {module.name: module for module in found}


def expect_none(offenders: List[str], rule: str) -> None:
    if offenders:
        pytest.fail("\n  ".join([rule, *sorted(offenders)]), pytrace=False)


def imports_of(module: Module) -> Iterator[Tuple[str, List[str], ast.AST]]:
    """Each import as (absolute name, names taken from it, node), wherever in the file it stands."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], node
        elif isinstance(node, ast.ImportFrom):
            yield absolute(module, node), [alias.name for alias in node.names], node
        elif isinstance(node, ast.Call):
            name = named_import(node)
            if name:
                yield name, [], node


def named_import(node: ast.Call) -> Optional[str]:
    """The name in `import_module("name")` or `__import__("name")`."""
    if dotted(node.func).split(".")[-1] not in ("import_module", "__import__") or not node.args:
        return None
    name = node.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join(base + ([node.module] if node.module else []))


def dotted(node: ast.AST) -> str:
    """`os.environ` for that expression; "" for what is not a chain of names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def inner_imports(modules: Dict[str, Module]) -> Iterator[Import]:
    """Imports of the package's own modules. The root is left out: loading lazily is all that it does."""
    for module in modules.values():
        if module.name == PACKAGE:
            continue
        for source, names, node in imports_of(module):
            if source.split(".")[0] != PACKAGE:
                continue
            for name in names or [""]:
                submodule = f"{source}.{name}"
                yield Import(module, submodule if submodule in modules else source, module.at(node))


def row_of(name: str) -> str:
    return name.partition(".")[2].partition(".")[0]


def test_every_module_has_its_row(modules: Dict[str, Module]) -> None:
    rows = {module.row for module in modules.values()} - {""}
    expect_none(sorted(rows - set(ROWS)), "Give these a row in ROWS, where the layout puts them:")


def test_imports_point_upwards(modules: Dict[str, Module]) -> None:
    order = {row: number for number, row in enumerate(ROWS)}
    offenders = []
    for found in inner_imports(modules):
        source, target = found.module.row, row_of(found.target)
        if target and source != target and order.get(source, 0) <= order.get(target, len(ROWS)):
            offenders.append(f"{found.place}: {found.module.name} imports {found.target}")
    expect_none(offenders, "These import a module of a later row:")


def test_some_rows_see_only_the_ground_floor(modules: Dict[str, Module]) -> None:
    offenders = [
        f"{found.place}: {found.module.name} imports {found.target}"
        for found in inner_imports(modules)
        if found.module.row in NARROW
        and row_of(found.target) not in ("", found.module.row, *NARROW[found.module.row])
    ]
    expect_none(offenders, f"These may import only {', '.join(GROUND_FLOOR)}:")


def test_imports_name_their_module(modules: Dict[str, Module]) -> None:
    offenders = []
    for module in modules.values():
        if module.name == PACKAGE:
            continue
        for source, names, node in imports_of(module):
            public = [name for name in names if name != "__version__" and f"{PACKAGE}.{name}" not in modules]
            if source == PACKAGE and public:
                offenders.append(f"{module.at(node)}: {', '.join(public)}")
    expect_none(offenders, f"These take from `{PACKAGE}` what has a module of its own:")


def test_imports_form_no_cycle(modules: Dict[str, Module]) -> None:
    arrows: Dict[str, Set[str]] = {name: set() for name in modules}
    for found in inner_imports(modules):
        arrows[found.module.name].add(found.target)
    cycle = find_cycle(arrows)
    expect_none([" -> ".join(cycle)] if cycle else [], "These modules import each other:")


def find_cycle(arrows: Dict[str, Set[str]]) -> Optional[List[str]]:
    done: Set[str] = set()

    def follow(name: str, trail: List[str]) -> Optional[List[str]]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return None
        for target in sorted(arrows.get(name, ())):
            cycle = follow(target, [*trail, name])
            if cycle:
                return cycle
        done.add(name)
        return None

    return next(filter(None, (follow(name, []) for name in sorted(arrows))), None)


def test_one_file_imports_the_sdk(modules: Dict[str, Module]) -> None:
    offenders = [
        module.at(node)
        for module in modules.values()
        if module.name != f"{PACKAGE}.transport.sdk"
        for source, _, node in imports_of(module)
        if source.split(".")[0] == "anthropic"
    ]
    expect_none(offenders, "Only transport/sdk.py may import anthropic:")


def test_one_file_reads_the_environment(modules: Dict[str, Module]) -> None:
    readers = ("environ", "environb", "getenv", "getenvb")
    offenders = []
    for module in modules.values():
        if module.name == f"{PACKAGE}.settings":
            continue
        offenders += [
            module.at(node)
            for node in ast.walk(module.tree)
            if dotted(node) in {f"os.{reader}" for reader in readers}
        ]
        offenders += [
            module.at(node)
            for source, names, node in imports_of(module)
            if source == "os" and set(names) & set(readers)
        ]
    expect_none(offenders, "Only settings.py may read the environment:")


def test_the_library_does_not_print(modules: Dict[str, Module]) -> None:
    offenders = [
        module.at(node)
        for module in modules.values()
        if module.row != "cli"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]
    expect_none(offenders, "The library logs; only cli/ may print:")


def test_no_error_is_swallowed(modules: Dict[str, Module]) -> None:
    offenders = [
        module.at(node) for module in modules.values() for node in ast.walk(module.tree) if swallows(node)
    ]
    expect_none(offenders, "These catch every exception and do nothing about it:")


def swallows(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return is_broad(node.type) and all(is_nothing(statement) for statement in node.body)
    if isinstance(node, ast.Call) and dotted(node.func) in ("suppress", "contextlib.suppress"):
        return any(map(is_broad, node.args))
    return False


def is_broad(caught: Optional[ast.AST]) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(is_broad, caught.elts))
    return caught is None or dotted(caught) in ("Exception", "BaseException")


def is_nothing(statement: ast.stmt) -> bool:
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant or isinstance(statement, (ast.Pass, ast.Continue))


def test_few_documents_lie_at_the_root() -> None:
    documents = [path.name for path in ROOT.iterdir() if path.suffix.lower() == ".md"]
    if len(documents) > MAX_ROOT_DOCUMENTS:
        expect_none(
            documents, f"At most {MAX_ROOT_DOCUMENTS} markdown files lie at the root; others go to docs/:"
        )


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this folder is not under version control")
def test_sdist_has_every_folder() -> None:
    kept = subprocess.check_output(["git", "ls-files"], cwd=str(ROOT), text=True).split("\n")
    folders = {"/" + name.split("/")[0] for name in kept if "/" in name}
    packed = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("targets.sdist]")[2].partition("]")[0]
    )
    offenders = sorted(folders - set(re.findall(r'"(/[^"]+)"', packed)))
    expect_none(offenders, "pyproject.toml does not name these among what is published:")


def test_import_loads_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules); import claude_force; "
        f"print(*sorted((set(sys.modules) - before) & set({HEAVY!r})))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=str(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    expect_none(answer.stdout.split(), "`import claude_force` loads these:")
