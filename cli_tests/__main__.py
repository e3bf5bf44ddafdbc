"""Plays the recorded cases to Claude Code's command and to agents here, side by side: make test-cli

    PYTHONPATH=tests python -m cli_tests [CASE ...]

Prints what differs, and writes docs/tool-fidelity.md. Ends with 1 where the command does otherwise than it is
recorded, or an agent here otherwise than it is explained.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from agent_cases import Outcome, differences, granted, play, recorded
from tool_cases import load_agent_cases
from tool_differences import RECORDED, compared, expected, explained, page, unexplained

from .command import command_path, play_to_command, version_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tool-fidelity.md"
Case = Dict[str, Any]
_REFUSED = "the stand-in, as the API does, refuses the next request: {}"
# Where the command does otherwise than it is recorded, and no version of it is the reason.
NOT_AS_RECORDED = {
    ("offered-empty-list", "requests"): _REFUSED.format("it has calls of tools and no tools"),
    ("wrong-json", "requests"): _REFUSED.format("the input of a call in it is a list"),
    ("wrong-json", "3.0"): _REFUSED.format("the input of a call in it is a list"),
    ("read-long-2", "2.0"): "it cuts a long line at another place in each run",
}


def main(names: Sequence[str]) -> int:
    command = command_path()
    cases = [case for case in load_agent_cases() if not names or case["name"] in names]
    print(f"Claude Code {version_of(command)}; recorded was {RECORDED}. {len(cases)} cases.")
    found = [_play(command, case) for case in cases]
    same, total = (sum(numbers) for numbers in zip(*(one for one, _ in found)))
    problems = [text for _, texts in found for text in texts]
    print(f"\n{same} of {total} comparisons are the same in both ({100 * same / total:.1f} %).")
    print("\n".join(problems) or "All that differs is explained.")
    if not names:
        PAGE.write_text(page(), encoding="utf-8")
    return 1 if problems else 0


def _play(command: Path, case: Case) -> Tuple[Tuple[int, int], List[str]]:
    """Returns how many comparisons are the same, of how many; and what is not explained."""
    with tempfile.TemporaryDirectory() as folder:
        there = play_to_command(command, case, Path(folder, "there"))
        here = asyncio.run(play(case, Path(folder, "here")))
    record, reasons = recorded(case), explained(case["name"])
    # Both are compared with the record, in which what differs from run to run is left out.
    changed = {
        place: pair
        for place, pair in differences(record, there, record.offered).items()
        if (case["name"], place) not in NOT_AS_RECORDED
    }
    differing = {**changed, **differences(record, here, granted(case))}
    total = compared([case])
    print(f"\n{case['name']}: {total - len(differing)} of {total} the same", flush=True)
    for place in differing:
        print(f"  {place}: {reasons[place].why if place in reasons else 'NOT EXPLAINED'}")
    return (total - len(differing), total), _problems(case, changed, here)


def _problems(case: Case, changed: Dict[str, Any], here: Outcome) -> List[str]:
    offered = here.offered if "offered" in explained(case["name"]) else granted(case)
    wrong = differences(expected(case), here, offered)
    return [
        *(f"{case['name']}: the command is not as recorded: {text}" for text in unexplained(changed)),
        *(f"{case['name']}: not explained: {text}" for text in unexplained(wrong)),
    ]


if __name__ == "__main__":
    # Nothing of the user's own set-up has a part in this.
    with tempfile.TemporaryDirectory() as home:
        for name in [one for one in os.environ if one.startswith(("ANTHROPIC_", "CLAUDE_"))]:
            del os.environ[name]
        os.environ.update(HOME=home, CLAUDE_FORCE_LOOPBACK_ONLY="1")
        sys.exit(main(sys.argv[1:]))
