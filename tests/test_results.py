"""Results of replies and errors, the observers that get them, and the log line of each."""

import logging
import time
from dataclasses import replace

import pytest

from claude_force.conversation import ContentBlock
from claude_force.engine.result_builder import (
    CallLabels,
    ResultBuilder,
    as_shared,
    failed,
    is_answer,
    is_unsent,
    log_result,
    notify,
    succeeded,
)
from claude_force.errors import (
    AuthenticationError,
    BudgetExceededError,
    CancelledCallError,
    ClosedError,
    EmptyAnswerError,
    InvalidTaskError,
    RefusedError,
)
from claude_force.limits.call_cost import CallCost
from claude_force.types import Attempt, Call, CallCompleted, Reply, ToolCall, Turn, Usage

RUN = CallLabels("reviewer", "release", 2)
USAGE = Usage(100, 50, cache_creation_input_tokens=20, cache_read_input_tokens=30)
REPLY = Reply(
    "Fine.",
    "model-1",
    USAGE,
    stop_reason="end_turn",
    request_id="req_1",
    attempts=2,
    cost=0.25,
    wasted_cost=0.5,
    cost_at_most=9.0,
    prompt_cache_saving=0.125,
    timeline=(Attempt(10.0, 11.0, 4, "OverloadedError"), Attempt(12.0, 14.0, 3)),
)
CALL = Call("reviewer", ("You review.",), "x", "model-1", 4096)
SINCE = (Attempt(2.0, 3.0, 4, "OverloadedError"), Attempt(4.0, 6.0, 3))


def call_error(kind=AuthenticationError, **fields):
    error = kind("It failed", request_id="req_2")
    for name, value in {"attempts": 1, "timeline": REPLY.timeline, **fields}.items():
        setattr(error, name, value)
    return error


class TestSuccess:
    def test_has_all_that_the_reply_says(self):
        result = succeeded(RUN, REPLY, 6.5, started=8.0)
        assert (result.agent_name, result.success, result.output) == ("reviewer", True, "Fine.")
        assert (result.errors, result.error) == ([], None)
        assert (result.model, result.usage, result.attempts) == ("model-1", USAGE, 2)
        assert (result.cost, result.cost_at_most) == (0.75, 0.75)
        assert (result.saved_cost, result.prompt_cache_saving) == (None, 0.125)
        assert (result.cached, result.cache_age, result.shared) == (False, None, False)
        assert (result.stop_reason, result.request_id) == ("end_turn", "req_1")
        assert (result.duration, result.timeline) == (6.5, SINCE)
        assert result.metadata == {
            "model": "model-1",
            "tokens_used": 200,
            "input_tokens": 150,
            "output_tokens": 50,
            "execution_time_ms": 6500.0,
            "workflow_name": "release",
            "workflow_position": 2,
            "cached": False,
            "estimated_cost": 0.75,
        }

    def test_no_workflow(self):
        metadata = succeeded(CallLabels("a"), REPLY, 1.0).metadata
        assert (metadata["workflow_name"], metadata["workflow_position"]) == (None, None)

    def test_default_start_is_zero(self):
        assert succeeded(CallLabels("a"), REPLY, 1.0).timeline == REPLY.timeline
        assert failed(CallLabels("a"), call_error(), None, 1.0).timeline == REPLY.timeline

    @pytest.mark.parametrize("unknown", ["cost", "wasted_cost"])
    def test_partly_unknown_cost_is_bounded(self, unknown):
        result = succeeded(RUN, replace(REPLY, **{unknown: None}), 1.0)
        assert (result.cost, result.cost_at_most, result.metadata["estimated_cost"]) == (None, 9.0, None)

    def test_kept_answer_has_its_age(self):
        kept = replace(REPLY, cached=True, cache_age=60.0, saved_cost=0.25, cost=0.0, wasted_cost=0.0)
        result = succeeded(RUN, kept, 0.5)
        assert (result.cached, result.cache_age, result.saved_cost, result.cost) == (True, 60.0, 0.25, 0.0)
        assert (result.metadata["cached"], result.metadata["cache_age_seconds"]) == (True, 60.0)

    def test_shared_answer_is_paid_for_once(self):
        other = as_shared(REPLY)
        assert (other.shared, other.cost, other.wasted_cost, other.saved_cost) == (True, 0.0, 0.0, 0.25)
        result = succeeded(RUN, other, 1.0)
        assert (result.shared, result.cost, result.saved_cost, result.output) == (True, 0.0, 0.25, "Fine.")

    def test_truncated_is_success(self):
        result = succeeded(RUN, replace(REPLY, stop_reason="max_tokens"), 1.0)
        assert (result.success, result.truncated) == (True, True)
        assert {name: result.metadata.get(name) for name in ("truncated", "refused", "empty")} == {
            "truncated": True,
            "refused": None,
            "empty": None,
        }


class TestCallsOfTools:
    """An answer without text that an agent's loop goes on from."""

    CALL = (ContentBlock("tool_use", '{"type":"tool_use","id":"t","name":"Read","input":{}}'),)

    @pytest.mark.parametrize("stop_reason", ["tool_use", "end_turn", "max_tokens"])
    def test_is_an_answer(self, stop_reason):
        reply = replace(REPLY, text="", content=self.CALL, stop_reason=stop_reason)
        assert is_answer(reply)
        assert succeeded(RUN, reply, 1.0).success

    def test_paused_is_an_answer(self):
        search = ContentBlock("server_tool_use", '{"type":"server_tool_use"}')
        assert is_answer(replace(REPLY, text="", content=(search,), stop_reason="pause_turn"))
        assert not is_answer(replace(REPLY, text="", content=(search,)))
        assert not is_answer(replace(REPLY, text="", stop_reason="pause_turn"))

    def test_thinking_alone_is_empty(self):
        thought = ContentBlock("thinking", '{"type":"thinking"}')
        result = succeeded(RUN, replace(REPLY, text="", content=(thought,)), 1.0)
        assert type(result.error) is EmptyAnswerError

    def test_refusal_with_calls_is_refused(self):
        result = succeeded(RUN, replace(REPLY, text="", content=self.CALL, stop_reason="refusal"), 1.0)
        assert type(result.error) is RefusedError


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("reply", "kind", "flag", "said"),
        [
            (replace(REPLY, stop_reason="refusal"), RefusedError, "refused", "The model refused to answer ("),
            (
                replace(REPLY, text=" \n"),
                EmptyAnswerError,
                "empty",
                "The answer has no text (stop reason end_turn) (request",
            ),
            (
                replace(REPLY, text="", stop_reason=None),
                EmptyAnswerError,
                "empty",
                "The answer has no text (request",
            ),
        ],
    )
    def test_is_a_failure_that_was_billed(self, reply, kind, flag, said):
        assert not is_answer(reply)
        result = succeeded(RUN, reply, 6.5, started=8.0)
        assert (result.success, type(result.error), result.output) == (False, kind, reply.text)
        assert result.errors == [str(result.error)] and result.errors[0].startswith(said)
        assert (result.metadata[flag], getattr(result, flag), result.cost) == (True, True, 0.75)
        error = result.error
        assert (error.request_id, error.attempts, error.timeline) == ("req_1", 2, REPLY.timeline)
        assert (error.cost, error.cost_at_most) == (0.75, 0.75)

    def test_any_other_reply_is_an_answer(self):
        assert is_answer(REPLY) and is_answer(replace(REPLY, stop_reason="max_tokens"))


class TestFailure:
    def test_has_what_its_error_says(self):
        error = call_error(cost=0.5, cost_at_most=0.5)
        result = failed(RUN, error, "model-1", 6.5, started=8.0)
        assert (result.agent_name, result.success, result.output) == ("reviewer", False, "")
        assert (result.error, result.errors) == (error, [str(error)])
        assert (result.model, result.usage, result.attempts, result.request_id) == (
            "model-1",
            Usage(),
            1,
            "req_2",
        )
        assert (result.cost, result.cost_at_most, result.duration) == (0.5, 0.5, 6.5)
        assert result.timeline == SINCE
        assert (result.metadata["workflow_name"], result.metadata["estimated_cost"]) == ("release", 0.5)
        assert (result.metadata["model"], result.metadata["tokens_used"]) == ("model-1", 0)

    def test_unknown_cost_is_bounded(self):
        result = failed(RUN, call_error(cost=None, cost_at_most=3.0), None, 1.0)
        assert (result.cost, result.cost_at_most) == (None, 3.0)

    def test_wrong_input_made_no_attempt(self):
        result = failed(RUN, InvalidTaskError("The task is empty"), None, 1.0)
        assert (result.attempts, result.cost, result.cost_at_most) == (0, None, 0.0)
        assert (result.request_id, result.timeline, result.model) == (None, (), None)


class TestObservers:
    def executed(self, result):
        return CallCompleted(CALL, result, 1_700_000_000.0)

    def test_failing_observer_stops_no_other(self, caplog):
        heard = []

        def broken(executed):
            raise ZeroDivisionError("mine")

        executed = self.executed(succeeded(RUN, REPLY, 1.0))
        notify([broken, heard.append], executed)
        assert heard == [executed]
        assert caplog.messages == ["an observer of calls failed"] and "mine" in caplog.text

    @pytest.mark.parametrize("kind", [ClosedError, CancelledCallError])
    def test_unsent_is_not_observed(self, kind):
        heard = []
        sent, unsent = (failed(RUN, call_error(kind, attempts=made), None, 1.0) for made in (1, 0))
        for result in (sent, unsent):
            notify([heard.append], self.executed(result))
        assert [one.result for one in heard] == [sent]
        assert (is_unsent(sent), is_unsent(unsent)) == (False, True)

    def test_skipped_is_not_observed(self):
        heard = []
        for skipped, made in ((True, 0), (True, 1), (False, 0)):
            error = call_error(skipped=skipped, attempts=made)
            notify([heard.append], self.executed(failed(RUN, error, None, 1.0)))
        assert [(one.result.error.skipped, one.result.attempts) for one in heard] == [(True, 1), (False, 0)]

    def test_input_error_is_observed(self):
        wrong = failed(RUN, InvalidTaskError("empty"), None, 1.0)
        kept = succeeded(RUN, replace(REPLY, attempts=0, cached=True), 1.0)
        assert [is_unsent(one) for one in (wrong, kept)] == [False, False]

    def test_failure_without_attempt_is_observed(self):
        result = failed(RUN, BudgetExceededError("no room"), None, 1.0)
        assert not is_unsent(result) and result.attempts == 0


class TestLog:
    @pytest.fixture
    def logged(self, caplog):
        caplog.set_level(logging.DEBUG, "claude_force.engine.result_builder")

        def log(result):
            caplog.clear()
            log_result(result)
            return caplog.records

        return log

    def test_logs_answer(self, logged):
        (record,) = logged(succeeded(RUN, REPLY, 6.5))
        assert (record.levelname, record.getMessage()) == ("INFO", "reviewer answered")
        names = ("agent", "model", "success", "attempts", "duration_seconds", "total_tokens", "cost_usd")
        assert [getattr(record, name) for name in names] == ["reviewer", "model-1", True, 2, 6.5, 200, 0.75]
        assert (record.request_id, record.error_type) == ("req_1", None)

    def test_logs_failure_as_error(self, logged):
        error = call_error()
        (record,) = logged(failed(RUN, error, "model-1", 1.0))
        assert (record.levelname, record.getMessage()) == ("ERROR", f"reviewer failed: {error}")
        assert (record.success, record.error_type, record.request_id) == (
            False,
            "AuthenticationError",
            "req_2",
        )

    @pytest.mark.parametrize("kind", [BudgetExceededError, CancelledCallError, ClosedError])
    def test_what_was_stopped_is_no_error(self, logged, kind):
        (record,) = logged(failed(RUN, call_error(kind), None, 1.0))
        assert record.levelname == "INFO"

    def test_logs_truncation_once(self, logged):
        cut = replace(REPLY, stop_reason="max_tokens")
        warning, record = logged(succeeded(RUN, cut, 1.0))
        assert (warning.levelname, record.levelname) == ("WARNING", "INFO")
        assert warning.getMessage() == "reviewer: the answer was cut off (max_tokens)"
        for again in (replace(cut, cached=True), replace(cut, shared=True), REPLY):
            assert len(logged(succeeded(RUN, again, 1.0))) == 1

    def test_cut_off_refusal_is_one_line(self, logged):
        assert len(logged(succeeded(RUN, replace(REPLY, text="", stop_reason="max_tokens"), 1.0))) == 1

    def test_logs_counts_of_tool_calls(self, logged):
        calls = (ToolCall(1, "Read", {}), ToolCall(1, "Read", {}, error="no"))
        calls += (ToolCall(2, "Edit", {}, error="no", is_denied=True),)
        result = replace(succeeded(RUN, REPLY, 1.0), turns=(Turn(), Turn()), tool_calls=calls)
        (record,) = logged(replace(result, stopped_by="max_turns"))
        names = ("turns", "tool_calls", "failed_tool_calls", "denied_tool_calls", "stopped_by")
        assert [getattr(record, name) for name in names] == [2, 3, 2, 1, "max_turns"]

    def test_answer_without_tools_has_no_counts(self, logged):
        (record,) = logged(succeeded(RUN, REPLY, 6.5))
        assert not hasattr(record, "turns") and not hasattr(record, "tool_calls")


class Ticks:
    """A clock that is one second further at each look, from 100 on."""

    def __init__(self):
        self.seconds = 99.0

    def now(self):
        self.seconds += 1
        return self.seconds


class TestResultBuilder:
    call = Call("reviewer", ("Review.",), "x", "model-1", 100)

    def built(self, end, call_cost=None):
        began = time.time()
        builder = ResultBuilder(self.call, RUN, Ticks(), call_cost)
        completed = end(builder)
        if completed is not None:
            assert (completed.call, completed.workflow_name, completed.workflow_position) == (
                self.call,
                "release",
                2,
            )
            assert began <= completed.started <= time.time()
        return completed

    def test_success_has_duration_and_labels(self):
        result = self.built(lambda builder: builder.succeeded(REPLY)).result
        expected = succeeded(RUN, REPLY, 1.0, 100.0)
        assert result == expected and result.timeline == expected.timeline
        assert (result.duration, result.agent_name) == (1.0, "reviewer")

    def test_error_makes_a_reply_a_failure(self):
        error = call_error(BudgetExceededError)
        result = self.built(lambda builder: builder.succeeded(REPLY, error)).result
        assert (result.success, result.error, result.errors) == (False, error, [str(error)])
        assert (result.output, result.cost, error.cost) == ("Fine.", 0.75, 0.75)

    def test_failure_has_model_and_error(self):
        error = AuthenticationError("no")
        error.timeline = (Attempt(100.5, 100.75, 1),)
        result = self.built(lambda builder: builder.failed(error)).result
        assert (result.error, result.metadata["model"], result.duration) == (error, "model-1", 1.0)
        assert result.timeline == failed(RUN, error, "model-1", 1.0, 100.0).timeline
        assert result.agent_name == "reviewer"

    def test_cancelled_unsent_call_has_no_result(self):
        assert self.built(lambda builder: builder.cancelled()) is None

    def test_cancelled_sent_call_has_its_cost(self):
        call_cost = CallCost()
        call_cost.timeline = (Attempt(100.5, 100.75, 1),)
        call_cost.add_failed_cost(0.5)
        result = self.built(lambda builder: builder.cancelled(), call_cost).result
        assert type(result.error) is CancelledCallError
        assert (result.error.message, result.cost) == ("The call was cancelled", 0.5)

    def test_makes_a_call_cost_where_none_is_given(self):
        assert ResultBuilder(self.call, RUN, Ticks()).call_cost.timeline == ()
        given = CallCost()
        assert ResultBuilder(self.call, RUN, Ticks(), given).call_cost is given
