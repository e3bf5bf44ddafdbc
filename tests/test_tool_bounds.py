"""What tools take of memory and time, whatever a model asks for and whatever a file holds."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest

from claude_force.conversation import ToolUse
from claude_force.tools.command_rules import compile_command, find_denied
from claude_force.tools.glob_patterns import GlobError, compile_glob
from claude_force.tools.ignore_files import parse_ignore_file
from claude_force.tools.input_validation import validate_input
from claude_force.tools.read_only_commands import changes_nothing
from claude_force.tools.shell_commands import ShellSyntaxError

# Beyond what the process takes without a call; the largest file that is read whole has 16 MB.
MOST_GROWTH = 300 * 1024
MOST_SECONDS = 15
RUN = """
import asyncio, json, resource, sys, time
from claude_force.tools.edit_tools import EditTool
from claude_force.tools.glob_tool import GlobTool
from claude_force.tools.grep_engines import PythonEngine
from claude_force.tools.grep_tool import GrepTool
from claude_force.tools.protocol import ToolError
from claude_force.tools.read_tool import ReadTool
from claude_force.tools.workspace import Workspace

async def main(tool, arguments):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    try:
        await tool.run(arguments)
    except ToolError:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(after - before, time.process_time() - begin)

workspace = Workspace(sys.argv[1], writable=True)
makers = {"Read": ReadTool, "Edit": EditTool, "Glob": GlobTool, "Grep": lambda w: GrepTool(w, [PythonEngine])}
asyncio.run(main(makers[sys.argv[2]](workspace), json.loads(sys.argv[3])))
"""

LARGE = 16 * 1024 * 1024 - 16
MANY_STARS = "{a,b}" * 9 + "*a" * 2000
FILES: Dict[str, bytes] = {
    "lines.txt": b"\n" * LARGE,
    "short.txt": b"ab\n" * 100_000,
    "letters.txt": b"a" * LARGE,
    "cells.ipynb": b'{"cells":[' + b",".join([b'{"cell_type":"code","source":"a"}'] * 400_000) + b"]}",
    "values.ipynb": b'{"cells":[],"x":[' + b",".join([b"{}"] * 5_000_000) + b"]}",
}
CALLS = (
    ("lines.txt", "Read", '{"file_path": "lines.txt", "offset": 1, "limit": 1000000000}'),
    ("lines.txt", "Read", '{"file_path": "lines.txt", "offset": 16000000, "limit": 5}'),
    ("cells.ipynb", "Read", '{"file_path": "cells.ipynb"}'),
    ("values.ipynb", "Read", '{"file_path": "values.ipynb"}'),
    ("letters.txt", "Edit", '{"file_path": "letters.txt", "old_string": "a", "new_string": "b"}'),
    (
        "letters.txt",
        "Edit",
        '{"file_path": "letters.txt", "old_string": "a", "new_string": "bbbbbbbb", "replace_all": true}',
    ),
    ("lines.txt", "Grep", '{"pattern": "", "output_mode": "count"}'),
    ("lines.txt", "Grep", '{"pattern": "", "output_mode": "content", "offset": 1000000000}'),
    (
        "short.txt",
        "Grep",
        '{"pattern": "a", "output_mode": "content", "-C": 100000, "head_limit": 20000}',
    ),
    ("short.txt", "Glob", f'{{"pattern": "{MANY_STARS[:4090]}"}}'),
)


def taken(root: Path, tool: str, arguments: str) -> Tuple[int, float]:
    """Kilobytes of memory, and seconds of this process's CPU."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(root), tool, arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    memory, seconds = done.stdout.split()
    return int(memory), float(seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="measures kilobytes as Linux counts them")
@pytest.mark.parametrize(("file", "tool", "arguments"), CALLS)
def test_no_call_takes_much_memory_or_time(tmp_path: Path, file: str, tool: str, arguments: str) -> None:
    (tmp_path / file).write_bytes(FILES[file])
    memory, seconds = taken(tmp_path, tool, arguments)
    assert memory < MOST_GROWTH
    assert seconds < MOST_SECONDS


def test_alternatives_of_a_pattern_are_bounded_together() -> None:
    with pytest.raises(GlobError, match="too many"):
        compile_glob(MANY_STARS[:4090])


@pytest.mark.parametrize("line", [MANY_STARS[:4090], "*a" * 2000])
def test_an_ignore_file_takes_few_seconds(line: str) -> None:
    begin = time.process_time()
    parse_ignore_file("\n".join([line] * 250).encode())
    assert time.process_time() - begin < MOST_SECONDS


def test_rules_for_commands_are_not_compared_for_ever() -> None:
    patterns = [compile_command(f"x{number} y:*") for number in range(500)]
    line = ";".join(["env " + " ".join(["a"] * 97)] * 95)
    begin = time.process_time()
    with pytest.raises(ShellSyntaxError, match="too many commands"):
        find_denied(line, patterns)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("line", ["echo a;" * 2800, "echo " + "a " * 9000, "echo " + "$a" * 9000])
def test_lines_of_very_many_words_are_not_parsed_to_their_end(line: str) -> None:
    assert not changes_nothing(line)


@pytest.mark.parametrize("value", [2.0, "2", 2])
def test_whole_numbers_reach_a_tool_as_integers(value: Any) -> None:
    schema = {"properties": {"limit": {"type": "integer"}}}
    limit = validate_input(ToolUse("1", "Read", {"limit": value}), schema)["limit"]
    assert limit == 2
    assert isinstance(limit, int)
