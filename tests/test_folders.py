"""Folders below a root are written to through no link, with descriptors and by paths."""

import os
from pathlib import Path
from typing import Iterator, Sequence, Union, cast

import pytest

from claude_force.errors import FileAccessError
from claude_force.storage.folders import DescriptorFolders, Folders, PathFolders, ReplacedError
from claude_force.storage.path_text import printable
from claude_force.storage.project_files import OutsideError, ProjectFiles

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links")
AnyFolders = Union[DescriptorFolders, PathFolders]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to("../outside")
    return Path(os.path.realpath(tmp_path / "root"))


@pytest.fixture(params=[DescriptorFolders, PathFolders])
def folders(request: pytest.FixtureRequest, root: Path) -> Iterator[AnyFolders]:
    opened = request.param(str(root))
    yield opened
    opened.close()


def test_files_are_made_renamed_and_removed(folders: AnyFolders, root: Path) -> None:
    folders.make(["inner"], "deeper")
    for name in ("one", "two"):
        with os.fdopen(folders.create(["inner", "deeper"], name, 0o600), "wb") as file:
            file.write(name.encode())
    folders.replace(["inner", "deeper"], "one", "new")
    folders.unlink(["inner", "deeper"], "two")
    deeper = root / "inner" / "deeper"
    assert [(path.name, path.read_text()) for path in deeper.iterdir()] == [("new", "one")]


def test_nothing_is_written_through_a_link(folders: AnyFolders, root: Path) -> None:
    (root.parent / "outside" / "file").write_text("as it was")
    with pytest.raises(ReplacedError):
        folders.make(["link"], "folder")
    with pytest.raises(ReplacedError):
        folders.create(["link"], "new", 0o600)
    with pytest.raises(ReplacedError):
        folders.replace(["link"], "file", "other")
    with pytest.raises(ReplacedError):
        folders.unlink(["link"], "file")
    assert [path.name for path in (root.parent / "outside").iterdir()] == ["file"]


def test_a_new_file_takes_the_place_of_nothing(folders: AnyFolders, root: Path) -> None:
    (root / "broken").symlink_to("../outside/new")
    for name in ("inner", "link", "broken"):
        with pytest.raises(FileExistsError):
            folders.create([], name, 0o600)
        with pytest.raises(FileExistsError):
            folders.make([], name)


def test_a_file_that_may_not_be_written_is_told(folders: AnyFolders, root: Path) -> None:
    (root / "file").write_text("as it was")
    folders.expect_writable([], "file")
    assert (root / "file").read_text() == "as it was"
    with pytest.raises(ReplacedError):
        folders.expect_writable([], "link")
    (root / "file").chmod(0o444)
    if os.geteuid():
        with pytest.raises(PermissionError):
            folders.expect_writable([], "file")


def test_a_link_is_replaced_and_not_followed(folders: AnyFolders, root: Path) -> None:
    (root / "new").write_text("new")
    folders.replace([], "new", "link")
    assert (root / "link").read_text() == "new"
    assert list((root.parent / "outside").iterdir()) == []


def test_a_descriptor_stays_the_callers(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        DescriptorFolders(descriptor).close()
        root.rename(root.parent / "moved")
        with ProjectFiles(root, descriptor=descriptor) as files:
            assert files.find("inner") is not None
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("by_path", [False, True])
def test_a_name_tells_how_far_it_leads(root: Path, by_path: bool) -> None:
    (root / "inner" / "file").write_text("")
    (root / "in").symlink_to("inner/file")
    (root / "broken").symlink_to("inner/none")
    with ProjectFiles(root, by_path=by_path) as files:
        for name, parts, missing, is_link in (
            ("", (), (), False),
            ("inner/file", ("inner", "file"), (), False),
            ("in", ("inner", "file"), (), True),
            ("inner/a/b", ("inner",), ("a", "b"), False),
            ("broken", ("inner",), ("none",), True),
            ("in/x/y", ("inner", "file"), ("x", "y"), False),
        ):
            reached = files.reach(name)
            assert (reached.parts, reached.missing, reached.is_link) == (parts, missing, is_link), name


@pytest.mark.parametrize(
    ("name", "target", "is_link"),
    [
        ("link", "outside", True),
        ("link/a/b", "outside/a/b", False),
        ("inner/../../x", "x", False),
        ("far/a", "elsewhere/a", False),
    ],
)
def test_a_name_that_leads_outside_tells_where(root: Path, name: str, target: str, is_link: bool) -> None:
    (root / "far").symlink_to(root.parent / "elsewhere")
    with ProjectFiles(root) as files, pytest.raises(OutsideError) as caught:
        files.reach(name)
    assert caught.value.target == str(root.parent / target)
    assert caught.value.is_link == is_link
    assert isinstance(caught.value, FileAccessError) and caught.value.is_outside


def test_a_name_tells_what_is_there(root: Path) -> None:
    (root / "inner" / "file").write_text("text")
    with ProjectFiles(root) as files:
        for name, path in (
            ("inner/file/x", root / "inner" / "file"),
            ("none", root),
            ("inner", root / "inner"),
        ):
            reached = files.reach(name)
            assert reached.info.st_ino == path.stat().st_ino, name
            assert reached.is_folder == path.is_dir()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0b", "it has a character that no path can have"),
        ("\ud800", "it has a character that no path can have"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(root: Path, name: str, reason: str) -> None:
    with ProjectFiles(root) as files:
        with pytest.raises(FileAccessError, match=f"^as given can't be read: {reason}"):
            files.reach(name, "as given")
        with pytest.raises(FileAccessError, match=reason) as caught:
            files.reach(name)
        assert str(caught.value).startswith(printable(name))


class Replaced:
    """Folders of which the first few that are looked into were replaced meanwhile."""

    def __init__(self, folders: Folders, times: int) -> None:
        self._folders, self._left = folders, times

    def lstat(self, parts: Sequence[str], name: str) -> os.stat_result:
        if self._left:
            self._left -= 1
            raise ReplacedError(name)
        return self._folders.lstat(parts, name)

    def close(self) -> None:
        self._folders.close()


@pytest.mark.parametrize(("times", "is_reached"), [(15, True), (16, False)])
def test_a_walk_is_repeated_where_a_folder_was_replaced(root: Path, times: int, is_reached: bool) -> None:
    with ProjectFiles(root) as files:
        files.folders = cast(Folders, Replaced(files.folders, times))
        if is_reached:
            assert files.reach("inner").parts == ("inner",)
        else:
            with pytest.raises(FileAccessError, match="^inner is replaced again and again"):
                files.reach("inner")


def test_an_absolute_name_outside_tells_where(root: Path) -> None:
    with ProjectFiles(root) as files, pytest.raises(OutsideError) as caught:
        files.reach(root.parent / "outside" / ".." / "x")
    assert (caught.value.target, caught.value.is_link) == (str(root.parent / "x"), False)
