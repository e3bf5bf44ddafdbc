"""Put one fault at a time into the modules that decide about answers and money, and see that a test fails.

    python scripts/mutants.py [--only MODULE]

Writes the figures into docs/mutation-testing.md. Fails where no test meets a fault and nobody explains it,
and where one is explained that a test does find; then it writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mutations import Mutation, mutations

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "mutation-testing.md"
EXPLAINED = ROOT / "scripts" / "mutants.json"
BEGIN, END = "<!-- written by make mutants -->", "<!-- end -->"

# Each module, and the tests that say what it has to do; quick ones first.
TESTS: Dict[str, Tuple[str, ...]] = {
    "storage.signing": ("test_response_cache.py::TestSecret", "test_response_cache.py::TestSignature"),
    "cache.entries": tuple(
        f"test_response_cache.py::Test{part}" for part in ("Entry", "Signature", "Hit", "Forgery")
    ),
    "cache.request_key": (
        "test_request_key.py",
        "test_response_cache.py::TestKey",
        "test_cached_conversations.py",
        "test_cached_calls.py::TestAsked",
    ),
    "engine.async_cache": ("test_async_cache.py", "test_cached_conversations.py"),
    "engine.result_builder": ("test_results.py",),
    "storage.project_files": (
        *(f"test_project_files.py::Test{part}" for part in ("Reading", "Limits", "Root", "Patterns", "Race")),
        "test_folders.py",
        "test_project_files.py::TestAnyTree",
    ),
    "storage.regular_files": tuple(f"test_project_files.py::Test{part}" for part in ("Reading", "Limits")),
    "storage.private_files": tuple(
        f"test_private_files.py::Test{part}"
        for part in ("Folder", "WayToFolder", "Descriptors", "PrivateFile", "Status")
    ),
    "engine.retry": ("test_retry.py",),
    "limits.rate_limiter": ("test_rate_limiter.py::TestBucket", "test_rate_limiter.py::TestRateLimiter"),
    "limits.aimd": ("test_aimd.py::TestConcurrencyLimit",),
    "limits.admission": ("test_admission.py",),
    "limits.budget": ("test_budget.py::TestBudget",),
    "engine.agent_loop": ("test_agent_loop.py",),
}

# Of these modules the parts that decide what is read and written, by the beginnings of their names.
PARTS: Dict[str, Tuple[str, ...]] = {
    "storage.project_files": (
        *("_Walk.", "ProjectFiles.below", "ProjectFiles.fence", "ProjectFiles._is_repository"),
        *("ProjectFiles.reach",),
    ),
    "storage.regular_files": ("refuse_irregular", "checked_descriptor", "read_all"),
    "storage.private_files": (
        *("Folder._enter", "Folder.open", "Folder.read", "_open_regular", "_open_existing", "_make_file"),
        *("expect_", "_refuse_link", "_truncate_if", "_naming", "_Target", "check_database"),
    ),
}

OUTCOMES = ("killed", "timed out", "survived")
ROW = re.compile(r"^\| `([\w.]+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.M)
AT_ONCE = os.cpu_count() or 1
# Imported once, before the first fork: what takes long and has no fault in it.
SLOW_IMPORTS = ("pytest", "hypothesis.strategies", "anthropic", "aiohttp.web", "genai_prices", "tenacity")
PLUGINS = ("_hypothesis_pytestplugin", "pytest_asyncio.plugin")
MOST_MEMORY = 4 << 30
# A fault may hang what it is in.
LONGEST, TIMES_AS_LONG = 30.0, 6.0


class Verdict(NamedTuple):
    """How the tests took one mutation: killed, timed out, or survived."""

    module: str
    mutation: Mutation
    outcome: str


class Trial(NamedTuple):
    """A process that runs tests on one mutation."""

    module: str
    mutation: Mutation
    folder: str
    ends: float


class Injected(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source than its file has."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name == self._name else None

    def exec_module(self, module: Any) -> None:
        exec(compile(self._source, str(path_of(self._name)), "exec"), module.__dict__)


class Unshrunk:
    """A failure is enough: nobody reads the smallest example of it. Tests with many examples come last."""

    def pytest_sessionstart(self) -> None:
        hypothesis = importlib.import_module("hypothesis")
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("unshrunk", hypothesis.settings.get_profile("ci"), phases=phases)
        hypothesis.settings.load_profile("unshrunk")

    def pytest_collection_modifyitems(self, items: List[Any]) -> None:
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing.")
    parser.add_argument(
        "--only", action="append", metavar="MODULE", choices=TESTS, help="such as limits.rate_limiter"
    )
    modules = parser.parse_args().only or list(TESTS)
    prepare()
    began = time.monotonic()
    verdicts = {module: judged(module) for module in modules}
    why: List[Dict[str, Any]] = json.loads(EXPLAINED.read_text(encoding="utf-8"))
    faults = unexplained(verdicts, why)
    print(
        f"{sum(map(len, verdicts.values()))} mutants in {time.monotonic() - began:.0f} s", *faults, sep="\n"
    )
    if not faults:
        write({module: counted(found) for module, found in verdicts.items()}, why)
    return 1 if faults else 0


def prepare() -> None:
    """What all trials have in common is there before they are forked from this process."""
    # The same examples each time, so that the verdicts are the same too.
    os.environ["CI"] = "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # Of all but the module with the fault, which is never read from a file.
    sys.dont_write_bytecode = False
    for name in (*SLOW_IMPORTS, *PLUGINS):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def judged(module: str) -> List[Verdict]:
    """The module's own source has to pass; then each mutation is tried."""
    name, source = f"claude_force.{module}", path_of(f"claude_force.{module}").read_text(encoding="utf-8")
    began = time.monotonic()
    whole = list(outcomes(module, [Mutation("", "", source)], 600.0))
    if whole[0].outcome != "survived":
        sys.exit(f"{', '.join(TESTS[module])}: not passed on {name} as it is")
    longest = max(LONGEST, TIMES_AS_LONG * (time.monotonic() - began))
    verdicts = []
    for verdict in outcomes(module, chosen(module, mutations(source)), longest):
        verdicts.append(verdict)
        if verdict.outcome != "killed":
            print(f"{verdict.outcome}: {verdict.mutation.where} | {verdict.mutation.change}", flush=True)
    print(module, *counted(verdicts), flush=True)
    return verdicts


def chosen(module: str, found: Sequence[Mutation]) -> List[Mutation]:
    """Those in the parts of the module that count; all of them where no parts are named."""
    parts = PARTS.get(module, ("",))
    return [one for one in found if one.where.startswith(parts)]


def outcomes(module: str, tried: Sequence[Mutation], longest: float) -> Iterator[Verdict]:
    """As they end; AT_ONCE of them are under way."""
    waiting = list(tried)
    running: Dict[int, Trial] = {}
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                trial = Trial(module, waiting.pop(0), tempfile.mkdtemp(), time.monotonic() + longest)
                running[started(trial)] = trial
            time.sleep(0.01)
            for process, trial in list(running.items()):
                outcome = outcome_of(process, trial)
                if outcome:
                    del running[process]
                    shutil.rmtree(trial.folder, ignore_errors=True)
                    yield Verdict(module, trial.mutation, outcome)
    finally:
        for process, trial in running.items():
            ended(process)
            shutil.rmtree(trial.folder, ignore_errors=True)


def outcome_of(process: int, trial: Trial) -> Optional[str]:
    """None while it is under way."""
    done, status = os.waitpid(process, os.WNOHANG)
    if done:
        return "killed" if status else "survived"
    if time.monotonic() < trial.ends:
        return None
    ended(process)
    return "timed out"


def ended(process: int) -> None:
    """With all that it started."""
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)


def started(trial: Trial) -> int:
    """The process's id, which is that of its group too."""
    process = os.fork()
    if process:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(process, process)
        return process
    os.setpgid(0, 0)
    code = 1
    try:
        code = tested(trial)
    finally:
        os._exit(code)


def tested(trial: Trial) -> int:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(quiet, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.meta_path.insert(0, Injected(f"claude_force.{trial.module}", trial.mutation.source))
    files = [f"tests/{name}" for name in TESTS[trial.module]]
    plugins = [f"-p{name}" for name in (*PLUGINS, "no:cacheprovider")]
    options = ["-x", "-q", "--tb=no", f"--basetemp={trial.folder}/tests"]
    return int(importlib.import_module("pytest").main([*options, *plugins, *files], [Unshrunk()]))


def path_of(name: str) -> Path:
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def counted(verdicts: Sequence[Verdict]) -> List[int]:
    """All, and those of each outcome."""
    return [len(verdicts), *(sum(one.outcome == outcome for one in verdicts) for outcome in OUTCOMES)]


def unexplained(verdicts: Dict[str, List[Verdict]], why: Sequence[Dict[str, Any]]) -> List[str]:
    """`why` has `module`, `where`, `changes` and `why` of each class of survivors."""
    survived = {
        (module, one.mutation.where, one.mutation.change)
        for module, found in verdicts.items()
        for one in found
        if one.outcome == "survived"
    }
    known = {(one["module"], one["where"], change) for one in why for change in one["changes"]}
    known = {one for one in known if one[0] in verdicts}
    return [
        *(f"not explained: {' | '.join(one)}" for one in sorted(survived - known)),
        *(f"explained, and did not survive: {' | '.join(one)}" for one in sorted(known - survived)),
    ]


def write(figures: Dict[str, List[int]], why: Sequence[Dict[str, Any]]) -> None:
    """Modules that were not tried keep the figures that the page has."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    before, _, tail = rest.partition(END)
    rows = {row[0]: [int(count) for count in row[1:]] for row in ROW.findall(before) if row[0] in TESTS}
    rows.update(figures)
    total = [sum(column) for column in zip(*rows.values())]
    table = [line(f"`{module}`", rows[module]) for module in TESTS if module in rows]
    lines = [
        "",
        "",
        line("module", ["mutants", *OUTCOMES]),
        "|---|---|---|---|---|",
        *table,
        line("all", total),
    ]
    for one in why:
        place = f", `{one['where']}`" if one["where"] else ""
        lines += ["", f"`{one['module']}`{place}: {one['why']}", "", "```text", *one["changes"], "```"]
    PAGE.write_text("\n".join([head + BEGIN, *lines[1:], "", END + tail]), encoding="utf-8")


def line(name: str, cells: Sequence[Any]) -> str:
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
