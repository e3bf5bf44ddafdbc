"""A workspace resolves the paths of a model, and nothing outside of its folders is reached."""

import os
import stat
from pathlib import Path

import pytest
from racing import swapping
from tool_cases import call

from claude_force.tools.protocol import ToolError
from claude_force.tools.read_tool import ReadTool
from claude_force.tools.workspace import WRITE, OutsideDeniedError, PathRules, Workspace


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "project" / "src" / "a.txt").write_text("inside\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("SECRET\n")
    return tmp_path / "project"


def real(workspace: Workspace, path: str) -> str:
    with workspace.at(path) as place:
        return os.path.relpath(place.real, workspace.root)


def test_paths_start_at_the_working_folder(project: Path) -> None:
    with Workspace(project) as workspace:
        assert real(workspace, "src/a.txt") == "src/a.txt"
        workspace.change_folder("src")
        assert real(workspace, "a.txt") == "src/a.txt"
        assert real(workspace, "../src/./a.txt") == "src/a.txt"
        assert real(workspace, str(project / "src" / "a.txt")) == "src/a.txt"
        assert workspace.relative(str(project / "src" / "a.txt")) == "a.txt"
        assert workspace.relative(str(project / "b.txt")) == str(project / "b.txt")


@pytest.mark.parametrize(
    "path", ["../outside", "/", "/etc/passwd", "/proc/self/root/etc/passwd", "src/../.."]
)
def test_paths_outside_are_refused(project: Path, path: str) -> None:
    with Workspace(project) as workspace, pytest.raises(OutsideDeniedError, match="haven't granted it"):
        real(workspace, path)


@pytest.mark.parametrize(
    "target", ["../outside/secret.txt", "/etc/passwd", "src/../../outside/secret.txt", "/proc/self/root/etc"]
)
def test_links_that_lead_outside_are_refused(project: Path, target: str) -> None:
    (project / "link").symlink_to(target)
    (project / "again").symlink_to("link")
    with Workspace(project) as workspace:
        for name in ("link", "again", "again/more.txt"):
            with pytest.raises(
                OutsideDeniedError, match="resolves through a symlink to .*outside the allowed"
            ):
                real(workspace, name)


def test_links_that_stay_inside_are_followed(project: Path) -> None:
    (project / "folder").symlink_to("src")
    (project / "whole").symlink_to(project / "src" / "a.txt")
    (project / "src" / "up").symlink_to("..")
    with Workspace(project) as workspace:
        assert real(workspace, "folder/a.txt") == real(workspace, "whole") == "src/a.txt"
        assert real(workspace, "src/up/src/up/whole") == "src/a.txt"


def test_links_in_a_circle_are_an_error(project: Path) -> None:
    (project / "one").symlink_to("two")
    (project / "two").symlink_to(project / "one")
    with Workspace(project) as workspace, pytest.raises(ToolError, match="circle"):
        real(workspace, "one")


def test_links_into_a_further_folder_are_followed(project: Path) -> None:
    outside = project.parent / "outside"
    (project / "link").symlink_to(outside)
    (outside / "back").symlink_to(project / "src")
    with Workspace(project, [outside]) as workspace:
        assert real(workspace, "link/secret.txt") == "../outside/secret.txt"
        assert real(workspace, "link/back/a.txt") == "src/a.txt"


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 5000, "d/" * 3000, "src/a.txt/" * 3 + "x"])
async def test_odd_paths_are_errors_of_the_call(project: Path, path: str) -> None:
    with Workspace(project) as workspace:
        result = await call(ReadTool(workspace), {"file_path": path})
    assert result.is_error


def test_the_home_is_not_looked_up(project: Path) -> None:
    with Workspace(project) as workspace:
        assert real(workspace, "~/x") == "~/x"


async def test_a_renamed_project_stays_the_same(project: Path) -> None:
    with Workspace(project) as workspace:
        project.rename(project.parent / "moved")
        project.mkdir()
        (project / "src").symlink_to("../outside")
        result = await call(ReadTool(workspace), {"file_path": "src/a.txt"})
    assert result.content == "1\tinside\n2\t"


async def test_a_worktree_is_shown_as_the_project(project: Path, tmp_path: Path) -> None:
    (project / "link").symlink_to(project / "src" / "a.txt")
    with Workspace(project, shown_as="/work/app") as workspace:
        assert str(workspace.root) == workspace.cwd == "/work/app"
        tool = ReadTool(workspace)
        for path in ("/work/app/src/a.txt", "src/a.txt", "link"):
            assert (await call(tool, {"file_path": path})).content == "1\tinside\n2\t"
        missing = await call(tool, {"file_path": "no"})
        assert missing.content == "File does not exist. Note: your current working directory is /work/app."


def test_agents_of_one_run_share_folders_and_nothing_else(project: Path) -> None:
    with Workspace(project) as shared:
        one, two = shared.for_agent(), shared.for_agent(writable=True)
        one.change_folder("src")
        one.saw("x", b"", is_whole=True)
        one.close()
        assert (two.cwd, two.versions, two.writable, one.writable) == (str(project), {}, True, False)
        assert real(two, "src/a.txt") == "src/a.txt"


def test_agents_of_one_project_share_a_descriptor(project: Path) -> None:
    def count() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = count()
    workspaces = [Workspace(project, [project.parent / "outside"]) for _ in range(50)]
    assert count() == before + 2
    for workspace in workspaces[1:]:
        workspace.close()
        workspace.close()
    assert real(workspaces[0], "src/a.txt") == "src/a.txt"
    workspaces[0].close()
    assert count() == before


async def test_a_new_folder_at_the_path_of_an_open_one_is_another(project: Path) -> None:
    with Workspace(project) as old:
        project.rename(project.parent / "moved")
        project.mkdir()
        (project / "new.txt").write_text("new\n")
        with Workspace(project) as new:
            assert (await call(ReadTool(new), {"file_path": "new.txt"})).content == "1\tnew\n2\t"
        assert (await call(ReadTool(old), {"file_path": "src/a.txt"})).content == "1\tinside\n2\t"


def test_rules_see_paths_without_links(project: Path) -> None:
    (project / "link").symlink_to("src")
    with Workspace(project, writable=True) as workspace:
        workspace.rules = PathRules(denies_read=lambda path: path == str(project / "src" / "a.txt"))
        with pytest.raises(ToolError, match="denied by your permission settings"):
            real(workspace, "link/a.txt")


@pytest.mark.parametrize(
    "path",
    [".git/config", "sub/.git/hooks/x", ".GIT/config", ".mcp.json", ".claude/settings.json", "link/config"],
)
def test_files_that_programs_obey_need_a_grant_of_their_own(project: Path, path: str) -> None:
    (project / ".git").mkdir()
    (project / "link").symlink_to(".git")
    with Workspace(project, writable=True) as workspace:
        with pytest.raises(ToolError, match="Claude requested permissions to"), workspace.at(path, WRITE):
            pass
        workspace.rules = PathRules(allows_sensitive=lambda path: True)
        with workspace.at(path, WRITE):
            pass


async def test_fifos_and_devices_are_refused_at_once(project: Path) -> None:
    os.mkfifo(project / "fifo")
    (project / "link").symlink_to("fifo")
    names = ["fifo", "link"]
    if os.geteuid() == 0:
        try:
            os.mknod(project / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            names.append("null")
        except PermissionError:
            pass
    with Workspace(project) as workspace:
        for name in names:
            result = await call(ReadTool(workspace), {"file_path": name})
            assert result.is_error
            assert "Cannot read" in str(result.content)


async def test_no_swapped_link_is_read_through(project: Path) -> None:
    (project.parent / "outside" / "a.txt").write_text("SECRET\n")
    (project / "link").symlink_to("../outside")
    with swapping(project / "src", project / "link"), Workspace(project) as workspace:
        tool = ReadTool(workspace)
        seen = {(await call(tool, {"file_path": "src/a.txt"})).content for _ in range(3000)}
    assert "1\tinside\n2\t" in seen
    assert not any("SECRET" in text for text in seen)
