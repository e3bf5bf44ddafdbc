"""Which command lines are known to change nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandboxes import Shell

from claude_force.tools.read_only_commands import changes_nothing

READS = [
    "ls",
    "ls -la src | head -5",
    "cat a.txt b.txt",
    "grep -rn TODO . 2>/dev/null",
    "git diff HEAD~1 -- src",
    "git --no-pager log --oneline -5",
    "git status --short && git branch --show-current",
    "git log | grep x; wc -l a.txt",
    "find . -name '*.py' -type f",
    "sed -n '10,20p' a.txt",
    "sort a.txt | uniq -c",
    "test -f a.txt && echo yes || echo no",
    "echo $(git rev-parse HEAD)",
    "LC_ALL=C sort a.txt",
    "printf '%s\\n' a",
]
CHANGES = [
    "touch a",
    "echo x > a",
    "ls >> a",
    "cd src",
    "cd src && ls",
    "git diff --output=a",
    "git diff -O a",
    "git log --output a",
    "git grep -Ovi x",
    "git -c core.pager=x log",
    "git commit -m x",
    "git branch new",
    "git checkout a",
    "git status; rm a",
    "find . -delete",
    "find . -exec rm {} +",
    "find . -fprint a",
    "sort -o a b",
    "sort -uo a b",
    "sort --output=a b",
    "uniq a b",
    "sed -i s/a/b/ a",
    "sed -n 'w a' b",
    "sed -n '1e touch a' b",
    "sed -n -i 1p a",
    "awk 1 a",
    "xargs rm",
    "cat $(touch a)",
    "cat <(touch a)",
    "`touch a`",
    "$x",
    "l*",
    "PATH=. ls",
    "GIT_PAGER=x git log",
    "ls &",
    "python3 -c 1",
    "printf -v PATH x",
    "x=1",
    "ls() { rm a; }; ls",
    "exec ls",
    "eval ls",
    "env ls",
    "tree -o a",
    "tee a",
    "",
    "(",
]


@pytest.mark.parametrize("line", READS)
def test_line_changes_nothing(line: str) -> None:
    assert changes_nothing(line)


@pytest.mark.parametrize("line", CHANGES)
def test_line_may_change_something(line: str) -> None:
    assert not changes_nothing(line)


@given(st.sampled_from(READS), st.sampled_from(CHANGES), st.sampled_from(["; ", " && ", " || ", "\n", " | "]))
def test_one_change_is_enough(read: str, change: str, operator: str) -> None:
    assert changes_nothing(read + operator + read)
    assert not change or not changes_nothing(read + operator + change)
    assert not change or not changes_nothing(change + operator + read)


async def test_read_only_line_can_change_nothing(tmp_path: Path) -> None:
    """What is wrongly taken for a line that only reads fails."""
    (tmp_path / "a").write_text("x\n")
    shell = Shell(tmp_path)
    command = r"sort a $(printf %b '\055o') b"
    text = await shell.text(command)
    assert shell.tool.is_read_only({"command": command})
    assert "Read-only file system" in text
    assert await shell.text("cp a b") == "(Bash completed with no output)"
    shell.close()
