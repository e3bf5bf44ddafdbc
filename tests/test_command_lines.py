"""What is told of a command by its text."""

import pytest

from claude_force.tools.command_lines import is_answer, runs_in_background


@pytest.mark.parametrize(
    "command",
    [
        "grep x a",
        "cat a | grep x",
        "test -f x",
        "[ -f x ]",
        "cd sub && diff a b",
        "rg 'a;b' .",
        "find . -name x",
        "ls; grep x $(git ls-files)",
    ],
)
def test_one_is_an_answer(command: str) -> None:
    assert is_answer(command, 1)
    assert not is_answer(command, 2)


@pytest.mark.parametrize(
    "command",
    [
        "false",
        "grep x a; ls nothing",
        "echo 'grep'; false",
        "! grep x a",
        "grep x a && echo y",
        "(",
        "f() { grep x a; }",
    ],
)
def test_one_is_an_error(command: str) -> None:
    assert not is_answer(command, 1)


@pytest.mark.parametrize("command", ["sleep 1 &", "a & b", "a && b & c; wait; d", "a | b &"])
def test_ampersand_is_seen(command: str) -> None:
    assert runs_in_background(command)


@pytest.mark.parametrize(
    "command",
    [
        "a && b",
        "(a &); b",
        "{ a & }; b",
        "a & b & wait",
        "a >&2",
        "a &>x",
        "a 2>&1 | b",
        "echo 'a & b'",
        "cat <<E\na & b\nE",
        "a |& b",
        "x $((1 & 2))",
    ],
)
def test_no_ampersand_is_imagined(command: str) -> None:
    assert not runs_in_background(command)
