"""Which bubblewrap is used, and what is said where none works."""

import errno
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Tuple

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


ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED = 0x7FFF0000


def judge(machine: str, call: int, *arguments: int, architecture: int = 0) -> int:
    """What the filter returns for a system call: ALLOWED, or the number of an error."""
    program = seccomp_filter(machine)
    assert program is not None
    words = [call, architecture or ARCHITECTURES[machine], 0, 0]
    for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]:
        words += [argument & 0xFFFFFFFF, argument >> 32]
    instructions, place, value = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, if_true, if_false, operand = instructions[place]
        place += 1
        if code == 0x20:
            value = words[operand // 4]
        elif code == 0x06:
            return operand if operand == ALLOWED else operand & 0xFFFF
        else:
            tests = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            place += if_true if tests[code] else if_false


@pytest.mark.parametrize(
    ("machine", "call", "arguments", "verdict"),
    [
        ("x86_64", 0, (), ALLOWED),
        ("x86_64", 41, (socket.AF_UNIX,), ALLOWED),
        ("aarch64", 198, (socket.AF_INET6,), ALLOWED),
        ("x86_64", 41, (40,), errno.EAFNOSUPPORT),
        ("aarch64", 198, (40,), errno.EAFNOSUPPORT),
        ("x86_64", 250, (), errno.EPERM),
        ("aarch64", 219, (), errno.EPERM),
        ("x86_64", 257, (-100 & (2**64 - 1), 1, os.O_CREAT, 0o4755), errno.EPERM),
        ("x86_64", 257, (3, 1, os.O_CREAT, 0o755), ALLOWED),
        ("x86_64", 257, (3, 1, os.O_RDONLY, 0o4755), ALLOWED),
        ("aarch64", 56, (3, 1, os.O_CREAT, 0o2755), errno.EPERM),
        ("aarch64", 53, (3, 1, 0o4755), errno.EPERM),
        ("aarch64", 53, (3, 1, 0o755), ALLOWED),
        ("aarch64", 437, (), errno.ENOSYS),
        ("x86_64", 0x40000000, (), errno.ENOSYS),
    ],
)
def test_filter_judges_calls(machine: str, call: int, arguments: Tuple[int, ...], verdict: int) -> None:
    assert judge(machine, call, *arguments) == verdict


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_refuses_calls_of_other_architectures(machine: str) -> None:
    assert judge(machine, 0, architecture=0x40000003) == errno.ENOSYS
