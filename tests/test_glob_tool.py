"""Glob, and the patterns and ignore files that Grep uses too, on friendly and on hostile trees."""

import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any, List

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from racing import swapping
from tool_cases import call

from claude_force.tools.glob_patterns import GlobError, GlobList, compile_glob
from claude_force.tools.glob_tool import GlobTool
from claude_force.tools.grep_tool import GrepTool
from claude_force.tools.ignore_files import parse_ignore_file
from claude_force.tools.workspace import PathRules, Workspace


async def glob(folder: Path, pattern: str, **more: Any) -> List[str]:
    with Workspace(folder) as workspace:
        result = await call(GlobTool(workspace), {"pattern": pattern, **more})
    assert not result.is_error, result
    return str(result.content).split("\n")


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a/b/c.py", True),
        ("*.py", ".py", True),
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/b/a.py", False),
        ("src/**/*.py", "src/a.py", True),
        ("src/**/*.py", "src/b/c/a.py", True),
        ("**/b/*", "b/x", True),
        ("src/**", "src/b/c", True),
        ("src/**", "src", False),
        ("**", "a/b", True),
        ("/a", "a", True),
        ("/a", "b/a", False),
        ("a?c", "a/c", False),
        ("[!a]b", "cb", True),
        ("[^a]b", "ab", False),
        ("[]]b", "]b", True),
        ("[a-c]", "b", True),
        ("*.{ts,tsx}", "a.tsx", True),
        ("{src,lib}/{a,b{1,2}}.py", "lib/b2.py", True),
        ("\\{a\\}", "{a}", True),
        ("\\*", "x", False),
        ("a**b", "axxb", True),
        ("[{]", "{", True),
        ("**/a/**/b", "x/a/y/z/b", True),
        ("**/a/**/a/b", "a/a/c/a/b", True),
    ],
)
def test_patterns_match_as_in_gitignore(pattern: str, path: str, matches: bool) -> None:
    assert bool(compile_glob(pattern).matches.match(path)) == matches


@pytest.mark.parametrize(
    "pattern",
    ["[a", "[z-a]", "{a", "a\\", "x" * 5000, "{a,b}" * 20, "{" * 3000 + "}" * 3000, "[" + "a-" * 900 + "]["],
)
def test_wrong_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(GlobError):
        compile_glob(pattern)


def slow_match(pattern: str, text: str) -> bool:
    """The plain definition of `*`, `?` and `**/`, which may take for ever."""
    if pattern.startswith("**/"):
        starts = [0, *(place + 1 for place, letter in enumerate(text) if letter == "/")]
        return any(slow_match(pattern[3:], text[start:]) for start in starts)
    if not pattern or not text:
        return pattern.strip("*") == "" and not text
    if pattern[0] == "*":
        return slow_match(pattern[1:], text) or (text[0] != "/" and slow_match(pattern, text[1:]))
    return (
        pattern[0] in ("?", text[0])
        and text[0] != "?"
        and slow_match(pattern[1:], text[1:])
        and (pattern[0] != "?" or text[0] != "/")
    )


PARTS = st.lists(st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=5)), min_size=1, max_size=5)
PATHS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5)


@given(PARTS, PATHS)
def test_patterns_match_as_they_are_defined(parts: List[str], path: List[str]) -> None:
    parts = [part if set(part) != {"*"} or part == "**" else "*" for part in parts]
    parts = [part if part == "**" else part.replace("**", "*").replace("**", "*") for part in parts]
    if parts[-1] == "**":
        parts.append("*")
    pattern, text = "/".join(parts), "/".join(path)
    assert bool(compile_glob("/" + pattern).matches.match(text)) == slow_match(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 100 + "b", "a" * 250),
        ("**/a/" * 40 + "b", "a/" * 60 + "a"),
        ("**/" * 200 + "*a*b", "a/" * 60 + "a"),
        ("?*" * 100 + "b", "a" * 250),
        ("[a-z]*" * 100 + "0", "a" * 250),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    start = time.process_time()
    assert not compile_glob(pattern).matches.match(path)
    assert time.process_time() - start < 2


def test_lines_of_an_ignore_file_that_are_wrong_are_left_out() -> None:
    data = b"\xef\xbb\xbf# x\n\n*.log\r\n[z-a]\n!keep.log \n\\#a\n/\n \xff\n"
    assert len(parse_ignore_file(data)) == 4
    globs = GlobList(parse_ignore_file(data))
    assert globs.decide("a/b.log", False) is True
    assert globs.decide("keep.log", False) is False
    assert globs.decide("#a", False) is True


LINES = [
    "*.log",
    "!keep.log",
    "build/",
    "/build",
    "a/b",
    "a/**",
    "**/b",
    "!a/b/",
    "b?",
    "*",
    "!*/",
    "!*.txt",
    "/*",
    "c",
]
NAMES = ["a", "b", "bb", "c", "build", "x.log", "keep.log", "x.txt"]


@pytest.mark.parametrize("seed", range(25))
async def test_ignore_files_mean_what_they_mean_to_git(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    folders = ["", *("/".join(chance.choices(NAMES, k=depth)) + "/" for depth in (1, 1, 2, 2, 3))]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for name in chance.sample(NAMES, 5):
            if not (tmp_path / folder / name).exists():
                make(tmp_path, folder + name)
        if chance.random() < 0.6:
            lines = chance.sample(LINES, chance.randint(1, 4))
            (tmp_path / folder / ".gitignore").write_text("\n".join(lines))
    git = ["git", "-c", "core.excludesFile=", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True, timeout=30)
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"],
        check=True,
        timeout=30,
        stdout=subprocess.PIPE,
    )
    expected = {name for name in os.fsdecode(listed.stdout).split("\0") if name}
    with Workspace(tmp_path) as workspace:
        result = await call(GrepTool(workspace), {"pattern": "", "head_limit": 0})
    assert set(str(result.content).split("\n")[1:]) == expected or not expected


async def test_results_are_relative_to_the_working_folder(tmp_path: Path) -> None:
    make(tmp_path, "src/a.py", "b.py")
    with Workspace(tmp_path) as workspace:
        workspace.change_folder("src")
        tool = GlobTool(workspace)
        assert (await call(tool, {"pattern": "*.py"})).content == "a.py"
        assert (await call(tool, {"pattern": "*.py", "path": ".."})).content == f"{tmp_path}/b.py\na.py"


async def test_paths_are_sorted_folder_by_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "a/z.txt", "a-b/y.txt", "B.txt", "a/b/c.txt")
    found = await glob(tmp_path, "**/*.txt")
    assert found == ["B.txt", "a/b/c.txt", "a/z.txt", "a-b/y.txt", "a.txt"]


async def test_patterns_never_leave_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "project/a.txt", "secret.txt")
    for pattern in ("../*.txt", "**/../*.txt", "../secret.txt", "./a.txt/../../secret.txt"):
        assert await glob(tmp_path / "project", pattern) == ["No files found"]
    with Workspace(tmp_path / "project") as workspace:
        result = await call(GlobTool(workspace), {"pattern": f"{tmp_path}/*.txt"})
    assert result.is_error


async def test_hostile_trees_are_walked_in_bounds(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    (tmp_path / "usr").symlink_to("/usr")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    os.mkfifo(tmp_path / "fifo.txt")
    deep = tmp_path
    for _ in range(200):
        deep = deep / "d"
    deep.mkdir(parents=True)
    assert await glob(tmp_path, "**/*.txt") == ["a.txt", "(Folders that lie very deep were left out.)"]
    with Workspace(tmp_path) as workspace:
        assert (await call(GrepTool(workspace), {"pattern": "x"})).content == "Found 1 file\na.txt"


async def test_odd_names_stay_on_their_line(tmp_path: Path) -> None:
    make(tmp_path, "new\nline.txt", "\x1b[31m.txt", "é.txt", "-rf.txt", " .txt", "3\u202fPM.txt")
    (tmp_path / os.fsdecode(b"bad\xff.txt")).write_text("x")
    found = await glob(tmp_path, "*.txt")
    assert found == [
        "\\x1b[31m.txt",
        " .txt",
        "-rf.txt",
        "3\u202fPM.txt",
        "bad\\xff.txt",
        "new\\x0aline.txt",
        "é.txt",
    ]


async def test_many_files_take_seconds(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"d{number:02}").mkdir()
        folder = os.open(tmp_path / f"d{number:02}", os.O_RDONLY)
        for file in range(1000):
            os.close(os.open(f"{file:03}.txt", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        os.close(folder)
    start = time.process_time()
    found = await glob(tmp_path, "**/*.txt")
    with Workspace(tmp_path) as workspace:
        searched = await call(GrepTool(workspace), {"pattern": "x"})
    assert found[-1].startswith("(Showing 100 of 30000 matching files")
    assert searched.content == "No files found"
    assert time.process_time() - start < 10


async def test_a_cancelled_walk_ends_soon(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(5000):
        (tmp_path / f"d{number}").mkdir()
    with Workspace(tmp_path) as workspace:
        start = time.monotonic()
        with anyio.move_on_after(0.01):
            await GlobTool(workspace).run({"pattern": "**/x"})
        assert time.monotonic() - start < 2


async def test_what_may_not_be_read_is_not_listed(tmp_path: Path) -> None:
    make(tmp_path, "secret/k.txt", "a.txt", "b/secret/x.txt")
    with Workspace(tmp_path) as workspace:
        workspace.rules = PathRules(denies_read=lambda path: path.startswith(str(tmp_path / "secret")))
        assert (await call(GlobTool(workspace), {"pattern": "**/*.txt"})).content == "a.txt\nb/secret/x.txt"
        assert (await call(GrepTool(workspace), {"pattern": "x", "path": "secret"})).is_error


async def test_nothing_outside_is_listed_or_searched_through_a_swapped_link(tmp_path: Path) -> None:
    make(tmp_path, "project/src/a.txt", "outside/SECRET.txt")
    (tmp_path / "outside" / "a.txt").write_text("SECRET x\n")
    (tmp_path / "project" / "link").symlink_to("../outside")
    found = set()
    project = tmp_path / "project"
    with swapping(project / "src", project / "link"), Workspace(project) as workspace:
        glob_tool, grep_tool = GlobTool(workspace), GrepTool(workspace)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            found.add(str((await call(glob_tool, {"pattern": "src/*"})).content))
            found.add(str((await call(glob_tool, {"pattern": "**/*", "path": "src"})).content))
            lines = {"pattern": "x", "output_mode": "content"}
            found.add(str((await call(grep_tool, lines)).content))
            found.add(str((await call(grep_tool, {**lines, "path": "src/a.txt"})).content))
    assert "src/a.txt:1:x" in found
    assert not any("SECRET" in text for text in found)
