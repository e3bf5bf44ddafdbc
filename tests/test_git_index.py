"""Submodules are found in real indexes, and nothing in any bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worktrees import git, make_repository, needs_git

from claude_force.tools.git_index import submodules

SUBMODULES = ["a/sub", "sub", "zz"]


@needs_git
@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("count", [0, 300])
def test_submodules_of_an_index_are_found(tmp_path: Path, version: str, count: int) -> None:
    files = {f"folder/file-{number}.txt": b"x" for number in range(count)}
    project = make_repository(tmp_path / "project", {"a.txt": b"x", "many/b.txt": b"y", **files})
    git(project, "update-index", "--index-version", version)
    if version == "3":
        # Only an entry with a flag of its own makes git write this version.
        git(project, "update-index", "--skip-worktree", "a.txt")
    for path in SUBMODULES:
        git(project, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{path}")
    data = (project / ".git" / "index").read_bytes()
    assert data[7] == int(version)
    assert [path for path in submodules(data) if path.decode("utf-8", "replace") in SUBMODULES] == [
        path.encode() for path in SUBMODULES
    ]


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    submodules(b"DIRC" + data + b"\x00\x00\xe0\x00")
    submodules(b"DIRC\0\0\0\4\xff\xff\xff\xff" + data + b"\x00\x00\xe0\x00")
