"""What the package writes never goes through a link, and changes no mode of what the package did not make."""

import contextlib
import errno
import functools
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fleet import write_project

from claude_force import ResponseCache
from claude_force.cli.main import main
from claude_force.errors import CacheError
from claude_force.performance_tracker import PerformanceTracker
from claude_force.storage.private_files import (
    Folder,
    UnsafePathError,
    check_database,
    expect_folder,
    expect_regular,
    open_private,
    read_private,
)

resource = pytest.importorskip("resource", reason="links and FIFOs of POSIX")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and FIFOs of POSIX")

RUN = ["run", "agent", "python-expert", "--task", "x", "--cache", "off"]
OWN = "alias ll='ls -l'\n"


@pytest.fixture
def bashrc(clean_environment):
    """A file outside of the project, with a mode that nothing of the package's has."""
    path = clean_environment / ".bashrc"
    path.write_text(OWN, encoding="utf-8")
    path.chmod(0o644)
    return path


def is_untouched(path):
    return (path.read_text(encoding="utf-8"), stat.S_IMODE(path.stat().st_mode)) == (OWN, 0o644)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def content(descriptor):
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def lowest_free():
    """The next descriptor that the system will give: a leak moves it."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@contextlib.contextmanager
def descriptors_left(count):
    """Lets the process open so many more files, and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free() + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def umask(mode):
    before = os.umask(mode)
    try:
        yield
    finally:
        os.umask(before)


_watched = {}


def _on_event(event, arguments):
    act = None
    if event == "open" and isinstance(arguments[0], str):
        act = _watched.pop(Path(arguments[0]).name, None)
    elif event == "os.chmod":
        act = _watched.pop(event, None)
    if act is not None:
        act(arguments[2])


@functools.lru_cache(maxsize=None)
def install_hook():
    """Once: an audit hook stays as long as the process."""
    sys.addaudithook(_on_event)


@pytest.fixture
def before_opening():
    """`before_opening(path, act)`: calls `act(flags)` before each opening of the name."""
    install_hook()

    def watch(path, act):
        def again(flags):
            act(flags)
            _watched[path.name] = again

        _watched[path.name] = again

    yield watch
    _watched.clear()


@pytest.fixture
def refused_modes():
    def refuse(descriptor):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    install_hook()
    _watched["os.chmod"] = refuse
    yield
    _watched.clear()


def make_link(path):
    outside = path.parent.parent / "outside"
    outside.write_text(OWN, encoding="utf-8")
    path.symlink_to(outside)


@contextlib.contextmanager
def in_folder(path):
    """A socket's path has to be short."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server, in_folder(path.parent):
        server.bind(path.name)


KINDS = {
    "link": (make_link, errno.ELOOP, "is a symbolic link"),
    "folder": (Path.mkdir, errno.EISDIR, "is not a file but a folder"),
    "fifo": (os.mkfifo, errno.EINVAL, "is not a file but a FIFO"),
    "socket": (make_socket, errno.EINVAL, "is not a file but a socket"),
}
BY_PATH = pytest.mark.parametrize("by_path", [False, True], ids=["descriptors", "paths"])


class TestFolder:
    @pytest.fixture(params=[False, True], ids=["descriptors", "paths"])
    def folder(self, request, tmp_path):
        (tmp_path / "base").mkdir()
        with Folder(tmp_path / "base", tmp_path, by_path=request.param) as folder:
            yield folder

    @pytest.fixture(params=KINDS)
    def irregular(self, request, folder):
        """What is no regular file, as `file` in the folder; the error that it makes."""
        make, code, words = KINDS[request.param]
        make(folder.path / "file")
        return code, words

    @pytest.mark.parametrize("flags", [None, 0, os.O_APPEND, os.O_TRUNC])
    def test_refuses_irregular_files(self, folder, irregular, flags):
        code, words = irregular
        before = lowest_free()
        with pytest.raises(UnsafePathError, match=words) as caught:
            folder.read("file") if flags is None else folder.open("file", flags)
        path = str(folder.path / "file")
        assert (caught.value.errno, caught.value.filename) == (code, path)
        assert str(caught.value).startswith(path)
        assert lowest_free() == before

    def test_refuses_a_terminal(self, folder):
        (folder.path / "file").symlink_to("/dev/tty")
        with pytest.raises(UnsafePathError, match="symbolic link"):
            folder.open("file")

    @pytest.mark.parametrize("flags", [None, 0])
    def test_refuses_a_device(self, flags):
        with Folder(Path("/dev"), Path("/")) as folder, pytest.raises(UnsafePathError, match="a device"):
            folder.read("null") if flags is None else folder.open("null", flags)

    def test_refuses_a_hard_link(self, folder, tmp_path):
        (tmp_path / "other").write_text(OWN, encoding="utf-8")
        os.link(tmp_path / "other", folder.path / "file")
        before = lowest_free()
        with pytest.raises(UnsafePathError, match="file is a hard link") as caught:
            folder.open("file", os.O_TRUNC)
        assert (caught.value.errno, caught.value.filename) == (errno.EMLINK, str(folder.path / "file"))
        assert lowest_free() == before
        assert content(folder.read("file")) == OWN.encode()

    def test_reads_a_file(self, folder):
        (folder.path / "file").write_bytes(b"text")
        descriptor = folder.read("file")
        with pytest.raises(OSError):
            os.write(descriptor, b"x")
        assert content(descriptor) == b"text"

    def test_reads_nothing_that_is_missing(self, folder):
        with pytest.raises(FileNotFoundError) as caught:
            folder.read("file")
        assert caught.value.filename == str(folder.path / "file")
        assert folder.names() == []

    @pytest.mark.parametrize(
        "flags, expected",
        [(0, b"XYxt"), (os.O_APPEND, b"textXY"), (os.O_TRUNC, b"XY"), (os.O_TRUNC | os.O_APPEND, b"XY")],
    )
    def test_writes_as_flags_say(self, folder, flags, expected):
        (folder.path / "file").write_bytes(b"text")
        with os.fdopen(folder.open("file", flags), "r+b", buffering=0) as file:
            file.write(b"XY")
        assert content(folder.read("file")) == expected

    def test_exclusive_takes_no_old_file(self, folder):
        (folder.path / "file").write_bytes(b"text")
        with pytest.raises(FileExistsError) as caught:
            folder.open("file", os.O_EXCL | os.O_TRUNC)
        assert caught.value.filename == str(folder.path / "file")
        assert content(folder.read("file")) == b"text"
        os.close(folder.open("new", os.O_EXCL))
        assert sorted(folder.names()) == ["file", "new"]

    @pytest.mark.parametrize(
        "asked, narrowed, expected", [(0o600, 0o777, 0o600), (0o600, 0o022, 0o600), (0o666, 0o026, 0o640)]
    )
    def test_mode_of_a_new_file(self, folder, asked, narrowed, expected):
        with umask(narrowed):
            os.close(folder.open("file", mode=asked))
        assert mode(folder.path / "file") == expected

    @pytest.mark.usefixtures("refused_modes")
    def test_mode_can_not_be_set(self, folder):
        """As on file systems that have one mode for all files."""
        before = lowest_free()
        with umask(0o777), pytest.raises(PermissionError) as caught:
            folder.open("file")
        assert caught.value.filename == str(folder.path / "file")
        assert lowest_free() == before

    def test_mode_of_an_old_file_stays(self, folder):
        (folder.path / "file").touch()
        (folder.path / "file").chmod(0o640)
        os.close(folder.open("file", os.O_TRUNC))
        assert mode(folder.path / "file") == 0o640

    def test_names_the_file_in_errors(self, folder):
        """Of an error of the system that says nothing of links."""
        name = "n" * 300
        for use in (folder.read, folder.open):
            with pytest.raises(OSError) as caught:
                use(name)
            assert (caught.value.errno, caught.value.filename) == (
                errno.ENAMETOOLONG,
                str(folder.path / name),
            )

    def test_refuses_a_running_program(self, folder):
        """The file is regular, and the system lets nobody write it."""
        program = folder.path / "program"
        shutil.copy(shutil.which("sleep"), program)
        with subprocess.Popen([str(program), "30"]) as running:
            try:
                with pytest.raises(OSError) as caught:
                    folder.open("program")
            finally:
                running.kill()
        assert (caught.value.errno, caught.value.filename) == (errno.ETXTBSY, str(program))

    def test_made_by_another_process(self, folder, before_opening):
        """Between the look for the file and its making."""
        path = folder.path / "file"
        before_opening(path, lambda flags: path.write_bytes(b"text") if flags & os.O_CREAT else None)
        assert content(folder.open("file")) == b"text"

    def test_made_and_removed_for_ever(self, folder, before_opening):
        path = folder.path / "file"
        seen = []

        def others(flags):
            seen.append(flags)
            path.touch() if flags & os.O_CREAT else path.unlink()

        path.touch()
        before_opening(path, others)
        with pytest.raises(FileExistsError):
            folder.open("file")
        assert len(seen) == 201

    def test_renames_and_removes(self, folder):
        for name in ("old", "new"):
            (folder.path / name).write_text(name, encoding="utf-8")
        folder.replace("old", "new")
        assert content(folder.read("new")) == b"old"
        assert folder.has("new") and not folder.has("old")
        folder.unlink("new")
        assert folder.names() == []

    def test_closed_reaches_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "inner").mkdir()
        folder = Folder(tmp_path / "inner", tmp_path)
        folder.close()
        folder.close()
        for use in (folder.open, folder.read, folder.stat, folder.unlink):
            with pytest.raises(OSError):
                use("file")
        assert list(tmp_path.iterdir()) == [tmp_path / "inner"]


@BY_PATH
class TestWayToFolder:
    @pytest.mark.parametrize("make", [False, True])
    @pytest.mark.parametrize("way", ["part", "part/inner", "up/part", "up/part/inner"])
    def test_refuses_a_link(self, tmp_path, by_path, way, make):
        (tmp_path / "outside").mkdir()
        (tmp_path / "up").mkdir()
        for link in ("part", "up/part"):
            (tmp_path / link).symlink_to(tmp_path / "outside")
        before = lowest_free()
        with pytest.raises(UnsafePathError, match="is a symbolic link") as caught:
            Folder(tmp_path / way, tmp_path, make, by_path=by_path)
        link = str(tmp_path / way.partition("/inner")[0])
        assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, link)
        assert not list((tmp_path / "outside").iterdir())
        assert lowest_free() == before

    def test_refuses_a_dangling_link(self, tmp_path, by_path):
        (tmp_path / "part").symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePathError, match="part is a symbolic link"):
            Folder(tmp_path / "part", tmp_path, make=True, by_path=by_path)
        assert not (tmp_path / "outside").exists()

    @pytest.mark.parametrize("make", [False, True])
    @pytest.mark.parametrize("kind", [Path.touch, os.mkfifo])
    def test_refuses_what_is_no_folder(self, tmp_path, by_path, make, kind):
        (tmp_path / "up").mkdir()
        kind(tmp_path / "up" / "part")
        for way in ("up/part", "up/part/inner"):
            with pytest.raises(NotADirectoryError) as caught:
                Folder(tmp_path / way, tmp_path, make, by_path=by_path)
            part = str(tmp_path / "up" / "part")
            assert (caught.value.errno, caught.value.filename) == (errno.ENOTDIR, part)
            assert caught.value.strerror == f"{part} is not a folder"

    def test_makes_none_unasked(self, tmp_path, by_path):
        (tmp_path / "up").mkdir()
        with pytest.raises(FileNotFoundError) as caught:
            Folder(tmp_path / "up" / "part", tmp_path, by_path=by_path)
        assert caught.value.filename == str(tmp_path / "up" / "part")
        assert not list((tmp_path / "up").iterdir())
        with pytest.raises(FileNotFoundError):
            Folder(tmp_path / "none" / "part", tmp_path / "none", by_path=by_path)

    @pytest.mark.parametrize("asked, expected", [(0o700, 0o700), (0o777, 0o750)])
    def test_makes_what_is_missing(self, tmp_path, by_path, asked, expected):
        path = tmp_path / "none" / "up" / "part"
        with umask(0o027), Folder(path, tmp_path / "none", True, asked, by_path=by_path) as folder:
            os.close(folder.open("file"))
        assert [mode(one) for one in (path.parent, path)] == [expected] * 2
        assert (path / "file").exists()

    def test_mode_in_spite_of_umask(self, tmp_path, by_path):
        path = tmp_path / "up" / "part"
        with umask(0o777):
            Folder(path, tmp_path, make=True, by_path=by_path).close()
        assert [mode(one) for one in (path.parent, path)] == [0o700] * 2

    def test_mode_of_an_old_folder_stays(self, tmp_path, by_path):
        (tmp_path / "part").mkdir(mode=0o755)
        Folder(tmp_path / "part", tmp_path, make=True, by_path=by_path).close()
        assert mode(tmp_path / "part") == 0o755

    def test_links_above_the_base(self, tmp_path, by_path):
        (tmp_path / "real" / "base" / "part").mkdir(parents=True)
        (tmp_path / "mine").symlink_to(tmp_path / "real")
        (tmp_path / "base").symlink_to(tmp_path / "real" / "base")
        for base in (tmp_path / "mine" / "base", tmp_path / "base"):
            with Folder(base / "part", base, by_path=by_path) as folder:
                os.close(folder.open("file"))
        assert (tmp_path / "real" / "base" / "part" / "file").exists()

    def test_base_is_no_folder(self, tmp_path, by_path):
        (tmp_path / "base").touch()
        with pytest.raises(NotADirectoryError):
            Folder(tmp_path / "base", tmp_path / "base", by_path=by_path)

    def test_leaks_no_descriptor(self, tmp_path, by_path):
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
        before = lowest_free()
        with Folder(tmp_path / "a" / "b" / "c", tmp_path, by_path=by_path) as folder:
            # No more than that of the last folder stays open.
            most = before if by_path else before + 1
            assert lowest_free() <= most
            folder.names()
            assert lowest_free() <= most
        assert lowest_free() == before


class TestDescriptors:
    def test_folder_is_no_link_but_will_not_open(self, tmp_path):
        (tmp_path / "part").mkdir()
        with descriptors_left(1), pytest.raises(OSError) as caught:
            Folder(tmp_path / "part", tmp_path)
        assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(tmp_path / "part"))

    def test_deeper_than_a_path_may_be(self, tmp_path):
        """Each folder is opened relative to the one above: the whole path is never given to the system."""
        top = tmp_path / "top"
        path = top.joinpath(*["n" * 250] * 18)
        try:
            with Folder(path, tmp_path, make=True) as folder:
                os.close(folder.open("file"))
                assert folder.names() == ["file"]
        finally:
            shutil.rmtree(top)

    def test_folder_moves_and_stays_the_same(self, tmp_path):
        """What is checked is what is used: a link that is put in its place later is not followed."""
        (tmp_path / "part").mkdir()
        (tmp_path / "outside").mkdir()
        with Folder(tmp_path / "part", tmp_path) as folder:
            (tmp_path / "part").rename(tmp_path / "moved")
            (tmp_path / "part").symlink_to(tmp_path / "outside")
            os.close(folder.open("file"))
            folder.replace("file", "other")
        assert (tmp_path / "moved" / "other").exists()
        assert not list((tmp_path / "outside").iterdir())


class TestPrivateFile:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("use", [open_private, read_private])
    def test_refuses_irregular_files(self, tmp_path, kind, use):
        make, code, words = KINDS[kind]
        (tmp_path / "inner").mkdir()
        make(tmp_path / "inner" / "file")
        with pytest.raises(UnsafePathError, match=words) as caught:
            use(tmp_path / "inner" / "file")
        assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "inner" / "file"))

    @pytest.mark.parametrize("use", [open_private, read_private])
    def test_follows_no_link_put_there_meanwhile(self, tmp_path, bashrc, before_opening, use):
        path = tmp_path / "file"
        path.touch()

        def others(flags):
            path.unlink()
            path.symlink_to(bashrc)

        before_opening(path, others)
        with pytest.raises(UnsafePathError, match="symbolic link"):
            use(path)

    def test_opens_and_truncates(self, tmp_path):
        path = tmp_path / "file"
        with umask(0o777), os.fdopen(open_private(path), "wb") as file:
            file.write(b"text")
        assert mode(path) == 0o600
        os.close(open_private(path))
        assert content(read_private(path)) == b"text"
        with os.fdopen(open_private(path, os.O_APPEND), "ab") as file:
            file.write(b"more")
        assert content(read_private(path)) == b"textmore"
        os.close(open_private(path, os.O_TRUNC))
        assert content(read_private(path)) == b""
        with pytest.raises(FileExistsError):
            open_private(path, os.O_EXCL)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
    def test_checks_each_file_of_a_database(self, tmp_path, kind, suffix):
        make, code, words = KINDS[kind]
        folder = tmp_path / "inner"
        folder.mkdir()
        check_database(folder / "a.db")
        make(folder / f"a.db{suffix}")
        with pytest.raises(UnsafePathError, match=f"a.db{suffix} {words}") as caught:
            check_database(folder / "a.db")
        assert (caught.value.errno, caught.value.filename) == (code, str(folder / f"a.db{suffix}"))

    def test_takes_a_whole_database(self, tmp_path):
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"a.db{suffix}").touch()
        check_database(tmp_path / "a.db")


class TestStatus:
    """What can't be made on every system is judged by what `os.lstat` returns for it."""

    @pytest.mark.parametrize(
        "kind, words",
        [
            (stat.S_IFCHR, "a device"),
            (stat.S_IFBLK, "a device"),
            (stat.S_IFSOCK, "a socket"),
            (0, "a special file"),
        ],
    )
    def test_names_the_kind(self, kind, words):
        with pytest.raises(UnsafePathError) as caught:
            expect_regular(SimpleNamespace(st_mode=kind | 0o600), Path("x"))
        assert str(caught.value) == f"x is not a file but {words}"

    def test_names_what_is_no_folder(self):
        with pytest.raises(NotADirectoryError) as caught:
            expect_folder(SimpleNamespace(st_mode=stat.S_IFREG), Path("x"))
        assert (caught.value.strerror, caught.value.filename) == ("x is not a folder", "x")

    @pytest.mark.parametrize("expect, kind", [(expect_folder, stat.S_IFDIR), (expect_regular, stat.S_IFREG)])
    def test_refuses_a_junction(self, expect, kind):
        """As Windows shows it: no link by its mode, and it leads elsewhere all the same."""
        expect(SimpleNamespace(st_mode=kind, st_file_attributes=0x10), Path("x"))
        with pytest.raises(UnsafePathError, match="symbolic link") as caught:
            expect(SimpleNamespace(st_mode=kind, st_file_attributes=0x410), Path("x"))
        assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, "x")


class TestLedger:
    @pytest.mark.parametrize("name", ["executions.jsonl", "lock"])
    def test_ledger_follows_no_link(self, workplace, bashrc, capsys, name):
        (workplace / ".claude" / "metrics").mkdir()
        (workplace / ".claude" / "metrics" / name).symlink_to(bashrc)
        assert main(RUN) == 0
        said = capsys.readouterr().err
        assert said.count("executions are not recorded") == 1
        assert f"metrics/{name} is a symbolic link" in said
        assert is_untouched(bashrc)

    def test_ledger_follows_no_dangling_link(self, workplace, clean_environment, capsys):
        (workplace / ".claude" / "metrics").mkdir()
        (workplace / ".claude" / "metrics" / "executions.jsonl").symlink_to(clean_environment / ".profile")
        assert main(RUN) == 0
        assert not (clean_environment / ".profile").exists()

    @pytest.mark.parametrize("part", [".claude", ".claude/metrics"])
    def test_ledger_follows_no_linked_folder(self, workplace, clean_environment, capsys, part):
        outside = clean_environment / "outside"
        if part == ".claude":
            (workplace / ".claude").rename(outside)
        else:
            outside.mkdir(mode=0o755)
        before = sorted(outside.rglob("*")), mode(outside)
        (workplace / part).symlink_to(outside)
        main(RUN)
        assert (sorted(outside.rglob("*")), mode(outside)) == before

    def test_a_hard_link_is_refused(self, workplace, bashrc, capsys):
        (workplace / ".claude" / "metrics").mkdir()
        try:
            os.link(bashrc, workplace / ".claude" / "metrics" / "executions.jsonl")
        except OSError:
            pytest.skip("the home lies on another disk")
        assert main(RUN) == 0
        assert "hard link" in capsys.readouterr().err
        assert is_untouched(bashrc)

    @pytest.mark.parametrize("name", ["executions.jsonl", "lock"])
    def test_ledger_refuses_fifo(self, workplace, capsys, name):
        (workplace / ".claude" / "metrics").mkdir()
        os.mkfifo(workplace / ".claude" / "metrics" / name)
        assert main(RUN) == 0
        assert "is not a file but a FIFO" in capsys.readouterr().err

    def test_a_refused_run_writes_as_little(self, workplace, bashrc, capsys):
        (workplace / ".claude" / "metrics").mkdir()
        (workplace / ".claude" / "metrics" / "executions.jsonl").symlink_to(bashrc)
        assert main([*RUN, "--max-tokens", "-1"]) != 0
        assert is_untouched(bashrc)

    def test_keeps_mode_of_ledger(self, workplace, capsys):
        folder = workplace / ".claude" / "metrics"
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "executions.jsonl").touch()
        (folder / "executions.jsonl").chmod(0o644)
        assert main(RUN) == 0
        assert (mode(folder), mode(folder / "executions.jsonl")) == (0o755, 0o644)
        assert (folder / "executions.jsonl").stat().st_size

    @pytest.mark.parametrize("name", ["executions.jsonl", "executions-000001.jsonl"])
    @pytest.mark.parametrize("kind", ["link", "fifo"])
    def test_ledger_is_read_through_no_link(self, workplace, bashrc, capsys, name, kind):
        (workplace / ".claude" / "metrics").mkdir()
        path = workplace / ".claude" / "metrics" / name
        if kind == "link":
            path.symlink_to(bashrc)
        else:
            os.mkfifo(path)
        for verb in (["metrics", "summary"], ["metrics", "export"], ["report", "-o", "page.html"]):
            assert main(verb) != 0
            assert name in capsys.readouterr().err

    def test_an_endless_file_in_its_place_ends(self, workplace, capsys):
        folder = workplace / ".claude" / "metrics"
        folder.mkdir()
        with (folder / "executions-000001.jsonl").open("wb") as file:
            file.truncate(1 << 40)
        assert main(["metrics", "summary", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["skipped_lines"] == 1

    def test_follows_link_to_project(self, tmp_path, monkeypatch):
        write_project(tmp_path / "real")
        (tmp_path / "mine").symlink_to(tmp_path / "real")
        with_link = tmp_path / "mine" / ".claude" / "metrics"
        tracker = PerformanceTracker(with_link)
        monkeypatch.chdir(tmp_path / "real")
        tracker.record(executed())
        tracker.close()
        assert (tmp_path / "real" / ".claude" / "metrics" / "executions.jsonl").stat().st_size


def executed():
    from test_performance_tracker import executed

    return executed()


class TestHome:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_makes_private_user_folder(self, workplace, clean_environment, capsys, umask):
        before = os.umask(umask)
        try:
            assert main([*RUN[:-1], "use"]) == 0
        finally:
            os.umask(before)
        made = [clean_environment / ".claude", clean_environment / ".claude" / "cache"]
        assert [mode(path) for path in made] == [0o700, 0o700]

    def test_init_makes_private_user_folder(self, clean_environment, monkeypatch, capsys):
        monkeypatch.chdir(clean_environment)
        before = os.umask(0o000)
        try:
            assert main(["init"]) == 0
            PerformanceTracker(clean_environment / ".claude" / "metrics").close()
        finally:
            os.umask(before)
        assert mode(clean_environment / ".claude") == 0o700

    def test_keeps_mode_of_user_folder(self, workplace, clean_environment, capsys):
        (clean_environment / ".claude").mkdir(mode=0o755)
        assert main(RUN) == 0
        assert mode(clean_environment / ".claude") == 0o755


class TestOutputs:
    def many(self, output):
        Path("tasks.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n', encoding="utf-8")
        return main(["run", "many", "tasks.jsonl", "-o", str(output), "--cache", "off"])

    @pytest.mark.parametrize("way", ["out.jsonl", "dangling.jsonl", "folder/out.jsonl"])
    def test_bulk_run_follows_no_link(
        self, workplace, bashrc, capsys, messages_server, clean_environment, way
    ):
        (workplace / "out.jsonl").symlink_to(bashrc)
        (workplace / "dangling.jsonl").symlink_to(clean_environment / "new")
        (workplace / "folder").symlink_to(clean_environment)
        before = sorted(clean_environment.iterdir())
        assert self.many(way) == 2
        assert f"{workplace / way.partition('/')[0]} is a symbolic link" in capsys.readouterr().err
        assert is_untouched(bashrc)
        assert sorted(clean_environment.iterdir()) == before
        assert not messages_server.requests

    def test_temporary_file_follows_no_link(self, workplace, bashrc, another_server, capsys):
        from claude_force.testing import faults

        (workplace / "out.jsonl.tmp").symlink_to(bashrc)
        another_server(faults=[faults.status(400)])
        assert self.many("out.jsonl") == 3
        main(["run", "many", "tasks.jsonl", "-o", "out.jsonl", "--cache", "off", "--retry-failed"])
        assert "out.jsonl.tmp is a symbolic link" in capsys.readouterr().err
        assert is_untouched(bashrc)

    def test_a_fifo_as_the_output_is_refused(self, workplace, capsys):
        os.mkfifo(workplace / "out.jsonl")
        assert self.many("out.jsonl") == 2
        assert "is not a file but a FIFO" in capsys.readouterr().err

    def test_refuses_endless_output(self, workplace, capsys):
        with (workplace / "out.jsonl").open("wb") as file:
            file.truncate(1 << 40)
        assert self.many("out.jsonl") == 2
        assert "line 1 is not a result" in capsys.readouterr().err

    @pytest.mark.parametrize("verb", ["report", "export"])
    def test_reports_follow_no_link(self, workplace, bashrc, capsys, clean_environment, verb):
        assert main(RUN) == 0
        (workplace / "page").symlink_to(bashrc)
        (workplace / "folder").symlink_to(clean_environment)
        words = ["report"] if verb == "report" else ["metrics", "export"]
        for way in ("page", "folder/new"):
            assert main([*words, "-o", way]) == 2
            assert "is a symbolic link" in capsys.readouterr().err
        assert is_untouched(bashrc)
        assert not (clean_environment / "new").exists()

    @pytest.mark.parametrize("verb", ["agent", "workflow"])
    def test_answer_file_follows_no_link(
        self, workplace, bashrc, capsys, clean_environment, messages_server, verb
    ):
        (workplace / "answer.md").symlink_to(bashrc)
        (workplace / "folder").symlink_to(clean_environment)
        os.mkfifo(workplace / "fifo")
        words = ["python-expert"] if verb == "agent" else ["review"]
        for way in ("answer.md", "folder/new", "fifo"):
            assert main(["run", verb, *words, "--task", "x", "-o", way]) == 2
            assert str(workplace) in capsys.readouterr().err
        assert is_untouched(bashrc)
        assert not (clean_environment / "new").exists()
        assert not messages_server.requests
        assert main(["run", verb, *words, "--task", "x", "-o", "/dev/null"]) == 0
        assert main(["run", verb, *words, "--task", "x", "-o", "fresh"]) == 0
        assert (workplace / "fresh").stat().st_size

    def test_the_draft_of_a_report_follows_none(self, workplace, bashrc, capsys):
        assert main(RUN) == 0
        (workplace / f".page.html.{os.getpid()}").symlink_to(bashrc)
        assert main(["report", "-o", "page.html"]) == 2
        assert is_untouched(bashrc)

    def test_follows_link_outside_projects(self, workplace, tmp_path_factory, capsys):
        outside = tmp_path_factory.mktemp("outside")
        (outside / "link").symlink_to(outside / "real")
        assert self.many(outside / "link") == 0
        assert (outside / "link").is_symlink()
        assert (outside / "real").stat().st_size

    @pytest.mark.parametrize("part", [".claude", ".claude/agents", ".claude/claude.json"])
    def test_init_follows_no_link(self, tmp_path, monkeypatch, clean_environment, capsys, part):
        monkeypatch.chdir(tmp_path)
        place, outside = tmp_path / part, clean_environment / "outside"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(outside)
        if part != ".claude/claude.json":
            outside.mkdir()
        main(["init"])
        assert not outside.exists() or not list(outside.iterdir())


class TestCache:
    def test_cache_refuses_linked_folder(self, workplace, clean_environment):
        target = clean_environment / ".claude" / "precious"
        target.mkdir(parents=True)
        target.chmod(0o755)
        (workplace / "kept").symlink_to(target)
        for folder in ("kept", "kept/inner"):
            with pytest.raises(CacheError, match="is a symbolic link"):
                ResponseCache(cache_dir=folder)
        assert mode(target) == 0o755
        assert not list(target.iterdir())

    @pytest.mark.parametrize("name", ["secret", "lock", "generation", "leases", "answers-1.db"])
    @pytest.mark.parametrize("kind", ["link", "fifo"])
    def test_cache_follows_no_link(self, workplace, bashrc, name, kind):
        folder = workplace / "kept"
        folder.mkdir(mode=0o700)
        if kind == "link":
            (folder / name).symlink_to(bashrc)
        else:
            os.mkfifo(folder / name)
        try:
            with ResponseCache(cache_dir=folder) as cache:
                cache.set("agent", "task", "model", "answer")
                cache.acquire_lease("agent", "task", "model")
        except (CacheError, OSError) as error:
            assert name in str(error)
        assert is_untouched(bashrc)

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    def test_sqlite_follows_no_link(self, workplace, bashrc, suffix):
        folder = workplace / "kept"
        folder.mkdir(mode=0o700)
        (folder / f"answers-1.db{suffix}").symlink_to(bashrc)
        with ResponseCache(cache_dir=folder) as cache:
            cache.set("agent", "task", "model", "answer")
        assert is_untouched(bashrc)


class TestPrograms:
    def test_helpers_import_nothing_local(self, workplace, capfd):
        for name in ("json", "claude_force", "pickle"):
            (workplace / f"{name}.py").write_text("open('PWNED', 'w')\n", encoding="utf-8")
        folder = workplace / ".claude" / "metrics"
        folder.mkdir()
        for number in range(4):
            with (folder / f"executions-{number:06d}.jsonl").open("wb") as file:
                file.truncate(200_000_000)
        program = "import os, sys; sys.path.remove(''); from claude_force.cli.main import main; main()"
        path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        for words in (["metrics", "summary"], ["demo", "--calls", "1"]):
            subprocess.run([sys.executable, "-c", program, *words], env=path, check=False, timeout=60)
        assert not (workplace / "PWNED").exists()
