"""Files of a project: what is read lies inside it, whatever links, FIFOs and sizes are there."""

import contextlib
import fnmatch
import glob
import itertools
import os
import pickle
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from claude_force.errors import FileAccessError
from claude_force.storage.file_walk import FileWalk, PathSpot
from claude_force.storage.project_files import ProjectFiles
from claude_force.storage.project_root import project_root
from claude_force.storage.regular_files import read_all

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs")

MOST = 1000
NAMES = ("a", "b", "c", "dir")
TARGETS = (
    *(
        "a",
        "b",
        "c",
        "dir",
        "dir/a",
        "dir/dir/b",
        "..",
        "../a",
        "../..",
        "../../a",
        "../dir",
        ".",
        "dir/..",
        "./b",
    ),
    *(
        "../../..",
        "../../../outside/secret",
        "../outside",
        "../../outside/secret",
        "nowhere",
        "a/../b",
        "dir/a/.",
    ),
    *(
        "/ROOT/a",
        "/ROOT/dir/b",
        "/ROOT",
        "/ROOT/../outside/secret",
        "/OUTSIDE/secret",
        "/OUTSIDE",
        "/etc/passwd",
    ),
)
KINDS = st.one_of(
    st.just(("file", "")),
    st.just(("folder", "")),
    st.just(("fifo", "")),
    st.tuples(st.just("link"), st.sampled_from(TARGETS)),
)
TREES = st.dictionaries(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), KINDS, max_size=12
)


def build(base, tree):
    """The root of a tree of files, folders, links and FIFOs, with a folder of secrets beside it."""
    root, outside = base / "x" / "root", base / "x" / "outside"
    root.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    for name, (kind, target) in sorted(tree.items()):
        path = root / name
        # Through a link it would be made elsewhere.
        if os.path.realpath(path.parent) != str(path.parent) or os.path.lexists(path):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:  # A file or a circle of links is in the way.
            continue
        if kind == "file":
            path.write_bytes(str(path).encode())
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(target.replace("/ROOT", str(root)).replace("/OUTSIDE", str(outside)))
    return root


def all_names(depth):
    """Every path of up to `depth` known names and dots."""
    found = [()]
    for _ in range(depth):
        found = [(*parts, one) for parts in found for one in (*NAMES, "..")]
        yield from map("/".join, found)


def expected(root, name):
    """The content of a regular file to which each step leads inside the root; else None. By the book: each
    link is put in the place of its name, and no step may leave the root."""
    place, rest = root, name.split("/")
    for _ in range(200):
        if not rest:
            return place.read_bytes() if place.is_file() else None
        part = rest.pop(0)
        if part == ".":
            continue
        if not place.is_dir():
            return None
        if part == "..":
            place = place.parent
        elif (place / part).is_symlink():
            target = os.readlink(place / part)
            base = str(root) + "/"
            if target.startswith("/"):
                if not (target + "/").startswith(base):
                    return None
                place, target = root, target[len(base) :]
            rest = [one for one in target.split("/") if one] + rest
        else:
            place = place / part
        if root not in (place, *place.parents):
            return None
    return None


class TestAnyTree:
    @pytest.mark.parametrize("by_path", [False, True])
    @given(tree=TREES)
    @hypothesis_settings(max_examples=40)
    def test_reads_regular_files_only(self, by_path, tree):
        with tempfile.TemporaryDirectory() as base:
            root = build(Path(base).resolve(), tree)
            with ProjectFiles(root, by_path=by_path) as files:
                for name in all_names(2):
                    try:
                        found = files.read(name, MOST)
                    except FileAccessError:
                        found = None
                    assert found == expected(root, name), name

    @given(tree=TREES)
    @hypothesis_settings(max_examples=40)
    def test_walk_ends_and_finds_every_file(self, tree):
        with tempfile.TemporaryDirectory() as base:
            root = build(Path(base).resolve(), tree)
            with ProjectFiles(root) as files:
                walk = FileWalk(files)
                found = {match.place.parts for match in walk.matches(PathSpot("", ""), "**") if match.place}
            wanted = {
                (Path(folder) / name).relative_to(root).parts
                for folder, _, names in os.walk(root)
                for name in names
                if stat.S_ISREG(os.lstat(Path(folder) / name).st_mode)
            }
            assert found == wanted


@pytest.fixture
def root(tmp_path):
    """A project beside a file that is not to be read."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class TestReading:
    @pytest.mark.parametrize("by_path", [False, True])
    def test_a_link_inside_is_followed(self, root, by_path):
        (root / "a").mkdir()
        (root / "a" / "x").write_bytes(b"text")
        (root / "b").symlink_to("a")
        (root / "c").symlink_to(root / "b" / "x")
        with ProjectFiles(root, by_path=by_path) as files:
            assert files.read("b/x", 10) == files.read("c", 10) == b"text"

    @pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "up/secret", "/proc/self/environ"])
    def test_a_link_out_is_refused_by_name(self, root, target):
        (root / "up").symlink_to("..")
        (root / "link").symlink_to(target)
        with ProjectFiles(root) as files, pytest.raises(
            FileAccessError, match="^link is a link that leads outside"
        ):
            files.read("link", 10)

    def test_link_stays_in_its_repository(self, root):
        (root / "clone" / ".git").mkdir(parents=True)
        (root / "own").write_bytes(b"mine")
        (root / "clone" / "link").symlink_to("../own")
        (root / "in").symlink_to("clone")
        with ProjectFiles(root) as files:
            for name in ("clone/link", "in/link"):
                with pytest.raises(FileAccessError, match="leads outside .*clone"):
                    files.read(name, 10)
        with ProjectFiles(root, own=True) as files:
            assert files.read("clone/link", 10) == b"mine"

    def test_a_fifo_is_refused_at_once(self, root):
        os.mkfifo(root / "x")
        with ProjectFiles(root) as files, pytest.raises(
            FileAccessError, match="^x can't be read: it is a FIFO"
        ):
            files.read("x", 10)

    def test_a_socket_is_refused(self, root, monkeypatch):
        monkeypatch.chdir(root)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("x")
            with ProjectFiles(root) as files, pytest.raises(FileAccessError, match="it is a socket"):
                files.read("x", 10)

    def test_a_device_is_refused(self):
        with ProjectFiles("/dev") as files, pytest.raises(
            FileAccessError, match="^zero can't be read: it is a device"
        ):
            files.read("zero", 10)

    def test_refuses_huge_file_unread(self, root):
        with (root / "x").open("wb") as file:
            file.truncate(100 * 2**30)
        with ProjectFiles(root) as files, pytest.raises(FileAccessError, match="^x is over 10 bytes"):
            files.read("x", 10)

    def test_growing_file_is_bounded(self, root):
        (root / "x").write_bytes(b"12345")
        with ProjectFiles(root) as files:
            descriptor = files.open("x", 5)
            try:
                with (root / "x").open("ab") as file:
                    file.write(b"6")
                with pytest.raises(FileAccessError, match="x is over 5 bytes"):
                    read_all(descriptor, "x", 5)
            finally:
                os.close(descriptor)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("none\n\x1b[2J", r"none\x0a\x1b[2J can't be read: No such file"),
            ("none\udcff", r"none\xff can't be read: No such file"),
            ("half\ud800", r"half\ud800 can't be read: it has a character"),
            ("a\0b", r"a\x00b can't be read: it has a character"),
            ("x" * 300, "xx can't be read: File name too long"),
            ("a/" * 100, "a can't be read: No such file"),
        ],
    )
    def test_a_name_is_told_on_one_line(self, root, name, said):
        with ProjectFiles(root) as files, pytest.raises(FileAccessError) as caught:
            files.read(name, 10)
        assert said in str(caught.value) or said in str(caught.value).replace("/ can't", " can't")
        assert str(caught.value).isprintable()

    def test_the_error_passes_through_pickle(self):
        error = FileAccessError("a", "is gone", "Find it.", is_missing=True)
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.is_missing, again.is_outside) == ("a is gone. Find it.", True, False)

    def test_no_descriptor_is_left_open(self, root):
        (root / "a").mkdir()
        (root / "a" / "x").write_bytes(b"1")
        os.mkfifo(root / "a" / "f")
        before = open_descriptors()
        for name in ("a/x", "a/f", "a/none", "../x", "a"):
            with ProjectFiles(root) as files, contextlib.suppress(FileAccessError):
                files.read(name, 0)
        assert open_descriptors() == before


def open_descriptors():
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system has no /proc")
    return {one.name for one in folder.iterdir()}


class TestLimits:
    """Each at its last value that is taken and at the first that is not."""

    def refused(self, root, name, **options):
        with ProjectFiles(root, **options) as files, pytest.raises(FileAccessError) as refused:
            files.read(name, MOST)
        return refused.value

    def test_reads_absolute_path_inside(self, root):
        (root / "a").write_text("text")
        with ProjectFiles(root) as files:
            assert files.read(root / "a", MOST) == b"text"
            assert files.below(root / "a" / "b") == ["a", "b"]
            assert files.below(root.parent / "a") is None

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
    def test_refuses_path_outside(self, root, name):
        error = self.refused(root, name)
        assert (error.is_outside, error.what) == (True, f"lies outside {root}")
        assert error.advice == "Put the file there."

    def test_refuses_link_outside(self, root):
        (root / "a").symlink_to("../secret")
        error = self.refused(root, "a")
        assert (error.is_outside, error.what) == (True, f"is a link that leads outside {root}")
        assert error.advice == "Remove the link, or put there what it leads to."

    def test_impossible_character(self, root):
        assert "a character that no path can have" in str(self.refused(root, "a\0b"))

    def test_follows_40_links(self, root):
        (root / "0").write_text("text")
        for number in range(41):
            (root / str(number + 1)).symlink_to(str(number))
        with ProjectFiles(root) as files:
            assert files.read("40", MOST) == b"text"
        assert "more than 40 links" in self.refused(root, "41").what

    def test_reads_64_folders_deep(self, root):
        deep = root.joinpath(*["d"] * 64)
        (deep / "d").mkdir(parents=True)
        for folder in (deep, deep / "d"):
            (folder / "a").write_text("text")
        with ProjectFiles(root) as files:
            assert files.read(deep.relative_to(root) / "a", MOST) == b"text"
        error = self.refused(root, deep.relative_to(root) / "d" / "a")
        assert (error.name, error.what) == ("/".join("d" * 65) + "/a", "lies deeper than 64 folders")
        assert error.advice == "Move it further up."

    @pytest.mark.parametrize("depth", [0, 1, 2, 3])
    @pytest.mark.parametrize("is_absolute", [False, True])
    def test_no_link_leaves_its_repository(self, root, depth, is_absolute):
        (root / "a").write_text("text")
        inner = root / "repository"
        place = inner.joinpath(*["d"] * depth)
        (inner / ".git").mkdir(parents=True)
        place.mkdir(parents=True, exist_ok=True)
        (inner / "own").write_text("own")
        for name in ("a", "own"):
            target = root / "a" if name == "a" else inner / "own"
            there = target if is_absolute else os.path.relpath(target, place)
            (place / f"to-{name}").symlink_to(there)
        inside = place.relative_to(root)
        with ProjectFiles(root) as files:
            assert files.read(inside / "to-own", MOST) == b"own"
        error = self.refused(root, inside / "to-a")
        assert (error.is_outside, error.what) == (True, f"is a link that leads outside {inner}")
        with ProjectFiles(root, own=True) as files:
            assert files.read(inside / "to-a", MOST) == b"text"

    def test_file_in_place_of_folder(self, root):
        (root / "a").write_text("text")
        assert self.refused(root, "a/b").is_missing

    def test_reads_last_allowed_byte(self, root):
        (root / "a").write_bytes(b"x" * 10)
        with ProjectFiles(root) as files:
            assert files.read("a", 10) == b"x" * 10
            with pytest.raises(FileAccessError, match="9 bytes") as refused:
                files.read("a", 9)
        assert not refused.value.is_missing

    def test_reads_growing_file_to_bound(self, root):
        (root / "a").write_bytes(b"x" * 10)
        for most in (9, 10):
            descriptor = os.open(root / "a", os.O_RDONLY)
            try:
                if most == 10:
                    assert read_all(descriptor, "a", most) == b"x" * 10
                else:
                    with pytest.raises(FileAccessError, match="^a "):
                        read_all(descriptor, "a", most)
            finally:
                os.close(descriptor)

    def test_reads_a_file_of_many_chunks(self, root):
        text = bytes(range(256)) * 10_000
        (root / "a").write_bytes(text)
        with ProjectFiles(root) as files:
            assert files.read("a", len(text)) == text

    def test_refuses_swapped_in_fifo(self, root):
        (root / "a").write_text("text")
        with ProjectFiles(root) as files:
            place = files.find("a")
            (root / "a").unlink()
            os.mkfifo(root / "a")
            with pytest.raises(FileAccessError) as refused:
                files.open("a", MOST, place=place)
        assert str(refused.value) == (
            "a can't be read: it is a FIFO, and only regular files are read. "
            "Name another file, or put a regular one there."
        )

    def test_refuses_grown_file(self, root):
        (root / "a").write_bytes(b"x" * 10)
        with ProjectFiles(root) as files, pytest.raises(FileAccessError, match="^a is over 9 bytes"):
            files.open("a", 9, place=files.find("a"))

    def test_names_the_link_in_a_circle(self, root):
        (root / "a\n").symlink_to("a\n")
        assert str(self.refused(root, "a\n")) == (
            "a\\x0a is a link in a circle, or one of more than 40 links. Remove it."
        )

    def test_unreadable_descriptor(self, root):
        (root / "a").write_text("text")
        descriptor = os.open(root / "a", os.O_WRONLY)
        try:
            with pytest.raises(FileAccessError, match="^a can't be read: Bad file descriptor"):
                read_all(descriptor, "a", MOST)
        finally:
            os.close(descriptor)


class TestRace:
    def test_swapped_paths_never_lead_out(self, root):
        """A folder and a file take turns with links to the outside; whatever is read is from inside."""
        (root / "real").mkdir()
        (root / "real" / "x").write_bytes(b"inside")
        outside = root.parent / "out"
        outside.mkdir()
        (outside / "x").write_bytes(b"secret")
        ended = threading.Event()

        def swap():
            turns = itertools.cycle((("folder", outside), ("folder", root / "real")))
            while not ended.is_set():
                _, target = next(turns)
                (root / "new").symlink_to(target)
                (root / "new").replace(root / "link")
                shutil.rmtree(root / "folder", ignore_errors=True)
                with contextlib.suppress(OSError):
                    (root / "folder").symlink_to(outside)
                    (root / "folder").unlink()
                    (root / "folder").mkdir()
                    (root / "folder" / "x").write_bytes(b"inside")

        swapper = threading.Thread(target=swap)
        swapper.start()
        seen = Counter()
        try:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                for name in ("link/x", "folder/x"):
                    with ProjectFiles(root) as files:
                        try:
                            seen[files.read(name, 100)] += 1
                        except FileAccessError as error:
                            seen["refused" if error.is_outside else "other"] += 1
        finally:
            ended.set()
            swapper.join()
        assert set(seen) <= {b"inside", b"", "refused", "other"}
        assert seen[b"inside"] and seen["refused"]


class TestRoot:
    @pytest.fixture(autouse=True)
    def below(self, tmp_path):
        self.deep = tmp_path / "repository" / "package" / "deep"
        self.deep.mkdir(parents=True)
        return tmp_path

    def test_root_is_the_folder_itself(self, below):
        assert project_root(self.deep) == self.deep

    def test_is_the_repository(self, below):
        (below / "repository" / ".git").mkdir()
        (below / "repository" / "package" / ".claude").mkdir()
        assert project_root(self.deep) == below / "repository"

    def test_root_has_claude_folder(self, below):
        (below / "repository" / "package" / ".claude").mkdir()
        assert project_root(self.deep) == below / "repository" / "package"

    def test_root_is_not_the_home_folder(self, below, monkeypatch):
        monkeypatch.setenv("HOME", str(below))
        (below / ".git").mkdir()
        assert project_root(self.deep) == self.deep
        assert project_root(below) == below

    def test_root_search_ends_at_shared_folder(self, below):
        (below / ".git").mkdir()
        (below / "repository").chmod(0o1777)
        assert project_root(self.deep) == self.deep


class TestPatterns:
    def names(self, root, pattern):
        with ProjectFiles(root) as files:
            walk = FileWalk(files)
            return [
                match.spot.label for match in walk.matches(PathSpot("", ""), pattern) if not match.problem
            ]

    @pytest.mark.parametrize(
        "pattern",
        [
            *(
                "*",
                "**",
                "**/*",
                "*.py",
                "**/*.py",
                "a/**/b*",
                "a/*/*.py",
                "[ab]/*",
                "[!a]*",
                "?.py",
                "**/.h*",
            ),
            *(
                ".*",
                ".h/**",
                "a/**",
                "**/a/**",
                "**/**/x.py",
                "./*.py",
                "a//x.py",
                "a/x.py",
                "none/*",
                "[z-a]*",
            ),
        ],
    )
    def test_matches_like_fnmatch(self, root, pattern, monkeypatch):
        for name in (
            "x.py",
            "y.txt",
            "a/x.py",
            "a/b/b1",
            "a/b/x.py",
            "b/a/x.py",
            ".h/x.py",
            ".h/a",
            "a/.h",
            "[z-a]",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        monkeypatch.chdir(root)
        try:
            found = glob.glob(pattern, recursive=True)  # noqa: PTH207
        except re.error:
            pytest.skip("older versions refuse the pattern")
        wanted = {os.path.normpath(name) for name in found if (root / name).is_file()}
        assert {os.path.normpath(name) for name in self.names(root, pattern)} == wanted

    @given(
        pattern=st.text("ab*?[]!-.", min_size=1, max_size=7), name=st.text("ab.-!]", min_size=1, max_size=6)
    )
    def test_a_part_matches_as_in_fnmatch(self, pattern, name):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"x{name}").touch()
            try:
                wanted = fnmatch.fnmatchcase(f"x{name}", f"?{pattern}")
            except re.error:
                return
            assert bool(self.names(Path(folder), f"?{pattern}")) == wanted

    def test_many_stars_take_no_longer(self, root):
        (root / ("a" * 250)).touch()
        before = time.process_time()
        assert self.names(root, "*a" * 60 + "*b*.py") == []
        assert time.process_time() - before < 1

    def test_circle_of_links_ends(self, root):
        for name in ("a", "b", "c"):
            (root / name).mkdir()
            (root / name / "x").touch()
            for other in ("a", "b", "c", ".."):
                (root / name / f"to{other}").symlink_to(f"../{other}")
        assert self.names(root, "**/x") == ["a/x", "b/x", "c/x"]

    def test_enters_linked_folder(self, root):
        (root / "lib").mkdir()
        (root / "lib" / "x.py").touch()
        (root / "src").mkdir()
        (root / "src" / "alias").symlink_to("../lib")
        assert self.names(root, "src/**/*.py") == ["src/alias/x.py"]
        assert self.names(root, "**/*.py") == ["lib/x.py"]
        assert self.names(root, "*/alias/*.py") == ["src/alias/x.py"]

    def test_what_is_not_followed_is_told(self, root):
        (root / "system").symlink_to("/usr")
        (root / "gone").symlink_to("nowhere")
        (root / "round").symlink_to("round")
        with ProjectFiles(root) as files:
            walk = FileWalk(files)
            assert list(walk.matches(PathSpot("", ""), "**/*.py")) == []
        said = {spot.label: error.what for spot, error in walk.skipped.items()}
        assert said.keys() == {"system", "gone", "round"}
        assert "leads outside" in said["system"]
        assert "circle" in said["round"]

    def test_a_walk_has_bounds(self, root):
        for number in range(20):
            (root / str(number)).touch()
        with ProjectFiles(root) as files, pytest.raises(
            FileAccessError, match="has more than 10 files and folders"
        ):
            list(FileWalk(files, 10).matches(PathSpot("", ""), "**"))

    def test_endless_folders_end(self, root):
        make_deep(root, 1000)
        try:
            with ProjectFiles(root) as files:
                walk = FileWalk(files)
                list(walk.matches(PathSpot("", ""), "**/x"))
        finally:
            # What removes old folders of pytest's goes into them by recursion, and fails in the middle.
            subprocess.run(["rm", "-rf", str(root / "d")], check=True)
        assert [error.what for error in walk.skipped.values()] == ["lies deeper than 64 folders"]


def make_deep(folder, depth):
    """So many folders in each other, which is a longer path than the system takes at once."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
