"""Results, ledger, progress and workflows add up costs by the same rules."""

from dataclasses import replace

import pytest
from extras import missing
from hypothesis import given
from hypothesis import strategies as st
from ledgers import executed

from claude_force.bulk import ProgressTracker, ResultsFile, RunSummary, TaskRow
from claude_force.costs import CostTotals, clear_cost, is_unpriced, without_cost
from claude_force.engine.result_builder import CallLabels, as_shared, succeeded
from claude_force.engine.result_json import as_cached
from claude_force.errors import OverloadedError
from claude_force.ledger.encoder import encode_line
from claude_force.ledger.entry import decode_lines
from claude_force.ledger.metrics import compute_metrics
from claude_force.types import AgentResult, Attempt, Reply, Usage
from claude_force.workflow import Step, StepResult, Workflow, WorkflowResult

USD = st.floats(0, 100)
PAID = Reply("text", "a-model", Usage(1, 2), cost=0.5, wasted_cost=0.25, prompt_cache_saving=0.125)


@st.composite
def results(draw):
    """Answers that were paid for, that were given again, and calls that failed."""
    kind = draw(st.sampled_from(["paid", "cached", "shared", "failed"]))
    if kind == "failed":
        return AgentResult("a", False, cost=draw(st.none() | USD), error=OverloadedError("no room"))
    result = AgentResult("a", True, cost=draw(st.none() | USD), prompt_cache_saving=draw(st.floats(-1, 1)))
    return result if kind == "paid" else replace(result, **without_cost(result), **{kind: True})


def of_progress(results):
    tracker = ProgressTracker(lambda event: None, len(results), lambda: 0.0)
    for number, result in enumerate(results):
        tracker.row(number, "a").finished(result)
    return tracker.progress()


def of_outcome(results):
    outcome = RunSummary()
    for result in results:
        outcome.add(result)
    return outcome


def of_ledger(results):
    lines = [encode_line(replace(executed(), result=one), "run").encode() for one in results]
    figures = compute_metrics(decode_lines([line + b"\n" for line in lines])[0])
    return CostTotals(figures.cost, figures.unknown_price, figures.saved_cost, figures.prompt_cache_saving)


@pytest.mark.parametrize("book", [of_progress, of_outcome, of_ledger])
@given(results=st.lists(results(), max_size=6))
def test_all_totals_agree(book, results):
    expected, found = CostTotals.of(results), book(results)
    assert found.unpriced == expected.unpriced
    for name in ("cost", "saved", "prompt_cache_saving"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name


@given(results=st.lists(results(), max_size=6))
def test_workflow_cost_is_sum_or_unknown(results):
    workflow = Workflow("w", (Step("s", "a"),))
    step = StepResult("s", "a", "succeeded", tries=tuple(results))
    expected = CostTotals.of(results)
    for reported in (step, WorkflowResult(workflow, "task", [step], 1.0)):
        assert reported.cost == expected.full_cost
    assert step.to_dict()["saved_cost"] == expected.saved


@given(results=st.lists(results(), min_size=1, max_size=4))
def test_output_has_cost_of_rows(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("bulk") / "results.jsonl"
    with ResultsFile(path) as output:
        for number, result in enumerate(results):
            output.write(TaskRow(number, "a", "task"), "key", result)
    with ResultsFile(path) as output:
        rows = list(output.saved.values())
    expected = CostTotals.of(results)
    assert sum(row.cost for row in rows) == pytest.approx(expected.cost)
    assert sum(row.unpriced for row in rows) == expected.unpriced


class TestASum:
    def test_of_nothing_is_nothing(self):
        assert CostTotals.of([]) == CostTotals() and CostTotals().full_cost == 0.0

    def test_unknown_price_makes_total_partial(self):
        spent = CostTotals.of([AgentResult("a", True, cost=0.5), AgentResult("a", True)])
        assert (spent.cost, spent.unpriced, spent.full_cost) == (0.5, 1, None)

    def test_failed_call_without_usage_is_free(self):
        assert CostTotals.of([AgentResult("a", False)]).full_cost == 0.0
        assert (is_unpriced(True, None), is_unpriced(False, None), is_unpriced(True, 0.0)) == (
            True,
            False,
            False,
        )


def test_cost_includes_failed_attempts():
    assert succeeded(CallLabels("a"), PAID, 1.0).cost == 0.75


def delivered_before(reply):
    if missing("durable"):
        pytest.skip(missing("durable"))
    from claude_force.durable.delivery import without_its_cost as counted_before

    return counted_before(reply, 1.0)


def kept_in_a_run(reply):
    return as_cached(succeeded(CallLabels("a"), replace(reply, wasted_cost=0.0), 1.0), 1.0)


@pytest.mark.parametrize("again", [as_shared, delivered_before, kept_in_a_run])
class TestAnAnswerThatIsGivenAgain:
    def test_costs_nothing_and_saves_its_price(self, again):
        once = again(PAID)
        assert (once.cost, once.saved_cost, once.prompt_cache_saving) == (0.0, 0.5, None)
        assert (once.attempts, once.timeline) == (0, ())
        assert getattr(once, "wasted_cost", 0.0) == 0.0

    @pytest.mark.parametrize("before", ["cached", "shared"])
    def test_saves_its_price_each_time_anew(self, again, before):
        free_before = replace(PAID, cost=0.0, wasted_cost=0.0, saved_cost=0.5, **{before: True})
        assert again(free_before).saved_cost == 0.5


def test_shared_failure_counts_once():
    error = OverloadedError("no room")
    error.attempts, error.cost, error.timeline = 2, 0.5, (Attempt(0.0, 1.0, 1),)
    clear_cost(error)
    assert (error.attempts, error.cost, error.timeline) == (0, None, ())
