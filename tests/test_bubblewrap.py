"""Which bubblewrap is used, and what is said where none works."""

import os
import sys
from pathlib import Path

import pytest
from sandboxes import program

from claude_force.errors import ToolSandboxError
from claude_force.tools import bubblewrap as module
from claude_force.tools.bubblewrap import bubblewrap
from claude_force.tools.sandbox import Sandbox
from claude_force.tools.seccomp import seccomp_filter


@pytest.fixture
def nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only PATH is searched."""
    monkeypatch.setattr(module, "_FOLDERS", ())


def fake(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_missing_program_is_named(nowhere_else: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(ToolSandboxError, match=r"apt-get install bubblewrap.*dnf install bubblewrap"):
        bubblewrap()


def test_program_of_the_project_is_not_started(
    nowhere_else: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    fake(project / "bin", f"touch {tmp_path}/started")
    (tmp_path / "link").symlink_to(project / "bin")
    monkeypatch.setenv("PATH", f"{project}/bin:{tmp_path}/link:bin:.:")
    monkeypatch.chdir(project)
    with pytest.raises(ToolSandboxError, match="needs bubblewrap"):
        bubblewrap([project])
    assert not (tmp_path / "started").exists()


def test_program_on_path_is_found(
    tmp_path: Path, nowhere_else: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = program()
    (tmp_path / "bwrap").symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bubblewrap() == os.path.realpath(real)


def test_what_it_says_is_told_once(
    tmp_path: Path, nowhere_else: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake(
        tmp_path / "bin", f"echo x >>{tmp_path}/tries; echo 'No permissions to create it' >&2; exit 1"
    )
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    for _ in range(3):
        with pytest.raises(ToolSandboxError, match="can't make a sandbox here: No permissions to create it"):
            bubblewrap()
    assert (tmp_path / "tries").read_text() == "x\n"


def test_other_systems_are_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ToolSandboxError, match="not supported yet"):
        bubblewrap()


def test_other_machines_are_not_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ToolSandboxError, match="riscv64"):
        with Sandbox(tmp_path).command():
            pass


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_is_whole_instructions(machine: str) -> None:
    program = seccomp_filter(machine)
    assert program is not None
    assert len(program) % 8 == 0
