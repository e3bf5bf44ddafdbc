"""Files of a project: what is read lies inside it, whatever links, FIFOs and sizes are there."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from claude_force.errors import FileAccessError
from claude_force.storage.file_walk import FileWalk, Spot
from claude_force.storage.project_files import ProjectFiles

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
    def test_reads_regular_files_inside_and_no_others(self, by_path, tree):
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
    def test_a_walk_ends_and_finds_each_file_inside(self, tree):
        with tempfile.TemporaryDirectory() as base:
            root = build(Path(base).resolve(), tree)
            with ProjectFiles(root) as files:
                walk = FileWalk(files)
                found = {match.place.parts for match in walk.matches(Spot("", ""), "**") if match.place}
            wanted = {
                (Path(folder) / name).relative_to(root).parts
                for folder, _, names in os.walk(root)
                for name in names
                if stat.S_ISREG(os.lstat(Path(folder) / name).st_mode)
            }
            assert found == wanted
