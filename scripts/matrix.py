"""Run the tests on every supported Python that this machine has, each in an environment of its own.

    python3 scripts/matrix.py [VERSION ...]

A VERSION is 3.8 to 3.13, or `newest`: the newest one here that is not the default python3's.
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
OLDEST_SDK = "0.72.0"
OLDEST_SDK_ON = "3.11"
# `python -m venv` of an old interpreter brings a pip that can't install this package in editable mode.
PIP = "pip>=21.3"


class Outcome(NamedTuple):
    """One row of the closing table."""

    version: str
    sdk: str
    result: str
    seconds: float
    ok: bool


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests on every supported Python here.")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="3.8 to 3.13, or newest")
    asked = parser.parse_args().versions
    unknown = set(asked) - {*SUPPORTED, "newest"}
    if unknown:
        parser.error(f"no such version: {', '.join(sorted(unknown))}; take {', '.join(SUPPORTED)} or newest")
    here = interpreters()
    wanted = chosen(asked, here)
    missing = [version for version in wanted if version not in here]
    outcomes: List[Outcome] = []
    for version in wanted:
        if version in here:
            outcomes.append(run(version, here[version], None))
            if version == OLDEST_SDK_ON:
                outcomes.append(run(version, here[version], OLDEST_SDK))
    show(outcomes, missing)
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


def chosen(asked: List[str], here: Dict[str, str]) -> List[str]:
    if not asked:
        return list(SUPPORTED)
    default = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = [version for version in SUPPORTED if version in here and version != default]
    newest = others[-1] if others else SUPPORTED[-1]
    wanted = {newest if version == "newest" else version for version in asked}
    return [version for version in SUPPORTED if version in wanted]


def run(version: str, interpreter: str, sdk: Optional[str]) -> Outcome:
    """Install, test, and say what came of it."""
    started = time.monotonic()
    environment = ROOT / (f".venv-{version}-sdk-{sdk}" if sdk else f".venv-{version}")
    python = environment / "bin" / "python"
    print(f"\n== Python {version}, SDK {sdk or 'newest'} ({interpreter})", flush=True)
    try:
        if version_of(str(python)) != version:
            command(interpreter, "-m", "venv", "--clear", str(environment))
        install(python, PIP)
        install(python, "--upgrade", "--editable", ".[test]", f"anthropic=={sdk}" if sdk else "anthropic")
        installed = sdk_version(python)
    except subprocess.CalledProcessError:
        return Outcome(version, sdk or "?", "could not be installed", time.monotonic() - started, False)
    result, ok = run_tests(python)
    return Outcome(version, installed, result, time.monotonic() - started, ok)


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
        arguments = ["-m", "pytest", "-q", f"--junitxml={report}", "tests/"]
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


def show(outcomes: List[Outcome], missing: List[str]) -> None:
    print(f"\n{'Python':<8}{'SDK':<10}{'seconds':>8}  result")
    for outcome in outcomes:
        mark = "" if outcome.ok else "  FAILED"
        print(f"{outcome.version:<8}{outcome.sdk:<10}{outcome.seconds:>8.1f}  {outcome.result}{mark}")
    for version in missing:
        print(f"{version:<8}{'-':<10}{'-':>8}  not found on this machine")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
