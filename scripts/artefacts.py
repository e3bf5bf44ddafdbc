"""Build the wheel and the source distribution, install each into an empty environment, and use it there.

    python3 scripts/artefacts.py

What is installed is what users get: a file that is missing from the package is found here and not by the
tests, which run beside the sources.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parent.parent
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


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        for artefact in build(Path(folder)):
            if artefact.suffix == ".whl":
                check_contents(artefact)
            try_out(artefact, Path(folder, artefact.name + "-tried"))
            print(f"{artefact.name}: installed, {len(COMMANDS)} commands ran", flush=True)
    return 0


def build(folder: Path) -> List[Path]:
    """The wheel is made from the source distribution, as an installer would."""
    builder = folder / "builder"
    python = environment(builder)
    install(python, "build")
    out = folder / "dist"
    run([str(python), "-m", "build", "--outdir", str(out), str(ROOT)], folder)
    return sorted(out.iterdir())


def check_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(str(wheel)).namelist()
    missing = [needed for needed in NEEDED if not any(name.startswith(needed) for name in names)]
    foreign = [name for name in names if not name.startswith(("claude_force/", "claude_force-"))]
    if missing or foreign:
        raise SystemExit(f"{wheel.name} lacks {missing} and has {foreign}")


def try_out(artefact: Path, folder: Path) -> None:
    python = environment(folder / "environment")
    install(python, str(artefact))
    project = folder / "project"
    project.mkdir()
    quiet = {"HOME": str(folder), "ANTHROPIC_API_KEY": "not-a-key", "CLAUDE_FORCE_LOOPBACK_ONLY": "1"}
    for arguments in COMMANDS:
        run([str(python.parent / "claude-force"), *arguments], project, **quiet)


def environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
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
