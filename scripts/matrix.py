"""Run the tests on every supported Python that this machine has, each in an environment of its own.

    python3 scripts/matrix.py [ROW ...]

A ROW is a Python, 3.8 to 3.13, with the newest release of every dependency, or `newest`: the newest Python
here that is not the default python3's. `oldest-sdk` has the oldest SDK that is allowed, `oldest` the oldest
release of every dependency: once without and once with the extra `durable`, which allows no PyYAML as old.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
OLDEST_SDK = "oldest-sdk"
OLDEST = "oldest"
# The extra `durable` is empty before 3.10. On newer Pythons some of the oldest releases have no wheel.
SPECIAL = {OLDEST_SDK: ("3.11",), OLDEST: ("3.9", "3.10")}
# `python -m venv` of an old interpreter brings a pip that can't install this package in editable mode, or one
# that takes half an hour to choose the releases.
PIP = ("--upgrade", "pip")
# As `make test` has it.
PARALLEL = ("-n", "auto", "--dist", "worksteal")


class Row(NamedTuple):
    """A Python, and what is installed there: "newest", OLDEST_SDK or OLDEST."""

    version: str
    releases: str

    @property
    def environment(self) -> Path:
        suffix = "" if self.releases == "newest" else f"-{self.releases}"
        return ROOT / f".venv-{self.version}{suffix}"


class Outcome(NamedTuple):
    """One line of the closing table."""

    row: Row
    sdk: str
    result: str
    seconds: float
    ok: bool


def main() -> int:
    names = (*SUPPORTED, "newest", *SPECIAL)
    parser = argparse.ArgumentParser(description="Run the tests on every supported Python here.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    asked = parser.parse_args().rows
    unknown = set(asked) - set(names)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; take {', '.join(names)}")
    here = interpreters()
    wanted = chosen(asked, here)
    outcomes = [run(row, here[row.version]) for row in wanted if row.version in here]
    show(outcomes, [row for row in wanted if row.version not in here])
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def interpreters() -> Dict[str, str]:
    """The supported versions that can be run here, each with its executable."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found: Dict[str, str] = {}
    for version in SUPPORTED:
        managed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=patch_number, reverse=True)
        for candidate in [f"python{version}", *map(str, managed)]:
            if version_of(candidate) == version:
                found[version] = candidate
                break
    default = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if default in SUPPORTED:
        found.setdefault(default, sys.executable)
    return found


def patch_number(executable: Path) -> Tuple[int, str]:
    patch = executable.parent.parent.name.split(".")[2]
    return (int(patch) if patch.isdigit() else -1, patch)


def version_of(executable: str) -> Optional[str]:
    """Its version as "3.11"; None if it can't be run, as with a shim of a version that isn't chosen."""
    ask = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [executable, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.decode().strip()


def chosen(asked: List[str], here: Dict[str, str]) -> List[Row]:
    default = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = [version for version in SUPPORTED if version in here and version != default]
    newest = others[-1] if others else SUPPORTED[-1]
    wanted = {newest if name == "newest" else name for name in asked or (*SUPPORTED, *SPECIAL)}
    rows = [Row(version, "newest") for version in SUPPORTED if version in wanted]
    rows += [Row(version, name) for name in SPECIAL if name in wanted for version in SPECIAL[name]]
    return rows


def run(row: Row, interpreter: str) -> Outcome:
    """Install, test, and say what came of it."""
    started = time.monotonic()
    python = row.environment / "bin" / "python"
    print(f"\n== Python {row.version}, {row.releases} ({interpreter})", flush=True)
    try:
        if version_of(str(python)) != row.version:
            command(interpreter, "-m", "venv", "--clear", str(row.environment))
        install(python, *PIP)
        install_package(row, python)
        installed = sdk_version(python)
    except subprocess.CalledProcessError:
        return Outcome(row, "?", "could not be installed", time.monotonic() - started, False)
    result, ok = run_tests(python)
    return Outcome(row, installed, result, time.monotonic() - started, ok)


def install_package(row: Row, python: Path) -> None:
    what = ("--upgrade", "--editable", ".[test]", "anthropic")
    if row.releases == "newest":
        install(python, *what)
        return
    oldest = oldest_releases(row, python)
    print(*oldest, flush=True)
    bounds = row.environment / "oldest.txt"
    bounds.write_text("\n".join([*oldest, ""]), encoding="utf-8")
    # pip tries release after release where old ones are asked for: a quarter of an hour and no end on 3.9.
    held = ("--constraint", str(bounds), "--python", str(python))
    command(resolver(), "pip", "install", "--quiet", *held, *what)


def oldest_releases(row: Row, python: Path) -> List[str]:
    """Of what requirements.txt and the users' extras name; the newest of what only those need."""
    ask = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", "lowest-direct"]
    extras = [f"--extra={name}" for name in ("bedrock", "durable", "otel", "vertex")]
    answer = subprocess.check_output(
        [resolver(), *ask, *extras, "--python", str(python), "pyproject.toml"], cwd=str(ROOT)
    )
    sdk_only = row.releases == OLDEST_SDK
    return [line for line in answer.decode().splitlines() if not sdk_only or line.startswith("anthropic==")]


def resolver() -> str:
    """uv, in an environment of its own."""
    place = ROOT / ".venv-resolver"
    if not (place / "bin" / "uv").exists():
        command(sys.executable, "-m", "venv", str(place))
        install(place / "bin" / "python", "uv")
    return str(place / "bin" / "uv")


def command(*arguments: str) -> None:
    subprocess.run(arguments, cwd=str(ROOT), check=True)


def install(python: Path, *requirements: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    command(str(python), "-m", "pip", "install", *quiet, *requirements)


def sdk_version(python: Path) -> str:
    ask = "from importlib.metadata import version; print(version('anthropic'))"
    return subprocess.check_output([str(python), "-c", ask]).decode().strip()


def run_tests(python: Path) -> Tuple[str, bool]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        arguments = ["-m", "pytest", "-q", "--extras", *PARALLEL, f"--junitxml={report}", "tests/"]
        status = subprocess.run([str(python), *arguments], cwd=str(ROOT)).returncode
        if not report.exists():
            return f"pytest stopped with status {status}", False
        return counts(report), status == 0


def counts(report: Path) -> str:
    """For example "120 passed, 2 skipped"."""
    suites = list(ElementTree.parse(str(report)).getroot().iter("testsuite"))
    total = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    passed = total["tests"] - total["failures"] - total["errors"] - total["skipped"]
    words = [f"{passed} passed"]
    for name, word in (("failures", "failed"), ("errors", "errors"), ("skipped", "skipped")):
        if total[name]:
            words.append(f"{total[name]} {word}")
    return ", ".join(words)


def show(outcomes: List[Outcome], missing: List[Row]) -> None:
    print(f"\n{'Python':<8}{'releases':<12}{'SDK':<10}{'seconds':>8}  result")
    for outcome in outcomes:
        mark = "" if outcome.ok else "  FAILED"
        result = f"{outcome.seconds:>8.1f}  {outcome.result}{mark}"
        print(f"{outcome.row.version:<8}{outcome.row.releases:<12}{outcome.sdk:<10}{result}")
    for row in missing:
        print(f"{row.version:<8}{row.releases:<12}{'-':<10}{'-':>8}  not found on this machine")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
