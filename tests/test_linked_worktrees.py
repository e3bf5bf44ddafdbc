"""Which repository a worktree is believed to belong to."""

import os
import subprocess
from pathlib import Path
from typing import Tuple

import pytest

from claude_force.tools.linked_worktrees import repository_of


@pytest.fixture
def trees(tmp_path: Path) -> Tuple[Path, Path]:
    """A repository and a worktree of it."""
    main, tree = tmp_path / "my repo", tmp_path / "tree"
    main.mkdir()
    commit = "git -c user.name=n -c user.email=e commit -q --allow-empty -m m"
    script = f"git init -q && {commit} && git worktree add -q ../tree"
    subprocess.run(["bash", "-c", script], cwd=main, check=True, timeout=30)
    return main, tree


def test_worktree_names_its_repository(trees: Tuple[Path, Path]) -> None:
    main, tree = trees
    assert repository_of(tree / ".git") == main / ".git"
    assert repository_of(main / ".git") is None


def test_worktree_is_found_by_a_link(trees: Tuple[Path, Path], tmp_path: Path) -> None:
    main, tree = trees
    (tmp_path / "link").symlink_to(tree)
    assert repository_of(tmp_path / "link" / ".git") == main / ".git"


def test_lie_is_not_believed(trees: Tuple[Path, Path], tmp_path: Path) -> None:
    """Another project may name the folder of the worktree, but not be named by it."""
    _, tree = trees
    other = tmp_path / "other"
    other.mkdir()
    (other / ".git").write_bytes((tree / ".git").read_bytes())
    assert repository_of(other / ".git") is None


def test_made_up_repository_shows_nothing_else(tmp_path: Path) -> None:
    """A folder in the project that plays the repository can't name one outside."""
    project, secret = tmp_path / "project", tmp_path / "secret"
    fake = project / "fake" / "worktrees" / "x"
    fake.mkdir(parents=True)
    secret.mkdir()
    (project / ".git").write_text("gitdir: fake/worktrees/x\n")
    (fake / "gitdir").write_text(f"{project}/.git\n")
    for common in (str(secret), "../../../../secret", str(secret / "worktrees")):
        (fake / "commondir").write_text(f"{common}\n")
        assert repository_of(project / ".git") is None
    (secret / "worktrees").mkdir()
    (fake / "commondir").write_text(f"{secret}\n")
    fake.rename(project / "moved")
    fake.symlink_to(secret / "worktrees")
    assert repository_of(project / ".git") is None


def test_project_can_not_be_its_own_repository(tmp_path: Path) -> None:
    """A folder that happens to lie in one named "worktrees" would show what is above that."""
    project = tmp_path / "worktrees" / "x"
    project.mkdir(parents=True)
    (project / ".git").write_text("gitdir: .\n")
    (project / "gitdir").write_text(".git\n")
    (project / "commondir").write_text("../..\n")
    assert repository_of(project / ".git") is None
    for name in ("objects", "refs"):
        (tmp_path / name).mkdir()
    (tmp_path / "HEAD").touch()
    assert repository_of(project / ".git") is None


def test_other_project_can_not_play_the_repository(tmp_path: Path) -> None:
    project, other = tmp_path / "project", tmp_path / "worktrees" / "x"
    for folder in (project, other):
        folder.mkdir(parents=True)
    (project / ".git").write_text(f"gitdir: {other}\n")
    (other / "gitdir").write_text(f"{project}/.git\n")
    (other / "commondir").write_text("../..\n")
    assert repository_of(project / ".git") is None


@pytest.mark.parametrize(
    "content", [b"", b"gitdir: ", b"gitdir: /", b"gitdir: \0", b"x" * 9000, b"gitdir: a\nb", b"\xff"]
)
def test_odd_files_are_no_worktrees(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".git").write_bytes(content)
    assert repository_of(tmp_path / ".git") is None


def test_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    assert repository_of(tmp_path) is None
    assert tmp_path not in [one.resolve() for one in Path("/proc/self/fd").iterdir()]


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".git")
    assert repository_of(tmp_path / ".git") is None
