"""Build the wheel and the source distribution, install each into empty environments, and use it there.

    python3 scripts/artefacts.py [VERSION ...]

What is installed is what users get: a file that is missing from the package is found here and not by the
tests, which run beside the sources. A VERSION is one of Python, 3.8 to 3.13; by default the oldest and the
newest here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Dict, List, Set

from matrix import ROOT, SUPPORTED, interpreters

# Of the wheel; each is read at run time and is no Python.
NEEDED = (
    "claude_force/py.typed",
    "claude_force/cli/samples/claude.json",
    "claude_force/cli/review-team/.claude/agents",
    "claude_force/report/",
)
COMMANDS = (
    ["--version"],
    ["init"],
    ["list", "agents"],
    ["workflow", "show", "review-and-test"],
    ["doctor", "--offline"],
    ["demo"],
    ["metrics", "summary", "--json"],
)
# What the build adds.
MADE = {"PKG-INFO"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the package and try out what users get.")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(SUPPORTED))
    here = interpreters()
    ends = dict.fromkeys((min(here, key=SUPPORTED.index), max(here, key=SUPPORTED.index)))
    versions = parser.parse_args().versions or list(ends)
    missing = [version for version in versions if version not in here]
    if missing:
        parser.error(f"not found on this machine: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, wheel = build(folder)
        check_source(source)
        check_wheel(wheel)
        check_types(wheel, folder / "typed")
        for version in versions:
            for artefact in (source, wheel):
                try_out(here[version], artefact, folder / f"{artefact.name}-{version}")
                said = f"{artefact.name}: installed on Python {version}, {len(COMMANDS)} commands ran"
                print(said, flush=True)
    return 0


def build(folder: Path) -> List[Path]:
    """The source distribution, and the wheel that is made from it, as an installer would."""
    python = environment(sys.executable, folder / "builder")
    install(python, "build", "twine")
    out = folder / "dist"
    run([str(python), "-m", "build", "--outdir", str(out), str(ROOT)], folder)
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    run([str(python), "-m", "twine", "check", "--strict", str(source), str(wheel)], folder)
    return [source, wheel]


def check_source(source: Path) -> None:
    """It has what is under version control, all of it and nothing else."""
    if not (ROOT / ".git").exists():
        print(
            "This folder is not under version control: what belongs to the source distribution is not known"
        )
        return
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=str(ROOT)).decode()
    kept = {name for name in listed.split("\0") if name}
    with tarfile.open(str(source)) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()} - MADE
    if packed != kept:
        raise SystemExit(f"{source.name} lacks {sorted(kept - packed)} and has {sorted(packed - kept)}")


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(str(wheel)) as archive:
        names = archive.namelist()
        (home,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(home).decode("utf-8"))
    missing = [needed for needed in NEEDED if not any(name.startswith(needed) for name in names)]
    foreign = [name for name in names if not name.startswith(("claude_force/", "claude_force-"))]
    if missing or foreign:
        raise SystemExit(f"{wheel.name} lacks {missing} and has {foreign}")
    classifiers = metadata.get_all("Classifier", [])
    stated = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: Python :: 3\.\d+$", line)]
    licences = [name for name in names if name.endswith(f"licenses/{metadata['License-File']}")]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if stated != list(SUPPORTED) or "Typing :: Typed" not in classifiers or not licences:
        raise SystemExit(f"{wheel.name} is for {stated}, has the licence {licences}, and says: {classifiers}")
    if f"\n## {metadata['Version']}\n" not in changes:
        raise SystemExit(f"CHANGELOG.md says nothing of {metadata['Version']}")


def check_types(wheel: Path, folder: Path) -> None:
    """That a user's mypy and pyright know all types of the installed package."""
    python = environment(sys.executable, folder / "environment")
    install(python, f"{wheel}[durable,otel]", "mypy", "basedpyright", "pytest")
    bin_folder, project = python.parent, folder / "project"
    (project / "tests").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/typing_api.py"):
        shutil.copy(str(ROOT / name), str(project / name))
    run([str(bin_folder / "mypy"), "--strict", "tests/typing_api.py"], project)
    run([str(bin_folder / "basedpyright"), "--pythonpath", str(python)], project)
    print(f"{wheel.name}: mypy and pyright agree with tests/typing_api.py", flush=True)
    unclear = unclear_types(bin_folder, folder)
    if unclear:
        raise SystemExit(f"pyright does not know the types of {', '.join(unclear)}")


def unclear_types(bin_folder: Path, folder: Path) -> List[str]:
    """Of the names in the reference and of what they have."""
    variables = {**os.environ, "VIRTUAL_ENV": str(bin_folder.parent)}
    variables["PATH"] = os.pathsep.join([str(bin_folder), variables["PATH"]])
    asked = ["basedpyright", "--verifytypes", "claude_force", "--ignoreexternal", "--outputjson"]
    answer = subprocess.run(
        [str(bin_folder / asked[0]), *asked[1:]], cwd=str(folder), env=variables, stdout=subprocess.PIPE
    )
    symbols = json.loads(answer.stdout.decode("utf-8"))["typeCompleteness"]["symbols"]
    public = names_of_the_reference()
    ours = [one for one in symbols if public.intersection(one["name"].split("."))]
    if len(ours) < len(public):
        raise SystemExit(
            f"pyright has seen {len(ours)} of the names in the reference, which has {len(public)}"
        )
    unclear = [one for one in ours if not one["isTypeKnown"] or one["isTypeAmbiguous"]]
    # pyright wants an annotation on each method that `delegated` makes: its whole signature a second time.
    # mypy and pyright infer the same one without, as tests/typing_api.py shows.
    return [one["name"] for one in unclear if not (one["isTypeAmbiguous"] and "Orchestrator" in one["name"])]


def names_of_the_reference() -> Set[str]:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    return set(re.findall(r"^`from [\w.]+ import (\w+)`$", page, re.M))


def try_out(interpreter: str, artefact: Path, folder: Path) -> None:
    python = environment(interpreter, folder / "environment")
    install(python, str(artefact))
    project = folder / "project"
    project.mkdir()
    quiet = {"HOME": str(folder), "ANTHROPIC_API_KEY": "not-a-key", "CLAUDE_FORCE_LOOPBACK_ONLY": "1"}
    for arguments in COMMANDS:
        run([str(python.parent / "claude-force"), *arguments], project, **quiet)


def environment(interpreter: str, folder: Path) -> Path:
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def install(python: Path, *what: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([str(python), "-m", "pip", "install", *quiet, *what], check=True)


def run(command: List[str], folder: Path, **more: str) -> None:
    variables: Dict[str, str] = {**os.environ, **more}
    for name in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL"):
        variables.pop(name, None)
    done = subprocess.run(
        command, cwd=str(folder), env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
