"""Hints to install the package: none leads to version 1.x, the registry's package of this name."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

import claude_force
from claude_force.formatting import install_command

# Of the registry's package: what follows the name on a line with pip is neither a path nor a URL.
BY_NAME = re.compile(r"(?:pip|uv|pipx)[\w -]* (?:install|add|inject)[^\n`]*?[\s'\"]claude[-_]force\b(?! @)")
TEXTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "pyproject.toml",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "claude_force").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
METADATA = """Metadata-Version: 2.4
Name: claude-force
Version: 2.0.0
Requires-Dist: anthropic
Provides-Extra: durable
Requires-Dist: dbos<4,>=3.4; (python_version >= '3.10') and extra == 'durable'
Requires-Dist: psycopg[binary]>=3.2; extra == 'durable'
Provides-Extra: otel
Requires-Dist: opentelemetry-api>=1.30; extra == "otel"
"""


@pytest.fixture
def installed(tmp_path):
    """Runs a line of Python with the package as an installer leaves it: no checkout around it."""
    shutil.copytree(
        ROOT / "claude_force", tmp_path / "claude_force", ignore=shutil.ignore_patterns("__pycache__")
    )
    about = tmp_path / "claude_force-2.0.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA, encoding="utf-8")

    def run(line):
        words = [sys.executable, "-S", "-c", f"from claude_force.formatting import install_command; {line}"]
        done = subprocess.run(
            words, env={"PYTHONPATH": str(tmp_path)}, cwd="/", capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_hint_never_names_registry_package(path):
    assert BY_NAME.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install claude-force",
        "pip install 'claude-force[durable]'",
        "$ python -m pip install --upgrade claude-force",
        "uv pip install claude-force==1.3",
        "pipx install claude-force",
    ],
)
def test_such_a_hint_would_be_found(line):
    assert BY_NAME.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "pip install '.[durable]'",
        "pip install /src/claude-force[otel]",
        "pip install 'claude-force @ file:///x'",
    ],
)
def test_path_or_url_is_no_such_hint(line):
    assert not BY_NAME.search(line)


@pytest.mark.parametrize("extra", ["bedrock", "durable", "otel", "vertex"])
def test_checkout_is_named_by_its_path(extra):
    *command, what = shlex.split(install_command(extra))
    assert command == ["python", "-m", "pip", "install"]
    path, _, named = what.partition("[")
    assert named == f"{extra}]"
    extras = (
        (Path(path) / "pyproject.toml").read_text(encoding="utf-8").partition("optional-dependencies]")[2]
    )
    assert re.search(rf"^{extra} = \[", extras, re.M)


def test_hint_names_packages_of_extra(installed):
    assert shlex.split(installed("print(install_command('durable'))"))[4:] == [
        "dbos<4,>=3.4; (python_version >= '3.10')",
        "psycopg[binary]>=3.2",
    ]
    assert installed("print(install_command('otel'))") == "python -m pip install 'opentelemetry-api>=1.30'"


def test_unknown_place_names_a_checkout(installed, tmp_path):
    shutil.rmtree(tmp_path / "claude_force-2.0.0.dist-info")
    assert "'.[otel]' in a checkout" in installed("print(install_command('otel'))")


def test_version_is_newer_than_registry():
    assert claude_force.__version__ == "2.0.0"
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert heading and heading[1] == claude_force.__version__
