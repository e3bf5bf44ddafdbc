"""Projects with real git repositories, and what is in them, byte for byte."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

NO_GIT = shutil.which("git") is None
needs_git = pytest.mark.skipif(NO_GIT, reason="there is no git")


def git(folder, *arguments, check=True, **environment):
    """Runs git as its user would, with a configuration of the test's own; returns its output."""
    home = Path(folder).parent / "git-home"
    home.mkdir(exist_ok=True)
    (home / ".gitconfig").write_text(
        "[user]\n\tname = T\n\temail = t@example.invalid\n[init]\n\tdefaultBranch = main\n"
        '[protocol "file"]\n\tallow = always\n[safe]\n\tdirectory = *\n'
    )
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape")


def make_repository(folder, files=None):
    """A repository with one commit of `files`, each by its path."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    write(folder, {"a.txt": b"one\ntwo\nthree\n", "src/b.py": b"x = 1\n"} if files is None else files)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def write(folder, files):
    """Writes files by their paths; `Link` makes a link, None removes."""
    for path, content in files.items():
        target = folder / path
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif content is None or (target.is_dir() and not isinstance(content, Folder)):
            shutil.rmtree(target)
        if content is None:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            target.symlink_to(content.target)
        elif isinstance(content, Program):
            target.write_bytes(content.data)
            target.chmod(0o755)
        elif not isinstance(content, Folder):
            target.write_bytes(content)


class Link:
    def __init__(self, target):
        self.target = target


class Program:
    """An executable file."""

    def __init__(self, data):
        self.data = data


class Folder:
    """An empty folder, which git does not know."""


def contents(folder, with_git=False):
    """What git would see of all files below a folder: (kind, content) by path."""
    found = {}
    for path, info in _entries(folder):
        if not with_git and ".git" in path.split("/"):
            continue
        whole = os.path.join(folder, path)  # noqa: PTH118
        if stat.S_ISLNK(info.st_mode):
            found[path] = ("link", os.readlink(whole))
        elif stat.S_ISREG(info.st_mode):
            kind = "program" if info.st_mode & stat.S_IXUSR else "file"
            found[path] = (kind, Path(whole).read_bytes())
    return found


def everything(folder):
    """All that a change of a project would show in: of `.git` too, and with modes and times."""
    files = contents(folder, with_git=True)
    return {
        path: (info.st_mode, info.st_uid, info.st_ino, info.st_size, info.st_mtime_ns, files.get(path))
        for path, info in _entries(folder)
    }


def _entries(folder):
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            whole = os.path.join(path, name)  # noqa: PTH118
            yield os.path.relpath(whole, folder), os.lstat(whole)
