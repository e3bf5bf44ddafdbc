"""Results as JSON text and back, without loss."""

import contextlib
import copy
import inspect
import json
import pickle
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as some

from claude_force import errors
from claude_force.engine.result_json import as_cached, dumps, loads
from claude_force.errors import CallError, ClaudeForceError, FileAccessError, InvalidWorkflowError
from claude_force.types import AgentResult, Attempt, PatchNote, ToolCall, Turn, Usage

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, ClaudeForceError)]
TEXT = some.text(max_size=10)
USD = some.none() | some.floats(0, 1e6)
SECONDS = some.floats(0, 1e9)
COUNT = some.integers(0, 10**9)


def made(cls, message, **more):
    if issubclass(cls, InvalidWorkflowError):
        return cls(message, ["one", "two"])
    if issubclass(cls, FileAccessError):
        return cls("a.md", message, "Do this.")
    return cls(message, **more) if issubclass(cls, CallError) else cls(message)


@some.composite
def raised(draw):
    more = {
        "advice": draw(some.none() | TEXT),
        "status": draw(some.none() | some.integers(400, 599)),
        "kind": draw(some.none() | TEXT),
        "request_id": draw(some.none() | TEXT),
        "retry_after": draw(some.none() | SECONDS),
    }
    error = made(draw(some.sampled_from(CLASSES)), draw(TEXT), **more)
    if isinstance(error, CallError):
        error.attempts, error.cost, error.cost_at_most = draw(COUNT), draw(USD), draw(USD)
    return error


METADATA = some.dictionaries(TEXT, some.none() | some.booleans() | COUNT | SECONDS | TEXT, max_size=4)
USAGE = some.builds(Usage, *[COUNT] * 6, *[some.none() | TEXT] * 3, some.booleans())
ATTEMPTS = some.lists(some.builds(Attempt, SECONDS, SECONDS, COUNT, some.none() | TEXT), max_size=3)
TURNS = some.lists(some.builds(Turn, USAGE, USD, some.booleans(), some.none() | TEXT, COUNT), max_size=3)
JSON = some.none() | TEXT | COUNT | some.dictionaries(TEXT, TEXT | COUNT, max_size=2)
TOOL_CALLS = some.lists(some.builds(ToolCall, COUNT, TEXT, JSON, SECONDS, COUNT), max_size=3)
FIELDS = {
    "agent_name": TEXT,
    "success": some.booleans(),
    "output": some.text(),
    "metadata": METADATA,
    "errors": some.none() | some.lists(TEXT, max_size=2),
    "model": some.none() | TEXT,
    "usage": USAGE,
    "cost": USD,
    "saved_cost": USD,
    "cached": some.booleans(),
    "cache_age": some.none() | SECONDS,
    "shared": some.booleans(),
    "prompt_cache_saving": some.none() | some.floats(-1e6, 1e6),
    "attempts": COUNT,
    "duration": SECONDS,
    "stop_reason": some.none() | TEXT,
    "request_id": some.none() | TEXT,
    "error": some.none() | raised(),
    "index": some.none() | COUNT,
    "timeline": ATTEMPTS.map(tuple),
    "cost_at_most": USD,
    "turns": TURNS.map(tuple),
    "tool_calls": TOOL_CALLS.map(tuple),
    "stopped_by": some.none() | TEXT,
    "patch": some.none() | TEXT,
    "changed_files": some.lists(TEXT, max_size=2).map(tuple),
    "patch_note": some.none() | some.builds(PatchNote, TEXT, some.integers(0, 9), some.integers(0, 9), TEXT),
}
RESULTS = some.builds(AgentResult, **FIELDS)


def state(error):
    return None if error is None else (type(error), str(error), error.args[:1], vars(error))


def test_examples_cover_all_fields():
    assert set(FIELDS) == {one.name for one in fields(AgentResult)}
    assert len(CLASSES) > 25


@given(RESULTS)
def test_a_result_comes_back_as_it_was(result):
    back = loads(dumps(result))
    assert state(back.error) == state(result.error)
    back.error = result.error = None
    assert back == result


@given(some.text(alphabet=some.characters()) | some.just("\ud800 half"))
def test_round_trip_of_any_text(text):
    assert loads(dumps(AgentResult("a", True, text))).output == text


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
class TestErrors:
    def back(self, kind):
        error = made(kind, "It broke")
        return error, loads(dumps(AgentResult("a", False, error=error))).error

    def test_error_keeps_class_and_message(self, kind):
        error, back = self.back(kind)
        assert state(back) == state(error)
        assert repr(back) == repr(error)

    def test_loaded_error_can_be_copied(self, kind):
        error, back = self.back(kind)
        for again in (copy.copy(back), pickle.loads(pickle.dumps(back))):
            assert state(again) == state(error)
        assert state(loads(dumps(AgentResult("a", False, error=back))).error) == state(error)


@pytest.mark.parametrize("name", ["Sequence", "Any", "_restore", "NotYetError", "__name__", "ValueError", ""])
def test_unknown_error_class(name):
    kept = json.loads(dumps(AgentResult("a", False, error=ClaudeForceError("x"))))
    kept["error"]["type"] = name
    back = loads(json.dumps(kept)).error
    assert (type(back), str(back)) == (ClaudeForceError, "x")


def test_foreign_error_class():
    class OwnError(errors.ServerError):
        pass

    back = loads(dumps(AgentResult("a", False, error=OwnError("x", advice="Do y.")))).error
    assert (type(back), str(back)) == (ClaudeForceError, "x. Do y.")


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | TEXT,
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from([one.name for one in fields(AgentResult)]) | TEXT, inner, max_size=5
        )
    ),
)


@given(ANYTHING.map(json.dumps) | some.text())
def test_malformed_text_raises(text):
    with pytest.raises((ValueError, TypeError, KeyError)):
        loads(text)


@given(some.sampled_from([one.name for one in fields(AgentResult)]), ANYTHING)
def test_wrong_field_type_raises(name, value):
    kept = json.loads(dumps(AgentResult("a", True)))
    kept[name] = value
    with contextlib.suppress(ValueError, TypeError, KeyError):
        assert isinstance(loads(json.dumps(kept)), AgentResult)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_deep_nesting_is_value_error(text):
    with pytest.raises(ValueError, match="nested"):
        loads(text)


class TestGivenAgain:
    PAID = AgentResult(
        "a", True, "x", {"model": "m", "estimated_cost": 0.5}, cost=0.5, attempts=2, duration=3.0
    )

    def test_as_cached_saves_cost(self):
        again = as_cached(self.PAID, 60.0)
        assert (again.cost, again.saved_cost, again.cached, again.cache_age) == (0.0, 0.5, True, 60.0)
        assert (again.attempts, again.duration, again.timeline) == (0, 0.0, ())
        assert again.metadata["cached"] is True
        assert again.metadata["estimated_cost"] == 0.0
        assert again.metadata["model"] == "m"
        assert again.output == "x"

    def test_as_cached_leaves_original(self):
        before = copy.deepcopy(self.PAID)
        as_cached(self.PAID, 60.0)
        assert before == self.PAID

    def test_as_cached_turns_cost_nothing(self):
        turns = (Turn(Usage(1, 1), 0.25, attempts=2), Turn(Usage(2, 2), 0.0, True, saved_cost=0.5))
        again = as_cached(AgentResult("a", True, "x", cost=0.25, saved_cost=0.5, turns=turns), 60.0)
        assert (again.cost, again.saved_cost) == (0.0, 0.75)
        assert [(turn.cost, turn.cached, turn.saved_cost) for turn in again.turns] == [
            (0.0, True, 0.25),
            (0.0, True, 0.5),
        ]

    def test_as_cached_of_cached(self):
        kept = AgentResult("a", True, cost=0.0, saved_cost=0.5, cached=True)
        assert as_cached(kept, 1.0).saved_cost == 0.5
        assert as_cached(as_cached(self.PAID, 1.0), 2.0).saved_cost == 0.5

    def test_as_cached_of_unknown_price(self):
        again = as_cached(AgentResult("a", True), 1.0)
        assert (again.cost, again.saved_cost) == (0.0, None)
