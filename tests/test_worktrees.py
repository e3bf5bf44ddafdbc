"""Copies of projects for agents that edit: what is in them, their patches, and what stays as it was."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sandboxes import program
from worktrees import Folder, Link, Program, contents, everything, git, make_repository, needs_git, write

from claude_force.errors import PatchConflictError, WorktreeError
from claude_force.tools import patches, project_copy
from claude_force.tools.bash_tool import BashTool
from claude_force.tools.edit_tools import WriteTool
from claude_force.tools.glob_tool import GlobTool
from claude_force.tools.patches import apply_patch, apply_patches
from claude_force.tools.protocol import ToolError
from claude_force.tools.read_tool import ReadTool
from claude_force.tools.sandbox import Sandbox
from claude_force.tools.workspace import Workspace
from claude_force.tools.worktree import Worktrees
from claude_force.tools.worktree_folders import worktrees_folder

pytestmark = [needs_git, pytest.mark.skipif(os.name != "posix", reason="there are no copies on Windows")]

ODD_NAMES = [
    "with space.txt",
    "new\nline.txt",
    "tab\t.txt",
    'quote".txt',
    "back\\slash.txt",
    os.fsdecode(b"not-utf8-\xff.txt"),
    "ümlaut-日本.txt",
    ":(top)magic.txt",
    "-dash.txt",
    "a/b/in b/c.txt",
    "*star?[x].txt",
    " leading and trailing ",
]


@pytest.fixture
def worktrees(clean_environment):
    one = Worktrees()
    yield one
    one.close()
    assert left() == []


def left():
    """The folders of copies that are there."""
    folder = worktrees_folder()
    return [one.name for one in folder.iterdir() if one.is_dir()] if folder.exists() else []


def changed(worktrees, project, files, has_bash=True):
    """What the patch of an agent has that writes these files in its copy."""
    worktree = worktrees.open(project, None, has_bash)
    replace_in(worktree.path, files) if not has_bash else write(worktree.path, files)
    try:
        return worktree.changes(), contents(worktree.path)
    finally:
        worktree.close()


def replace_in(folder, files):
    """Writes as Edit and Write do: a new file in the place of the old one."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name("new")
        new.write_bytes(content)
        new.replace(target)


class TestCopy:
    def test_has_what_is_not_committed(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        write(
            project,
            {
                "a.txt": b"changed\n",
                "src/b.py": None,
                "new/c.txt": b"new\n",
                "run.sh": Program(b"#!/bin/sh\n"),
                "link": Link("a.txt"),
                "broken": Link("/nowhere"),
            },
        )
        git(project, "add", "run.sh")
        before = everything(project)
        worktree = worktrees.open(project)
        assert contents(worktree.path) == contents(project)
        assert worktree.changes() == ((), "", None)
        worktree.close()
        assert everything(project) == before

    @pytest.mark.parametrize("has_bash", [True, False])
    def test_has_times_and_permissions(self, worktrees, tmp_path, has_bash):
        project = make_repository(tmp_path / "project", {"a.txt": b"x"})
        os.utime(project / "a.txt", ns=(10**18, 10**18 + 123_456_789))
        (project / "a.txt").chmod(0o440)
        worktree = worktrees.open(project, None, has_bash)
        info = (worktree.path / "a.txt").stat()
        assert (info.st_mtime_ns, stat.S_IMODE(info.st_mode)) == (10**18 + 123_456_789, 0o440)
        worktree.close()

    def test_of_one_run_begin_alike(self, worktrees, tmp_path):
        project, run = make_repository(tmp_path / "project"), threading.Event()
        first = worktrees.open(project, run)
        write(project, {"a.txt": b"later\n"})
        second, other = worktrees.open(project, run), worktrees.open(project, threading.Event())
        assert (second.path / "a.txt").read_bytes() == b"one\ntwo\nthree\n"
        assert (other.path / "a.txt").read_bytes() == b"later\n"
        for one in (first, second, other):
            one.close()

    def test_do_not_see_each_other(self, worktrees, tmp_path):
        project, run = make_repository(tmp_path / "project"), threading.Event()
        for has_bash in (True, False):
            one, other = (worktrees.open(project, run, has_bash) for _ in range(2))
            (replace_in if not has_bash else write)(one.path, {"a.txt": b"mine\n"})
            assert (other.path / "a.txt").read_bytes() == b"one\ntwo\nthree\n"
            assert other.changes().files == ()
            assert one.changes().files == ("a.txt",)
            one.close()
            other.close()

    def test_without_git_repository(self, worktrees, tmp_path):
        project = tmp_path / "plain"
        write(project, {"a.txt": b"one\n", ".gitignore": b"*.log\nout/\n", "x.log": b"l", "out/big": b"o"})
        before = everything(project)
        changes, _ = changed(worktrees, project, {"a.txt": b"two\n", "b.txt": b"new\n", "y.log": b"no"})
        assert changes.files == ("a.txt", "b.txt")
        assert everything(project) == before
        assert apply_patch(changes.patch, project)
        assert contents(project)["b.txt"] == ("file", b"new\n")

    def test_has_ignored_files_that_are_tracked(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {".gitignore": b"build/\n*.cfg\n"})
        write(project, {"build/keep/x.txt": b"tracked\n", "build/out.o": b"no", "t.cfg": b"tracked\n"})
        git(project, "add", "-f", "build/keep/x.txt", "t.cfg")
        worktree = worktrees.open(project)
        assert set(contents(worktree.path)) == {".gitignore", "build/keep/x.txt", "build/out.o", "t.cfg"}
        write(worktree.path, {"build/keep/x.txt": b"edited\n"})
        assert worktree.changes().files == ("build/keep/x.txt",)
        worktree.close()

    @pytest.mark.parametrize("how", ["default", "named"])
    def test_leaves_out_what_the_user_ignores_everywhere(self, worktrees, tmp_path, clean_environment, how):
        project = make_repository(tmp_path / "project", {"a": b"1\n"})
        write(project, {"big/x": b"x", "b": b"2\n"})
        if how == "default":
            write(clean_environment, {".config/git/ignore": b"big/\n"})
        else:
            write(clean_environment, {".gitconfig": b"[core]\n\texcludesFile = ~/mine\n", "mine": b"big/\n"})
        worktree = worktrees.open(project)
        assert set(contents(worktree.path)) == {"a", "b"}
        assert [mount.target for mount in worktree.read_only] == [project / "big"]
        worktree.close()

    def test_is_refused_for_what_is_too_large(self, worktrees, tmp_path, monkeypatch):
        project = make_repository(tmp_path / "project", {"big": b"x" * 2000})
        monkeypatch.setattr(project_copy, "MOST_BYTES", 1000)
        with pytest.raises(WorktreeError, match="in_place"):
            worktrees.open(project)

    def test_is_refused_where_copies_lie(self, worktrees, clean_environment):
        folder = clean_environment / ".claude"
        folder.mkdir(exist_ok=True)
        with pytest.raises(WorktreeError, match="where copies lie"):
            worktrees.open(folder)

    def test_needs_git(self, worktrees, tmp_path, monkeypatch):
        from claude_force.tools import git_commands

        monkeypatch.setattr(git_commands, "_FOLDERS", ())
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(WorktreeError, match="Install git"):
            worktrees.open(make_plain(tmp_path))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_leaves_out_what_can_not_be_read(self, worktrees, tmp_path):
        project = make_plain(tmp_path)
        write(project, {"closed.txt": b"x", "shut/a": b"x"})
        (project / "closed.txt").chmod(0)
        (project / "shut").chmod(0)
        worktree = worktrees.open(project)
        assert set(contents(worktree.path)) == {"a.txt"}
        worktree.close()
        (project / "shut").chmod(0o700)


def make_plain(tmp_path):
    write(tmp_path / "plain", {"a.txt": b"one\n"})
    return tmp_path / "plain"


class TestRepositories:
    def state(self, worktrees, project):
        before = everything(project)
        worktree = worktrees.open(project)
        copied = contents(worktree.path)
        assert everything(project) == before
        status = git(
            worktree.path,
            "status",
            "--porcelain",
            "--branch",
            GIT_ALTERNATE_OBJECT_DIRECTORIES=str(project / ".git" / "objects"),
        )
        worktree.close()
        return copied, status

    def test_without_commits(self, worktrees, tmp_path):
        project = tmp_path / "project"
        project.mkdir()
        git(project, "init", "-q")
        write(project, {"a.txt": b"x\n"})
        copied, status = self.state(worktrees, project)
        assert copied == contents(project)
        assert status == "## No commits yet on main\n?? a.txt\n"

    def test_with_detached_head_and_staged_changes(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        git(project, "checkout", "-q", "--detach")
        write(project, {"a.txt": b"staged\n"})
        git(project, "add", "a.txt")
        write(project, {"a.txt": b"after\n"})
        assert self.state(worktrees, project)[1] == "## HEAD (no branch)\nMM a.txt\n"

    def test_with_a_merge_in_progress(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        git(project, "checkout", "-q", "-b", "other")
        write(project, {"a.txt": b"other\n"})
        git(project, "commit", "-qam", "other")
        git(project, "checkout", "-q", "main")
        write(project, {"a.txt": b"main\n"})
        git(project, "commit", "-qam", "main")
        git(project, "merge", "other", check=False)
        copied, status = self.state(worktrees, project)
        assert b"<<<<<<<" in copied["a.txt"][1]
        assert status == "## main\nUU a.txt\n"

    def test_with_a_sparse_checkout(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {"in/a": b"1", "out/b": b"2", "c": b"3"})
        git(project, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
        assert not (project / "out").exists()
        assert set(self.state(worktrees, project)[0]) == {"in/a", "c"}

    def test_with_a_split_index(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {".gitignore": b"*.cfg\n"})
        write(project, {"t.cfg": b"tracked\n"})
        git(project, "add", "-f", "t.cfg")
        git(project, "update-index", "--split-index")
        assert list((project / ".git").glob("sharedindex.*"))
        copied, status = self.state(worktrees, project)
        assert set(copied) == {".gitignore", "t.cfg"}
        assert status == "## main\nA  t.cfg\n"

    def test_with_submodules(self, worktrees, tmp_path):
        inner = make_repository(tmp_path / "inner", {"lib.c": b"int x;\n"})
        project = make_repository(tmp_path / "project")
        git(project, "submodule", "-q", "add", str(inner), "lib")
        git(project, "commit", "-qam", "lib")
        before = everything(project)
        changes, copied = changed(worktrees, project, {"lib/lib.c": b"int y;\n"})
        assert copied["lib/lib.c"] == ("file", b"int y;\n")
        assert changes.files == ("lib/lib.c",)
        assert everything(project) == before
        assert apply_patch(changes.patch, project)
        assert (project / "lib/lib.c").read_bytes() == b"int y;\n"

    def test_that_is_a_worktree_of_another(self, worktrees, tmp_path):
        main = make_repository(tmp_path / "main")
        git(main, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
        before = everything(tmp_path)
        worktree = worktrees.open(tmp_path / "side")
        assert (worktree.path / ".git" / "HEAD").read_text() == "ref: refs/heads/side\n"
        assert worktree.mounts[-1].source == main / ".git" / "objects"
        worktree.close()
        assert everything(tmp_path) == before

    def test_with_large_files_of_lfs(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {".gitattributes": b"*.bin filter=lfs -text\n"})
        write(project, {"big.bin": b"version https://git-lfs...\n"})
        git(project, "add", "-A")
        git(project, "commit", "-qm", "pointer")
        write(project, {"big.bin": b"the whole content\0"})
        copied, _ = self.state(worktrees, project)
        assert copied["big.bin"] == ("file", b"the whole content\0")
        changes, _ = changed(worktrees, project, {"a": b"x\n"})
        assert changes.files == ("a",)

    def test_with_converted_line_ends(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {".gitattributes": b"* text eol=crlf ident\n"})
        write(project, {"a.txt": b"one\r\ntwo $Id$\r\n"})
        changes, _ = changed(worktrees, project, {"a.txt": b"one\r\nTWO $Id$\r\n"})
        assert apply_patch(changes.patch, project)
        assert (project / "a.txt").read_bytes() == b"one\r\nTWO $Id$\r\n"


class TestHostileRepositories:
    """Whatever `.git` says, no program is started and nothing outside is read."""

    @pytest.fixture
    def project(self, tmp_path):
        project = make_repository(tmp_path / "project")
        write(project, {"u.txt": b"untracked\n"})
        return project

    def check(self, worktrees, project):
        mark = project.parent / "ran"
        changes, copied = changed(worktrees, project, {"a.txt": b"edited\n", "n.bin": b"\0"})
        assert changes.files == ("a.txt", "n.bin")
        assert apply_patch(changes.patch, project)
        assert not mark.exists()
        return copied

    def test_configuration_that_names_programs(self, worktrees, project):
        run = f"touch {project.parent / 'ran'}; cat"
        hooks = project / "hooks"
        for name in ("post-checkout", "pre-commit", "post-index-change", "pre-applypatch", "post-applypatch"):
            write(hooks, {name: Program(f"#!/bin/sh\n{run}\n".encode())})
        with (project / ".git" / "config").open("a") as config:
            config.write(
                f'[core]\n\tfsmonitor = "{run}"\n\tsshCommand = "{run}"\n\tpager = "{run}"\n'
                f'\teditor = "{run}"\n\thooksPath = {hooks}\n\talternateRefsCommand = "{run}"\n'
                f'[diff]\n\texternal = "{run}"\n[diff "x"]\n\ttextconv = "{run}"\n\tcommand = "{run}"\n'
                f'[filter "x"]\n\tclean = "{run}"\n\tsmudge = "{run}"\n\tprocess = "{run}"\n'
                f"\trequired = true\n"
                f'[credential]\n\thelper = "!{run}"\n[extensions]\n\tpartialClone = origin\n'
                f'[remote "origin"]\n\turl = "ext::sh -c {run}"\n\tpromisor = true\n'
                f'[alias]\n\tdiff = "!{run}"\n'
            )
        write(project, {".gitattributes": b"* filter=x diff=x\n"})
        self.check(worktrees, project)

    def test_files_that_never_end(self, worktrees, project):
        os.mkfifo(project.parent / "fifo")
        with (project / ".git" / "config").open("a") as config:
            config.write(
                f"[include]\n\tpath = {project.parent / 'fifo'}\n[core]\n\texcludesFile = /dev/zero\n"
            )
        for name in ("ORIG_HEAD", "MERGE_HEAD", "packed-refs", "shallow", "refs/heads/fifo"):
            os.mkfifo(project / ".git" / name)
        (project / ".git" / "info" / "exclude").unlink()
        os.mkfifo(project / ".git" / "info" / "exclude")
        began = time.monotonic()
        self.check(worktrees, project)
        assert time.monotonic() - began < 30

    def test_ignore_file_that_never_ends(self, worktrees, project):
        os.mkfifo(project / "src" / ".gitignore")
        with pytest.raises(WorktreeError, match="src/.gitignore"):
            worktrees.open(project)

    def test_index_that_is_none(self, worktrees, project, caplog):
        (project / ".git" / "index").write_bytes(b"DIRC" + b"\xff" * 1000)
        assert "a.txt" in self.check(worktrees, project)
        assert "index" in caplog.text

    def test_index_with_paths_outside(self, worktrees, project, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("secret")
        index = project / ".git" / "index"
        data = index.read_bytes().replace(b"src/b.py", b"../secre")
        index.write_bytes(data)
        assert not any("secre" in path for path in self.check(worktrees, project))

    @pytest.mark.parametrize("name", ["objects", "HEAD", "refs", "config"])
    def test_links_to_another_repository(self, worktrees, project, tmp_path, name):
        other = make_repository(tmp_path / "other", {"s.txt": b"secret\n"})
        path = project / ".git" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(other / ".git" / name)
        worktree = worktrees.open(project)
        assert not any(str(other) in str(mount.source.resolve()) for mount in worktree.mounts)
        assert git(other, "rev-parse", "HEAD").strip() not in str(contents(worktree.path, True))
        worktree.close()

    @pytest.mark.parametrize("how", ["file", "link", "commondir"])
    def test_git_folder_elsewhere(self, worktrees, tmp_path, how):
        other = make_repository(tmp_path / "other", {"s.txt": b"secret\n"})
        project = tmp_path / "hostile"
        write(project, {"a.txt": b"one\n"})
        if how == "file":
            (project / ".git").write_text(f"gitdir: {other}/.git\n")
        elif how == "link":
            (project / ".git").symlink_to(other / ".git")
        else:
            git(project, "init", "-q")
            (project / ".git" / "commondir").write_text(f"{other}/.git\n")
        worktree = worktrees.open(project)
        assert not any(str(other) in str(mount.source) for mount in worktree.mounts)
        assert git(other, "rev-parse", "HEAD").strip() not in str(contents(worktree.path, True))
        worktree.close()

    async def test_alternates_lead_nowhere(self, worktrees, tmp_path):
        program()
        other = make_repository(tmp_path / "other", {"s.txt": b"secret\n"})
        project = make_repository(tmp_path / "project")
        (project / ".git/objects/info/alternates").write_text(f"{other}/.git/objects\n")
        secret = git(other, "rev-parse", "HEAD:s.txt").strip()
        with Agent(worktrees, project) as agent:
            assert "secret" not in await agent.bash(f"git cat-file -p {secret}")


class TestPatch:
    @pytest.mark.parametrize("has_bash", [True, False])
    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_of_odd_names(self, worktrees, tmp_path, name, has_bash):
        project = make_repository(tmp_path / "project", {name: b"one\n", "other.txt": b"x\n"})
        changes, after = changed(worktrees, project, {name: b"two\n", f"{name}.new": b"3\n"}, has_bash)
        assert len(changes.files) == 2
        changes.patch.encode("utf-8")
        assert apply_patch(changes.patch, project)
        assert contents(project) == after

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"a\r\nb\n", b"a\r\nB\n"),
            (b"no end", b"no end at all"),
            (b"latin \xe9\n", b"latin \xe8\n"),
            (b"", b"x\n"),
            (b"x\n", b""),
            (b"x\n", None),
            (None, b""),
            (None, b"\0\1\2" * 1000),
            (b"\0" * 100, b"\0" * 99 + b"\1"),
            (b"late" * 5000, b"late" * 5000 + b"\0"),
            (b"x\n", Program(b"x\n")),
            (Program(b"x\n"), b"y\n"),
            (b"x\n", Link("other.txt")),
            (Link("other.txt"), Link("a")),
            (Link("other.txt"), b"file\n"),
            (None, Link("/etc/passwd")),
            (None, Link(os.fsdecode(b"\xff"))),
            (None, Program(b"")),
            (b"diff --git a/x b/x\nrename from a/y\n", b"diff --git a/x b/x\nrename from b/y\n"),
            (b"\xef\xbb\xbfbom\n", b"\xef\xbb\xbfBOM\n"),
        ],
    )
    def test_of_odd_contents(self, worktrees, tmp_path, before, after):
        first = {"other.txt": b"x\n", **({} if before is None else {"t.x": before})}
        project = make_repository(tmp_path / "project", first)
        changes, expected = changed(worktrees, project, {"t.x": after})
        assert changes.files == ("t.x",)
        assert apply_patch(json.loads(json.dumps(changes.patch)), project)
        assert contents(project) == expected

    def test_of_renames_folders_and_special_files(self, worktrees, tmp_path):
        text = b"".join(b"line %d\n" % number for number in range(30))
        project = make_repository(tmp_path / "project", {"old name": text, "f": b"file\n", "d/x": b"1\n"})
        worktree = worktrees.open(project)
        write(worktree.path, {"old name": None, "b/new name": text + b"more\n", "f": None, "d": None})
        write(worktree.path, {"f/x": b"folder\n", "d": b"file\n", "empty": Folder()})
        os.mkfifo(worktree.path / "fifo")
        changes, expected = worktree.changes(), contents(worktree.path)
        worktree.close()
        assert changes.files == ("b/new name", "d", "d/x", "f", "f/x", "old name")
        assert "rename from old name\nrename to b/new name\n" in changes.patch
        assert apply_patch(changes.patch, project)
        assert contents(project) == expected

    def test_has_what_was_closed_to_its_owner(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        worktree = worktrees.open(project)
        write(worktree.path, {"a.txt": b"closed\n", "src/b.py": b"x = 2\n"})
        (worktree.path / "a.txt").chmod(0)
        (worktree.path / "src").chmod(0)
        assert worktree.changes().files == ("a.txt", "src/b.py")
        worktree.close()

    def test_has_changes_that_look_old(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {"a.txt": b"1\n"})
        worktree = worktrees.open(project)
        path = worktree.path / "a.txt"
        info = path.stat()
        path.write_bytes(b"2\n")
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        assert worktree.changes().files == ("a.txt",)
        worktree.close()

    def test_has_no_ignored_files_and_no_repositories(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {".gitignore": b"*.log\nout/\n", "a": b"1\n"})
        new = {
            "x.log": b"l",
            "out/y": b"o",
            "sub/.git/config": b"[core]\n\tfsmonitor=false\n",
            "sub/z": b"z\n",
        }
        changes, _ = changed(worktrees, project, {**new, "deep/.git": b"gitdir: /\n", "deep/w": b"w\n"})
        assert changes.files == ("deep/w", "sub/z")

    def test_does_not_wait_for_ignore_files_of_an_agent(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project", {".gitignore": b"*.log\n", "a": b"1\n"})
        worktree = worktrees.open(project)
        write(worktree.path, {"a": b"2\n", "new/x": b"x\n", "big/y": b"y\n"})
        os.mkfifo(worktree.path / "new" / ".gitignore")
        write(worktree.path, {"big/.gitignore": b"#" * 2_000_000})
        assert worktree.changes().files == ("a", "big/y", "new/x")
        worktree.close()

    def test_is_left_out_when_it_is_too_large(self, worktrees, tmp_path, monkeypatch):
        project = make_repository(tmp_path / "project")
        monkeypatch.setattr(patches, "MOST_PATCH", 2000)
        changes, _ = changed(worktrees, project, {"big.bin": os.urandom(5000), "b": b"1\n"})
        assert (changes.files, changes.patch) == (("b", "big.bin"), None)
        assert (changes.note.reason, changes.note.most) == ("too_large", 2000)
        monkeypatch.setattr(patches, "MOST_COMPARED", 3000)
        changes, _ = changed(worktrees, project, {"big.bin": os.urandom(5000)})
        assert (changes.note.bytes, changes.note.most) == (5000, 3000)

    def test_is_the_same_again(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        new = {"a.txt": b"x\n", "n": b"\0", "o": Link("a.txt")}
        first, second = (changed(worktrees, project, new)[0] for _ in range(2))
        assert first == second


names = st.sampled_from(["a", "b", "c/d", "c/e f", "g/ü"])
things = st.one_of(
    st.binary(max_size=20),
    st.lists(st.sampled_from([b"x\n", b"y\n", b"z"]), max_size=12).map(b"".join),
    st.binary(max_size=8).map(Program),
    st.sampled_from(["a", "c/d", "nowhere"]).map(Link),
)
trees = st.dictionaries(names, things, max_size=5)


@given(trees, trees)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_applying_a_patch_gives_what_the_agent_made(tmp_path_factory, clean_environment, before, after):
    folder = tmp_path_factory.mktemp("p")
    project = folder / "project"
    project.mkdir()
    write(project, before)
    worktrees = Worktrees()
    worktree = worktrees.open(project)
    write(worktree.path, dict.fromkeys(before))
    write(worktree.path, after)
    changes, expected = worktree.changes(), contents(worktree.path)
    worktrees.close()
    assert apply_patch(changes.patch, project) == (contents(project) != expected or bool(changes.patch))
    assert contents(project) == expected


class TestApply:
    def patch(self, worktrees, project, files):
        return changed(worktrees, project, files)[0].patch

    def test_leaves_index_and_repository_alone(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        patch = self.patch(worktrees, project, {"a.txt": b"1\n", "n": b"n\n"})
        before = everything(project / ".git")
        assert apply_patch(patch, project)
        assert everything(project / ".git") == before
        assert git(project, "status", "--porcelain") == " M a.txt\n?? n\n"

    def test_of_a_row_that_conflicts_is_listed(self, worktrees, tmp_path):
        lines = [b"line %d\n" % number for number in range(40)]
        project = make_repository(tmp_path / "project", {"a": b"".join(lines)})

        def edit(number, text):
            return self.patch(
                worktrees, project, {"a": b"".join([*lines[:number], text, *lines[number + 1 :]])}
            )

        rows = [(1, edit(2, b"first\n")), (2, edit(2, b"second\n")), (3, edit(30, b"third\n")), (4, "")]
        done = apply_patches(rows, project)
        assert done.applied == (1, 3, 4)
        assert [position for position, _ in done.conflicts] == [2]
        assert "a" in done.conflicts[0][1]
        text = (project / "a").read_bytes()
        assert b"first" in text and b"third" in text and b"second" not in text
        # Again: what is there stays.
        assert apply_patches(rows, project).applied == (1, 3, 4)
        assert (project / "a").read_bytes() == text

    @pytest.mark.parametrize("path", ["../outside", ".git/hooks/pre-commit", "link/x", "/etc/x"])
    def test_refuses_what_lies_outside(self, tmp_path, path):
        project = make_repository(tmp_path / "project")
        (tmp_path / "elsewhere").mkdir()
        (project / "link").symlink_to(tmp_path / "elsewhere")
        text = f"diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n"
        text += f"+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        before = everything(tmp_path)
        with pytest.raises((PatchConflictError, WorktreeError)):
            apply_patch(text, project)
        assert everything(tmp_path) == before

    @pytest.mark.parametrize(
        "text", ["nonsense", "diff --git a/x b/x\n", "\0", "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n"]
    )
    def test_refuses_what_is_no_patch(self, tmp_path, text):
        with pytest.raises(WorktreeError):
            apply_patch(text, make_repository(tmp_path / "project"))


class Agent:
    """The tools of one agent in a copy."""

    def __init__(self, worktrees, project):
        self.worktree = worktrees.open(project)
        read_only = [mount.source for mount in self.worktree.read_only]
        self.workspace = Workspace(self.worktree.path, writable=True, shown_as=project, read_only=read_only)
        sandbox = Sandbox(
            self.worktree.path, is_writable=True, shown_as=project, read_only=self.worktree.mounts
        )
        self._bash = BashTool(self.workspace, sandbox, program())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.workspace.close()
        self.worktree.close()

    async def bash(self, command):
        return (await self._bash.run({"command": command})).content


class TestSandbox:
    @pytest.fixture
    def project(self, tmp_path):
        program()
        project = make_repository(tmp_path / "project", {".gitignore": b"node_modules/\n", "a.txt": b"one\n"})
        write(project, {"node_modules/m/index.js": b"module\n", "new.txt": b"untracked\n"})
        return project

    async def test_git_works_in_a_copy(self, worktrees, project):
        before = everything(project)
        with Agent(worktrees, project) as agent:
            assert await agent.bash("pwd") == str(project)
            assert await agent.bash("git status --short") == "?? new.txt"
            assert "first" in await agent.bash("git log --oneline")
            commit = "git -c user.name=A -c user.email=a@b.invalid commit -qm second"
            assert "Exit code" not in await agent.bash(f"echo two > a.txt && git add -A && {commit}")
            assert await agent.bash("git log --format=%s") == "second\nfirst"
            changes = agent.worktree.changes()
        assert changes.files == ("a.txt",)
        assert everything(project) == before

    async def test_ignored_folders_can_only_be_read(self, worktrees, project):
        before = everything(project)
        with Agent(worktrees, project) as agent:
            assert await agent.bash("cat node_modules/m/index.js") == "module"
            assert "Read-only" in await agent.bash("echo x > node_modules/m/index.js")
            assert "Exit code" in await agent.bash("mv node_modules old || rm -rf node_modules")
            assert "Exit code" in await agent.bash("echo x > /run/project-objects/x")
            read = await ReadTool(agent.workspace).run({"file_path": "node_modules/m/index.js"})
            assert read.content == "1\tmodule\n2\t"
            found = await GlobTool(agent.workspace).run({"pattern": "**/*.js"})
            assert found.content == "node_modules/m/index.js"
            with pytest.raises(ToolError, match="haven't granted"):
                await WriteTool(agent.workspace).run({"file_path": "node_modules/x", "content": "x"})
            assert agent.worktree.changes().files == ()
        assert everything(project) == before

    async def test_nothing_of_the_copys_place_is_seen(self, worktrees, project):
        with Agent(worktrees, project) as agent:
            shown = await agent.bash("cat /proc/self/mountinfo; env; ls -la / ~ ; git config --list; mount")
            assert await agent.bash("readlink -f a.txt") == str(project / "a.txt")
            assert str(worktrees_folder()) not in await agent.bash("env; ls -la ~; git config --list")
        assert "copy-" not in shown.replace(str(agent.worktree.path), "")


class TestEnds:
    def test_of_a_killed_process_is_removed_by_the_next(self, worktrees, tmp_path, clean_environment):
        project = make_repository(tmp_path / "project")
        code = (
            "import sys, time; from pathlib import Path; from claude_force.tools.worktree import Worktrees\n"
            "w = Worktrees(); w.open(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
        )
        before = everything(project)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(project)],
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(clean_environment)},
        ) as process:
            assert process.stdout.readline() == b"open\n"
            (running,) = left()
            assert (worktrees_folder() / running / "process").read_text() == f"{process.pid}\n"
            mine = worktrees.open(project)
            assert running in left(), "that of a running process was removed"
            process.send_signal(signal.SIGKILL)
        mine.close()
        worktrees.close()
        other = Worktrees()
        other.open(project).close()
        assert running not in left()
        other.close()
        assert everything(project) == before

    def test_whatever_the_agent_has_closed(self, worktrees, tmp_path):
        project = make_repository(tmp_path / "project")
        worktree = worktrees.open(project)
        write(worktree.path, {"shut/in/x": b"x"})
        (worktree.path / "shut" / "in").chmod(0)
        (worktree.path / "shut").chmod(0)
        path = worktree.path
        worktree.close()
        assert not path.exists()

    def test_are_private(self, worktrees, tmp_path):
        worktrees.open(make_plain(tmp_path))
        assert stat.S_IMODE(worktrees_folder().stat().st_mode) == 0o700

    def test_a_hundred_at_once(self, worktrees, tmp_path):
        project, run = make_repository(tmp_path / "project"), threading.Event()

        def work(number):
            worktree = worktrees.open(project, run, number % 2 == 0)
            replace_in(worktree.path, {"a.txt": b"%d\n" % number})
            try:
                return worktree.changes().patch
            finally:
                worktree.close()

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(work, range(100)))
        assert all(f"\n+{number}\n" in patch for number, patch in enumerate(found))
        folder = worktrees_folder() / left()[0]
        assert [one.name for one in folder.iterdir() if one.name.startswith("copy")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_another_user_has_copies_of_a_project_that_is_not_theirs(worktrees, clean_environment):
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        project = make_repository(folder / "project", {"a.txt": b"one\n", "closed": b"secret\n"})
        (project / "closed").chmod(0o600)
        home = folder / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        before = everything(project)
        child = os.fork()
        if not child:
            os._exit(_as_another_user(project, home))
        assert os.waitpid(child, 0)[1] == 0
        assert everything(project) == before
        assert list((home / ".claude" / "worktrees").iterdir()) == [home / ".claude" / "worktrees" / "lock"]
    finally:
        shutil.rmtree(folder)


def _as_another_user(project, home):
    """Works in a copy. Returns a number that says where it failed; 0 where it did not."""
    os.environ["HOME"] = tempfile.tempdir = str(home)
    os.chdir(home)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        worktrees = Worktrees()
        worktree = worktrees.open(project)
        if set(contents(worktree.path)) != {"a.txt"}:
            return 2
        write(worktree.path, {"a.txt": b"two\n", "new": b"\0"})
        changes = worktree.changes()
        worktrees.close()
        return 0 if changes.files == ("a.txt", "new") and "+two" in changes.patch else 3
    except BaseException:
        traceback.print_exc()
        return 1
