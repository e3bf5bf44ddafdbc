"""What is kept of a command's output."""

import tracemalloc
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.tools.command_output import HEAD_CHARACTERS, MOST_CHARACTERS, TAIL_CHARACTERS, CommandOutput


def output_of(*pieces: bytes) -> CommandOutput:
    output = CommandOutput()
    for piece in pieces:
        output.add(piece)
    return output


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", ""),
        (b"a\n\n\n", "a"),
        (b"\n \t\n\n  a\n", "  a"),
        (b"a\r\n", "a"),
        (b"\xff\xc3\xa9\n", "\ufffdé"),
        (b"\n\n", ""),
    ],
)
def test_blank_ends_are_taken_off(data: bytes, shown: str) -> None:
    assert output_of(data).text() == shown


def test_most_characters_are_shown_whole() -> None:
    text = "é" * MOST_CHARACTERS
    assert output_of(text.encode()).text() == text


@given(st.lists(st.binary(max_size=70_000), max_size=8), st.integers(1, 20))
def test_pieces_do_not_matter(pieces: List[bytes], times: int) -> None:
    data = b"".join(pieces) * times
    whole, parts = output_of(data), output_of(*pieces * times)
    assert whole.size == parts.size == len(data)
    assert parts.text() == whole.text()


def test_long_output_keeps_head_and_tail() -> None:
    output = CommandOutput()
    for number in range(200_000):
        output.add(b"%d\n" % number)
    text = output.text()
    head, _, tail = text.partition("\n\n... ")
    assert len(head) == HEAD_CHARACTERS
    assert head.startswith("0\n1\n2\n")
    assert tail.endswith("\n199998\n199999")
    left_out = output.size - HEAD_CHARACTERS - TAIL_CHARACTERS
    assert f"... {left_out:,} bytes left out ...\n\n" in text


def test_memory_does_not_grow_with_the_output() -> None:
    output = CommandOutput()
    tracemalloc.start()
    for _ in range(2000):
        output.add(bytes(65_536))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert output.size == 2000 * 65_536
    assert peak < 1_000_000
