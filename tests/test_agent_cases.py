"""Agents with tools do what Claude Code's own command did, or differ for a reason that is given."""

from pathlib import Path

import pytest
from agent_cases import differences, granted, play, recorded
from sandboxes import program
from tool_cases import Json, load_agent_cases
from tool_differences import (
    DIFFERENCES,
    LEAST_SAME,
    PROMISES,
    compared,
    expected,
    explained,
    page,
    unexplained,
)

CASES = {case["name"]: case for case in load_agent_cases()}
PAGE = Path(__file__).parent.parent / "docs" / "tool-fidelity.md"


def uses_bash(case: Json) -> bool:
    return "Bash" in granted(case) and any(
        call["tool"] == "Bash" for answer in case["answers"] for call in answer["calls"]
    )


@pytest.mark.parametrize("name", CASES)
async def test_agent_does_as_recorded(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if uses_bash(case):
        program()
    outcome = await play(case, tmp_path)
    offered = outcome.offered if "offered" in explained(name) else granted(case)
    assert not unexplained(differences(expected(case), outcome, offered))


@pytest.mark.parametrize("name", sorted({one.case for one in DIFFERENCES}))
def test_explained_differences_are_differences(name: str) -> None:
    case = CASES[name]
    found = differences(recorded(case), expected(case))
    assert set(explained(name)) <= set(found)


def test_most_is_the_same() -> None:
    others = sum(one.why not in PROMISES for one in DIFFERENCES)
    assert 1 - others / compared(list(CASES.values())) >= LEAST_SAME


def test_page_has_the_differences() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make test-cli writes it anew"
