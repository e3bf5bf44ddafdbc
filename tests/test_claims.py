"""The page of promises names for each what was measured, and what a figure depends on."""

import re
import sys

import pytest
from pages import ROOT

if sys.version_info < (3, 10):
    pytest.skip("the benchmarks need Python 3.10", allow_module_level=True)

from benchmarks.claims.__main__ import written
from benchmarks.claims.claim import Claim, within

PAGE = (ROOT / "docs" / "performance-implementation-summary.md").read_text(encoding="utf-8")
VERDICTS = ("yes", "**no**", "depends on repetition")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.3, "yes"), (0.5, "yes"), (0.75, "depends on repetition"), (0.1, "depends on repetition")],
)
def test_out_of_range_share_needs_repetition(value, verdict):
    claim = Claim("Caching saves", "x", within(value, 0.3, 0.5), "so")
    assert claim.verdict == verdict
    assert f"| Caching saves | x | {verdict} | so |" in list(written([claim]))


def test_promise_that_is_not_kept_says_no():
    assert "| Fast | slow | **no** | so |" in list(written([Claim("Fast", "slow", False, "so")]))


def test_every_row_has_a_verdict():
    assert len(ROWS) > 10
    assert {row[2] for row in ROWS} <= set(VERDICTS)


def test_page_reports_missed_range():
    ranges = [(row, re.search(r"(\d+) (?:to|-) (\d+) %", row[0])) for row in ROWS]
    shares = [(row, [int(one) for one in found.groups()]) for row, found in ranges if found]
    assert len(shares) == 2
    for row, (low, high) in shares:
        assert (row[2] == "yes") == (low <= float(row[1].rstrip("%")) <= high), row
