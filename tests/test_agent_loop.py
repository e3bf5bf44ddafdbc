"""The decisions of an agent's loop: what follows each answer, and what bounds it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from claude_force.conversation import ContentBlock, Conversation, ToolResult
from claude_force.engine.agent_loop import AgentLoop, Allowance, Bounds, Forecast
from claude_force.errors import BadReplyError

TOOLS = '[{"name":"Read"}]'
UNLIMITED = Bounds(max_turns=100)
NOT_RUN = ("max_tokens", "model_context_window_exceeded", "refusal")


def text(words="Done"):
    return ContentBlock("text", json.dumps({"type": "text", "text": words}))


def use(identity, name="Read", **arguments):
    block = {"type": "tool_use", "id": identity, "name": name, "input": arguments}
    return ContentBlock("tool_use", json.dumps(block))


def started(bounds=UNLIMITED):
    return AgentLoop(Conversation.start(TOOLS, ["Read a.txt"]), bounds)


def content_of(message):
    return json.loads(message.json)["content"]


def blocks(conversation, kind):
    """All blocks of that type, in the order of the messages."""
    found = [block for message in conversation.messages for block in content_of(message)]
    return [block for block in found if block["type"] == kind]


class TestStopReasons:
    @pytest.mark.parametrize("reason", ["tool_use", "end_turn", "stop_sequence", "pause_turn", None, "new"])
    def test_calls_are_run(self, reason):
        loop = started()
        loop.begin_turn()
        assert [one.id for one in loop.add_answer(reason, [text(), use("t1"), use("t2")])] == ["t1", "t2"]
        assert loop.awaits_results and not loop.is_over
        loop.add_results([ToolResult("one"), ToolResult("two", True)])
        assert not loop.awaits_results
        results = blocks(loop.begin_turn(), "tool_result")
        assert [(one["tool_use_id"], one["content"]) for one in results] == [("t1", "one"), ("t2", "two")]

    def test_tokens_that_were_counted_are_kept(self):
        loop = started()
        loop.begin_turn()
        loop.add_answer("tool_use", [use("t1")], 700)
        loop.add_results([ToolResult("one")])
        assert loop.begin_turn().counted == 700

    def test_tokens_are_unknown_unless_given(self):
        loop = started()
        loop.begin_turn()
        loop.add_answer("pause_turn", [text()])
        assert loop.begin_turn().counted == 0

    @pytest.mark.parametrize("reason", NOT_RUN)
    def test_calls_of_a_cut_off_or_refused_answer_are_not_run(self, reason):
        loop = started()
        loop.begin_turn()
        assert loop.add_answer(reason, [use("t1")]) == []
        assert loop.is_over and loop.has_unrun_calls and not loop.awaits_results

    @pytest.mark.parametrize("reason", ["end_turn", "stop_sequence", "tool_use", None, "new", *NOT_RUN])
    def test_answer_without_calls_is_the_last(self, reason):
        loop = started()
        loop.begin_turn()
        assert loop.add_answer(reason, [text()]) == []
        assert loop.is_over and not loop.has_unrun_calls and loop.stopped_by is None

    @pytest.mark.parametrize("reason", ["pause_turn", "compaction"])
    def test_unfinished_answer_is_sent_back(self, reason):
        loop = started()
        loop.begin_turn()
        assert loop.add_answer(reason, [text("So far")]) == []
        assert not loop.is_over
        last = loop.begin_turn().messages[-1]
        assert (last.role, content_of(last)) == ("assistant", [{"type": "text", "text": "So far"}])

    def test_unfinished_answer_without_blocks_is_the_last(self):
        loop = started()
        loop.begin_turn()
        loop.add_answer("pause_turn", [])
        assert loop.is_over

    def test_call_without_an_id(self):
        loop = started()
        loop.begin_turn()
        with pytest.raises(BadReplyError):
            loop.add_answer("tool_use", [ContentBlock("tool_use", '{"type":"tool_use","name":"Read"}')])


class TestBounds:
    def test_last_turn_forbids_calls_and_keeps_tools(self):
        loop = started(Bounds(max_turns=2))
        assert loop.begin_turn().tool_choice == "auto"
        loop.add_answer("tool_use", [use("t1")])
        loop.add_results([ToolResult("one")])
        last = loop.begin_turn()
        assert (last.tool_choice, last.tools, loop.stopped_by) == ("none", TOOLS, "max_turns")
        assert loop.add_answer("tool_use", [use("t2")]) == []
        assert loop.is_over and loop.has_unrun_calls

    def test_unfinished_answer_of_the_last_turn_is_not_sent_back(self):
        loop = started(Bounds(max_turns=1))
        loop.begin_turn()
        loop.add_answer("pause_turn", [text()])
        assert loop.is_over

    def test_calls_beyond_the_bound_are_told_so(self):
        loop = started(Bounds(max_tool_calls=1))
        loop.begin_turn()
        assert [one.id for one in loop.add_answer("tool_use", [use("t1"), use("t2")])] == ["t1"]
        loop.add_results([ToolResult("one")])
        last = loop.begin_turn()
        assert (last.tool_choice, loop.stopped_by, loop.tool_calls) == ("none", "max_tool_calls", 1)
        first, second = blocks(last, "tool_result")
        assert "is_error" not in first and second["is_error"]
        assert second["content"] == (
            "Not run: the most tool calls that this agent may make have been made (1). Answer without tools."
        )

    def test_calls_of_all_turns_count(self):
        loop = started(Bounds(max_tool_calls=3))
        loop.begin_turn()
        loop.add_answer("tool_use", [use("t1"), use("t2")])
        assert loop.add_results([ToolResult("one"), ToolResult("two")]) == []
        assert loop.begin_turn().tool_choice == "auto"
        assert [one.id for one in loop.add_answer("tool_use", [use("t3"), use("t4")])] == ["t3"]
        ((beyond, result),) = loop.add_results([ToolResult("three")])
        assert (beyond.id, result.is_error, loop.tool_calls) == ("t4", True, 3)
        assert loop.begin_turn().tool_choice == "none"

    def test_turns_are_bounded_by_default(self):
        loop = AgentLoop(Conversation.start(TOOLS, ["task"]), Bounds())
        while loop.begin_turn().tool_choice == "auto":
            loop.add_answer("tool_use", [use("t")])
            loop.add_results([ToolResult("one")])
        assert (loop.turns, loop.stopped_by) == (Bounds().max_turns, "max_turns")

    def test_unfinished_answer_counts_its_tokens(self):
        loop = started()
        loop.begin_turn()
        loop.add_answer("pause_turn", [text()], 700)
        assert loop.begin_turn().counted == 700

    def test_no_tool_call_at_all(self):
        loop = started(Bounds(max_tool_calls=0))
        assert loop.begin_turn().tool_choice == "none"

    @pytest.mark.parametrize(("left", "choice"), [(9.9, "none"), (10.0, "auto")])
    def test_last_request_that_time_allows(self, left, choice):
        loop = started()
        assert loop.begin_turn([Allowance("deadline_seconds", left, 7.0, 3.0)]).tool_choice == choice
        assert loop.stopped_by == ("deadline_seconds" if choice == "none" else None)

    def test_bound_stays(self):
        loop = started()
        loop.begin_turn([Allowance("budget_usd", 1.0, 1.0, 1.0)])
        loop.add_answer("pause_turn", [text()])
        assert loop.begin_turn([Allowance("budget_usd", 9.0, 1.0, 1.0)]).tool_choice == "none"
        assert loop.stopped_by == "budget_usd"

    def test_wrong_number_of_results(self):
        loop = started()
        loop.begin_turn()
        loop.add_answer("tool_use", [use("t1")])
        with pytest.raises(ValueError, match="0 results of 1"):
            loop.add_results([])


class TestForecast:
    """What the turns so far tell of the next one."""

    def test_time_is_that_of_the_longest_turn_and_answer(self):
        forecast = Forecast()
        assert forecast.time(9.0) == ("deadline_seconds", 9.0, 0.0, 0.0)
        forecast.add_turn(2.0, 5.0, 0.25)
        forecast.add_turn(3.0, 4.0, 0.5)
        forecast.add_turn(1.0, 1.0, 0.125)
        assert forecast.time(9.0) == ("deadline_seconds", 9.0, 5.0, 3.0)

    def test_money_is_that_of_the_dearest_turn_and_of_a_longer_prompt(self):
        forecast = Forecast()
        assert forecast.money(9.0, 1.0) == ("budget_usd", 9.0, 0.0, 1.0)
        forecast.add_turn(0.0, 0.0, 0.5)
        forecast.add_turn(0.0, 0.0, 0.25)
        assert forecast.money(8.0, 1.5) == ("budget_usd", 8.0, 0.5, 2.0)
        assert forecast.money(7.0, 1.25) == ("budget_usd", 7.0, 0.5, 1.25)
        assert forecast.money(6.0, 2.0) == ("budget_usd", 6.0, 0.5, 2.75)

    def test_cost_is_known_after_a_turn_that_cost(self):
        forecast = Forecast()
        forecast.add_turn(1.0, 1.0, 0.0)
        assert not forecast.has_cost
        forecast.add_turn(1.0, 1.0, 0.125)
        assert forecast.has_cost


def test_results_are_added_once():
    loop = started()
    loop.begin_turn()
    with pytest.raises(ValueError, match="1 results of 0"):
        loop.add_results([ToolResult("early")])
    loop.add_answer("tool_use", [use("t1")])
    loop.add_results([ToolResult("one")])
    with pytest.raises(ValueError, match="1 results of 0"):
        loop.add_results([ToolResult("again")])


REASONS = some.sampled_from(["tool_use", "end_turn", "pause_turn", "compaction", None, *NOT_RUN])
ANSWERS = some.lists(some.tuples(REASONS, some.integers(0, 3), some.booleans()), max_size=30)
ALLOWANCES = some.builds(Allowance, some.just("budget_usd"), *[some.floats(0, 10)] * 3)


@given(
    ANSWERS,
    some.builds(Bounds, some.integers(1, 8), some.none() | some.integers(0, 6)),
    some.lists(some.lists(ALLOWANCES, max_size=1), min_size=8, max_size=8),
)
def test_any_schedule(answers, bounds, allowances):
    """Whatever the model answers: bounded, each call of a sent answer has one result, roles alternate."""
    loop, ran, answers = started(bounds), [], iter(answers)
    for number in range(20):
        sent = loop.begin_turn(allowances[min(number, 7)])
        roles = [message.role for message in sent.messages]
        assert roles[0] == "user" and all(map(content_of, sent.messages))
        uses = [one["id"] for one in blocks(sent, "tool_use")]
        results = [one["tool_use_id"] for one in blocks(sent, "tool_result")]
        assert uses == results
        for before, message in zip(sent.messages, sent.messages[1:]):
            if b'"tool_use"' in before.json:
                assert message.role == "user"
        reason, calls, has_text = next(answers, ("end_turn", 0, True))
        content = [use(f"t{number}-{one}") for one in range(calls)] + [text()] * has_text
        may_run = sent.tool_choice == "auto" and reason not in NOT_RUN
        run = loop.add_answer(reason, content)
        assert may_run or not run
        ran += run
        if loop.awaits_results:
            loop.add_results([ToolResult("x") for _ in run])
        if loop.is_over:
            break
    assert loop.is_over and loop.turns <= bounds.max_turns
    assert len(ran) == loop.tool_calls <= (99 if bounds.max_tool_calls is None else bounds.max_tool_calls)
