"""Edit and Write change what they are asked to, and nothing else."""

import os
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from racing import swapping
from tool_cases import call

from claude_force.conversation import ToolResult
from claude_force.engine.task_group import TaskGroup
from claude_force.tools.edit_tools import EditTool, WriteTool
from claude_force.tools.read_tool import ReadTool
from claude_force.tools.replacing import NoReplacementError, replace_in
from claude_force.tools.workspace import Workspace


async def edit(folder: Path, data: bytes, old: str, new: str, **more: Any) -> bytes:
    (folder / "file").write_bytes(data)
    with Workspace(folder, writable=True) as workspace:
        given_ = {"file_path": "file", "old_string": old, "new_string": new, **more}
        result = await call(EditTool(workspace), given_)
    assert not result.is_error, result
    return (folder / "file").read_bytes()


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        (b"one\r\ntwo\r\n", "one\ntwo", "1\n2\n3", b"1\r\n2\r\n3\r\n"),
        (b"one\r\ntwo\nthree\n", "two", "2\n2", b"one\r\n2\n2\nthree\n"),
        (b"a\r\nb\nc\r\n", "b\nc", "x", b"a\r\nx\r\n"),
        (b"a\r\nb\r\n", "a\r\nb", "x\r\ny", b"x\r\ny\r\n"),
        (b"\xef\xbb\xbfone\n", "one", "1", b"\xef\xbb\xbf1\n"),
        (b"\xff\xfeo\x00n\x00e\x00", "one", "1", b"\xff\xfe1\x00"),
        (b"x = 1", "x = 1", "x = 2", b"x = 2"),
        (b"a\nb\nc\n", "b", "", b"a\nc\n"),
        (b"a = 1  # why\nb = 2\n", "  # why", "", b"a = 1\nb = 2\n"),
        (b"a\nb\n", "b\n", "", b"a\n"),
        (
            "it\u2019s \u201cso\u201d\n".encode(),
            'it\'s "so"',
            'it\'s ("no")',
            "it\u2019s (\u201cno\u201d)\n".encode(),
        ),
        ('\u201ca\u201d "b"\n'.encode(), '"b"', '"c"', '\u201ca\u201d "c"\n'.encode()),
        (b" \n", "", "new\n", b"new\n"),
    ],
)
async def test_edits_keep_what_they_do_not_touch(
    tmp_path: Path, before: bytes, old: str, new: str, after: bytes
) -> None:
    assert await edit(tmp_path, before, old, new) == after


TEXTS = st.text(st.sampled_from("ab\n\r\"'\u201c\u201d\u2019 "), max_size=30)


@given(TEXTS, TEXTS, TEXTS, st.text(st.sampled_from("ab\n\r"), min_size=1, max_size=6))
def test_text_around_a_replaced_string_stays_as_it_is(start: str, end: str, new: str, old: str) -> None:
    text = f"{start}<{old}>{end}"
    if new:
        assert replace_in(text, f"<{old}>", f"[{new}]").startswith(f"{start}[")
        assert replace_in(text, f"<{old}>", f"[{new}]").endswith(f"]{end}")


@given(st.text("ab\n", max_size=30), st.text("ab\n", min_size=1, max_size=3), st.text("xb\n", min_size=1))
def test_replacing_is_that_of_python_for_plain_text(text: str, old: str, new: str) -> None:
    count = text.count(old)
    if count:
        assert replace_in(text, old, new, replace_all=True) == text.replace(old, new)
    if count == 1:
        assert replace_in(text, old, new) == text.replace(old, new)
    else:
        with pytest.raises(NoReplacementError):
            replace_in(text, old, new)


def test_a_large_text_with_many_line_ends_is_replaced_quickly() -> None:
    text = "line of text\r\n" * 200_000
    assert replace_in(text, "line of", "x\ny", replace_all=True) == "x\r\ny text\r\n" * 200_000


@pytest.mark.parametrize("mode", [0o600, 0o755, 0o640])
async def test_the_mode_is_kept(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "file").chmod(mode)
    with Workspace(tmp_path, writable=True) as workspace:
        await call(EditTool(workspace), {"file_path": "file", "old_string": "one", "new_string": "1"})
        await call(WriteTool(workspace), {"file_path": "file", "content": "2"})
    assert (tmp_path / "file").stat().st_mode & 0o7777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


async def test_new_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with Workspace(tmp_path, writable=True) as workspace:
            await call(WriteTool(workspace), {"file_path": "d/x", "content": ""})
    finally:
        os.umask(before)
    assert (tmp_path / "d" / "x").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "name", ["latin", "huge", "fifo", "folder", "a/b", "x" * 300, "a\0b", "link", "broken"]
)
async def test_what_cannot_be_written_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with (tmp_path / "huge").open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_text("a")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "broken").symlink_to("nowhere/../x")
    names = sorted(tmp_path.iterdir())
    with Workspace(tmp_path, writable=True) as workspace:
        edited = await call(EditTool(workspace), {"file_path": name, "old_string": "a", "new_string": "b"})
        assert edited.is_error
        if name not in ("latin", "huge"):
            assert (await call(WriteTool(workspace), {"file_path": name, "content": "x"})).is_error
    assert sorted(tmp_path.iterdir()) == names
    assert (tmp_path / "latin").read_bytes() == b"caf\xe9\n"
    assert (tmp_path / "a").read_text() == "a"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to all files")
async def test_a_file_that_is_read_only_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "file").chmod(0o444)
    with Workspace(tmp_path, writable=True) as workspace:
        result = await call(WriteTool(workspace), {"file_path": "file", "content": "2"})
    assert "EACCES: permission denied" in str(result.content)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "one\n")]


async def test_half_of_a_surrogate_pair_is_an_error(tmp_path: Path) -> None:
    with Workspace(tmp_path, writable=True) as workspace:
        result = await call(WriteTool(workspace), {"file_path": "x", "content": "\ud800"})
    assert result.is_error
    assert list(tmp_path.iterdir()) == []


async def test_a_workspace_for_reading_writes_nothing(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        result = await call(WriteTool(workspace), {"file_path": "x", "content": "x"})
    assert str(result.content).startswith(f"Claude requested permissions to write to {tmp_path}/x, but")
    assert list(tmp_path.iterdir()) == []


async def test_edits_of_two_agents_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("".join(f"<{number}>\n" for number in range(60)))
    results: List[ToolResult] = []
    with Workspace(tmp_path, writable=True) as shared:

        async def agent(first: int) -> None:
            tool = EditTool(shared.for_agent())
            for number in range(first, 60, 2):
                old = {"file_path": "file", "old_string": f"<{number}>", "new_string": f"[{number}]"}
                results.append(await call(tool, old))

        async with TaskGroup() as group:
            group.start_soon(agent, 0)
            group.start_soon(agent, 1)
    assert not any(result.is_error for result in results)
    assert (tmp_path / "file").read_text() == "".join(f"[{number}]\n" for number in range(60))


async def test_nothing_is_written_through_a_swapped_link(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    (project / "src").mkdir(parents=True)
    outside.mkdir()
    (outside / "a.txt").write_text("SECRET\n")
    (project / "link").symlink_to("../outside")
    results = []
    with swapping(project / "src", project / "link"), Workspace(project, writable=True) as workspace:
        edit_tool, write_tool = EditTool(workspace), WriteTool(workspace)
        for number in range(800):
            secret = {"file_path": "src/a.txt", "old_string": "SECRET", "new_string": "x"}
            results.append(await call(edit_tool, secret))
            for path in ("src/a.txt", f"src/n{number % 9}/x"):
                results.append(await call(write_tool, {"file_path": path, "content": f"{number}\n"}))
    assert [path.name for path in outside.iterdir()] == ["a.txt"]
    assert (outside / "a.txt").read_text() == "SECRET\n"
    assert any(not result.is_error for result in results)


async def test_nothing_is_written_through_a_swapped_file(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "secret").write_text("SECRET\n")
    (project / "a.txt").write_text("a\n")
    (project / "link").symlink_to("../secret")
    with swapping(project / "a.txt", project / "link"), Workspace(project, writable=True) as workspace:
        for number in range(800):
            await call(WriteTool(workspace), {"file_path": "a.txt", "content": f"{number}\n"})
            await call(EditTool(workspace), {"file_path": "a.txt", "old_string": "SECRET", "new_string": "x"})
    assert (tmp_path / "secret").read_text() == "SECRET\n"


async def test_a_version_is_that_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one\n")
    with Workspace(tmp_path, writable=True) as workspace:
        await call(ReadTool(workspace), {"file_path": "file"})
        info = file.stat()
        file.write_text("two\n")
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
        refused = await call(WriteTool(workspace), {"file_path": "file", "content": "x"})
        file.write_text("one\n")
        done = await call(WriteTool(workspace), {"file_path": "file", "content": "x"})
    assert refused.is_error and not done.is_error
