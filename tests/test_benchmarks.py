"""The pages of benchmark figures match the recorded results."""

import json
import re
import statistics

import pytest
from extras import missing
from pages import ROOT

if missing("otel"):
    pytest.skip(missing("otel"), allow_module_level=True)

from benchmarks.__main__ import KEPT, PAGE
from benchmarks.cache.measures import MEASURES
from benchmarks.cache.subjects import SUBJECTS
from benchmarks.page import goals as page_goals
from benchmarks.page import written
from benchmarks.part import Goal, Part
from benchmarks.parts import PARTS

RESULTS = json.loads(KEPT.read_text(encoding="utf-8"))
SCALING = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
# Rows of the table of sizes, and where their figures come from: of sizes, not of promises.
SIZES = {
    "rows per second": ("rows_per_second", 1),
    "latency added to a call": ("alone_ms", 1),
    "disk per row": ("bytes_per_row", 1000),
    "connections per worker": ("connections", 1),
    "an idle worker": ("idle_transactions", 1),
}


def test_the_page_is_made_of_what_was_kept():
    assert PAGE.read_text(encoding="utf-8") == "\n".join(written(RESULTS)) + "\n"


def test_all_usual_parts_were_measured():
    assert {part.name for part in PARTS if part.usual} <= set(RESULTS) <= {part.name for part in PARTS}


def test_page_lists_missed_goals():
    goals = [
        goal for part in PARTS if part.name in RESULTS for goal in part.goals(RESULTS[part.name]["found"])
    ]
    assert len(goals) > 20
    page = PAGE.read_text(encoding="utf-8")
    missed = [line for line in page.splitlines() if line.startswith("Not reached, ")]
    for goal in goals:
        assert f"| {goal.text} | {goal.figure} |" in page
        assert goal.reached != any(goal.text in line for line in missed), goal.text


def test_page_groups_shared_reasons():
    part = Part("quick", "Quick", dict, lambda found: ["figures"], lambda found: iter(found["goals"]))
    found = [
        Goal("one", "1", True),
        Goal("two", "2", False, "so it is."),
        Goal("three", "3", False, "so it is."),
    ]
    page = "\n".join(page_goals([part], {"quick": {"found": {"goals": found}}}))
    assert "Not reached, quick: two; quick: three: so it is." in page
    assert "| [quick](#quick) | one | 1 | yes |" in page


@pytest.mark.parametrize("row", SIZES)
def test_durable_sizes_are_measured(row):
    key, unit = SIZES[row]
    rounds = RESULTS["durable"]["found"]["figures"]["claude-force"]
    measured = statistics.median(one[key] for one in rounds) / unit
    (line,) = (line for line in SCALING.splitlines() if line.startswith(f"| {row}"))
    (reported, *_) = re.findall(r"[\d.,]+", line.rpartition(" | ")[2])
    assert float(reported.replace(",", "")) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("measure", [name for name in MEASURES if name != "read"])
def test_cache_is_measured(tmp_path, measure):
    figures = MEASURES[measure](SUBJECTS["claude-force"], tmp_path, 200)
    assert figures and all(value >= 0 for value in figures.values())
