"""Grep finds the same with each engine, and no pattern and no program gets out of bounds."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List, Optional

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tool_cases import call

from claude_force.tools.grep_engines import (
    ENGINES,
    PythonEngine,
    Query,
    Re2Engine,
    RipgrepEngine,
    make_engine,
)
from claude_force.tools.grep_tool import GrepTool
from claude_force.tools.protocol import ToolError
from claude_force.tools.regex_syntax import PYTHON, RE2, PatternError, translate
from claude_force.tools.threads import Stop
from claude_force.tools.tree_walk import Deadline
from claude_force.tools.workspace import Workspace

engines = pytest.mark.parametrize("engine", ENGINES)


def expect_engine(engine: Any) -> None:
    if not engine.serves(Query("x")):
        pytest.skip(f"{engine.__name__} is not installed")


async def grep(folder: Path, pattern: str, engine: Any = None, **more: Any) -> str:
    with Workspace(folder) as workspace:
        tool = GrepTool(workspace, (engine, PythonEngine) if engine else ENGINES)
        given_ = {"pattern": pattern, "output_mode": "content", **more}
        return str((await call(tool, given_)).content)


@engines
@pytest.mark.parametrize(
    ("pattern", "data", "shown"),
    [
        ("b$", b"b\r\nb\n", "2:b"),
        ("^one", b"\xef\xbb\xbfone\n", "1:one"),
        ("one", "\ufeffone\n".encode("utf-16-le"), "1:one"),
        ("caf.", b"caf\xe9s\ncafe\n", "2:cafe"),
        (r"a\s*b", b"a\nb\na b\n", "3:a b"),
        (r"[^x]+y", b"q\ny\nqy\n", "3:qy"),
        ("", b"\n\nx", "1:\n2:\n3:x"),
        ("x*", b"a\n", "1:a"),
        (r"\bfoo\b", b"foo_bar\nfoo bar\n", "2:foo bar"),
        (r"^\w+$", "größe\n".encode(), "1:größe"),
        (r"a|b", b"c\nb\n", "2:b"),
        (r"[[:upper:]]{2}", b"aB\nAB\n", "2:AB"),
        (r"(?i)abc", b"ABC\n", "1:ABC"),
        (r"x(?i)y|z", b"XY\nxY\nZ\n", "2:xY\n3:Z"),
        (r"interface\{\}", b"interface{}\n", "1:interface{}"),
        ("-v", b"-v\n", "1:-v"),
        ("é", "é\n".encode(), "1:é"),
        (r"\$\(", b"$(x)\n", "1:$(x)"),
    ],
)
async def test_lines_are_those_of_ripgrep(
    engine: Any, pattern: str, data: bytes, shown: str, tmp_path: Path
) -> None:
    expect_engine(engine)
    (tmp_path / "f").write_bytes(data)
    assert await grep(tmp_path, pattern, engine, path="f") == shown


PIECES = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "a*", "b+?", "(a|b)", "^", "$", r"\b", r"\s", "(?:ab)?", "a{2}", r"\w"]
)
PATTERNS = st.lists(PIECES, min_size=1, max_size=5).map("".join)
TEXTS = st.lists(st.text("ab \n", max_size=25).map(str.encode), min_size=1, max_size=8)


def lines(engine: Any, query: Query, texts: List[bytes], most: Optional[int] = None) -> Any:
    try:
        return make_engine(query, Deadline(Stop()), (engine,)).search(texts, most)
    except PatternError as error:
        return str(error)


@given(PATTERNS, TEXTS, st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_all_engines_find_the_same_lines(pattern: str, texts: List[bytes], spans_lines: bool) -> None:
    query = Query(pattern, spans_lines=spans_lines)
    answers = [lines(engine, query, texts) for engine in ENGINES if engine.serves(query)]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    "pattern",
    [
        "a(b",
        "a)b",
        "*a",
        "a|*",
        "[a",
        "a{2",
        "a{x}",
        "a{3,1}",
        "(?=a)",
        "(?<!a)",
        r"\1",
        r"\y",
        "interface{}",
        "(?z)",
        "a\nb",
    ],
)
async def test_wrong_patterns_are_refused_alike(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x\n")
    found = {await grep(tmp_path, pattern, engine) for engine in ENGINES if engine.serves(Query(pattern))}
    assert len(found) == 1
    assert found.pop().startswith("Search failed — ripgrep rejected the pattern, glob, or file type")


@pytest.mark.parametrize(
    "pattern", ["a" + "*" * 9000, "[" * 9000, "(" * 4500 + ")" * 4500, "(?i)" * 2400, "x" * 10_001]
)
def test_monstrous_patterns_are_refused_at_once(pattern: str) -> None:
    start = time.process_time()
    with pytest.raises(PatternError):
        translate(pattern, PYTHON, spans_lines=False)
    assert time.process_time() - start < 2


@given(st.text("ab()[]{}*+?|\\^$.-,:=!<>&1d\nP", max_size=20))
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    for dialect in (RE2, PYTHON):
        try:
            written = translate(text, dialect, spans_lines=True)
        except PatternError:
            continue
        if dialect is PYTHON:
            try:
                re.compile(written)
            except re.error as error:
                # A name of a group that is used twice, or a count that Python finds too large.
                assert "redefinition" in str(error) or "bad character range" in str(error)


async def test_context_and_pages(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(f"{number}\n" for number in range(1, 10)))
    (tmp_path / "b").write_text("2\n")
    both = "a-1-1\na:2:2\na-3-3\n--\nb:1:2"
    assert await grep(tmp_path, "2", context=1) == both
    assert await grep(tmp_path, "[28]", path="a", **{"-A": 1}) == "2:2\n3-3\n--\n8:8\n9-9"
    assert await grep(tmp_path, "[23]", path="a", **{"-B": 1, "-n": False}) == "1\n2\n3"
    page = await grep(tmp_path, "[0-9]", path="a", head_limit=2, offset=3)
    assert page == "4:4\n5:5\n\n[Showing results with pagination = limit: 2, offset: 3]"
    assert await grep(tmp_path, "2", offset=5) == "No matches found"


@engines
async def test_only_matching_parts_are_shown(engine: Any, tmp_path: Path) -> None:
    expect_engine(engine)
    (tmp_path / "a").write_bytes(b"x1 y22\r\nnone\nz3:4 \xff5\n")
    (tmp_path / "b").write_text("6")
    parts = "a:1:1\na:1:22\na:3:3\na:3:4\na:3:5\nb:1:6"
    assert await grep(tmp_path, r"\d+", engine, **{"-o": True}) == parts
    assert await grep(tmp_path, r"\d*$", engine, path="a", **{"-o": True, "-n": False}) == "5"
    page = await grep(tmp_path, r"\d+", engine, **{"-o": True, "head_limit": 1, "offset": 2})
    assert page == "a:3:3\n\n[Showing results with pagination = limit: 1, offset: 2]"
    assert (
        await grep(tmp_path, r"\d*", engine, path="a", **{"-o": True, "-i": True})
        == "1:1\n1:22\n3:3\n3:4\n3:5"
    )


async def test_long_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 501 + "\n" + "x" * 500 + "\n")
    shown = f"1:[Omitted long matching line]\n2:{'x' * 500}"
    assert await grep(tmp_path, "x", path="a") == shown
    assert (await grep(tmp_path, "^x{500}$", path="a", context=1)).startswith("1-[Omitted long context line]")


async def test_globs_and_types_choose_files(tmp_path: Path) -> None:
    for name in ("a.py", "b.js", "c/d.tsx", "c/e.md", "x.log", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("*.log\n")
    (tmp_path / ".git").mkdir()
    files = {"output_mode": "files_with_matches"}
    assert await grep(tmp_path, "l", glob="*.py,*.js c/*.md", **files) == "Found 3 files\na.py\nb.js\nc/e.md"
    assert (
        await grep(tmp_path, "l", glob="!*.{py,js}", **files) == "Found 3 files\n.gitignore\nc/d.tsx\nc/e.md"
    )
    assert await grep(tmp_path, "l", glob="*.log", **files) == "Found 1 file\nx.log"
    assert await grep(tmp_path, "l", type="ts", **files) == "Found 1 file\nc/d.tsx"
    assert await grep(tmp_path, "l", path="x.log", **files) == "Found 1 file\nx.log"
    assert "error parsing glob '['" in await grep(tmp_path, "l", glob="[")


async def test_a_count_is_of_matches_where_they_span_lines(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\nb\nx\na\nb\n")
    found = await grep(tmp_path, "a\nb", multiline=True, output_mode="count")
    assert found == "a:2\n\nFound 2 total occurrences across 1 file."
    assert await grep(tmp_path, "a.b", multiline=True) == "a:1:a\na:2:b\na:4:a\na:5:b"


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*c", r"(.*)*(.*)*x$", r"(\w+\s?)*[!?]"])
async def test_a_catastrophic_pattern_ends(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a" * 5000 + "b" + "a" * 5000 + "!b\n")
    for engine in (Re2Engine, RipgrepEngine):
        if engine.serves(Query(pattern)):
            with anyio.fail_after(30):
                await grep(tmp_path, pattern, engine)


WINDOWS = [b"x" * 300_000 + b"needle" + b"y" * 300_000, b"short\n" * 70_000 + b"needle\n" + b"x\n" * 200_000]


@pytest.mark.parametrize(
    "pattern", ["needle", "^xx*needle", "needle(y|$)", r"e+d\w{3}", r"\Bneedle|^needle$"]
)
def test_long_texts_are_searched_as_one(pattern: str) -> None:
    if not Re2Engine.serves(Query(pattern)):
        pytest.skip("Re2Engine is not installed")
    answers = [lines(engine, Query(pattern), WINDOWS) for engine in (Re2Engine, PythonEngine)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("pattern", ["a[ab]{900}c", r"\w{300}x"])
def test_the_slowest_patterns_see_the_deadline(pattern: str) -> None:
    if not Re2Engine.serves(Query(pattern)):
        pytest.skip("Re2Engine is not installed")
    chance = random.Random(1)
    text = "".join(chance.choice("ab") for _ in range(1_500_000)).encode()
    start = time.monotonic()
    with pytest.raises(ToolError, match="took more than 1 seconds"):
        Re2Engine(Query(pattern), Deadline(Stop(), 1)).search([text], None)
    assert time.monotonic() - start < 30


def children() -> List[str]:
    found = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], stdout=subprocess.PIPE, timeout=30
    )
    return [line for line in found.stdout.decode().splitlines() if "pattern_worker" in line or "rg " in line]


async def test_a_search_in_another_process_is_killed_with_its_call(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a" * 5000 + "!b\n")
    with Workspace(tmp_path) as workspace:
        tool = GrepTool(workspace, (PythonEngine,))
        with anyio.move_on_after(1.5) as scope:
            await tool.run({"pattern": r"(a+)+$"})
    assert scope.cancelled_caught
    deadline = time.monotonic() + 10
    while children() and time.monotonic() < deadline:
        await anyio.sleep(0.05)
    assert children() == []


def test_a_search_without_an_end_is_ended() -> None:
    engine = PythonEngine(Query("(a+)+$"), Deadline(Stop(), seconds=1))
    with pytest.raises(ToolError, match="took more than 1 seconds"):
        engine.search([b"a" * 5000 + b"!b\n"], None)
    assert children() == []


async def test_programs_get_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_engine(RipgrepEngine)
    (tmp_path / "config").write_text("--invert-match\n")
    (tmp_path / "a").write_text("one\ntwo\n")
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(tmp_path / "config"))
    assert await grep(tmp_path, "one", RipgrepEngine, path="a") == "1:one"


@engines
async def test_a_tree_of_two_megabytes_is_searched_in_batches(engine: Any, tmp_path: Path) -> None:
    expect_engine(engine)
    for number in range(200):
        (tmp_path / f"{number:03}").write_text("some text\n" * 1000 + ("" if number % 2 else "needle"))
    found = await grep(tmp_path, "needle", engine, output_mode="count", head_limit=1)
    assert found == "000:1\n\nFound 100 total occurrences across 100 files. with pagination = limit: 1"


def test_grep_imports_its_engine_at_the_first_search() -> None:
    code = "import sys, claude_force.tools.grep_tool; assert 're2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
