"""Refused, empty and truncated answers: reported as such, paid for, and never cached."""

import contextlib
import os
from pathlib import Path

import pytest
from fleet import MODEL, write_project
from raw_server import sequence
from test_endings import raw

from claude_force import AsyncAgentOrchestrator, ResponseCache
from claude_force.errors import EmptyAnswerError, RefusedError
from claude_force.testing.replies import Message

PRICES = {MODEL: {"input": 3.0, "output": 15.0}}
USAGE = {"input_tokens": 1000, "output_tokens": 2000}
COST = (1000 * 3 + 2000 * 15) / 1e6


def answer(text, stop_reason):
    blocks = [{"type": "text", "text": text}]
    return raw(b"".join(Message("msg_1", MODEL, blocks, stop_reason, USAGE).events(1)))


WHOLE = answer("Hello", "end_turn")


@pytest.fixture
def cache(tmp_path):
    with ResponseCache(cache_dir=tmp_path / "cache") as opened:
        yield opened


async def ask(tmp_path, cache, *answers):
    """The results of the same question, once more than there are answers; the last one is kept."""
    project = write_project(tmp_path)
    async with sequence(*answers) as (url, _):
        given = {"max_retries": 3, "prices": PRICES, "response_cache": cache, "budget_usd": 1.0}
        async with AsyncAgentOrchestrator(project, api_key="test-key", base_url=url, **given) as orchestrator:
            results = [
                await orchestrator.execute_agent("python-expert", "x") for _ in range(len(answers) + 1)
            ]
            return results, orchestrator.spent_usd


@pytest.mark.parametrize(
    ("text", "stop_reason", "flag", "error"),
    [
        ("I can't help", "refusal", "refused", RefusedError),
        ("", "refusal", "refused", RefusedError),
        ("", "end_turn", "empty", EmptyAnswerError),
        ("", "max_tokens", "empty", EmptyAnswerError),
        ("", "pause_turn", "empty", EmptyAnswerError),
        ("Hel", "max_tokens", "truncated", type(None)),
    ],
)
async def test_is_told_paid_and_asked_again(tmp_path, cache, text, stop_reason, flag, error):
    results, spent = await ask(tmp_path, cache, answer(text, stop_reason), WHOLE)
    first, second, third = results
    assert (type(first.error), first.success) == (error, error is type(None))
    assert {name: getattr(first, name) for name in (flag, "cached")} == {flag: True, "cached": False}
    assert (first.attempts, first.stop_reason) == (1, stop_reason)
    assert first.cost == pytest.approx(COST)
    assert (second.success, second.output, second.cached, getattr(second, flag)) == (
        True,
        "Hello",
        False,
        False,
    )
    assert (third.cached, third.output) == (True, "Hello")
    assert spent == pytest.approx(2 * COST)
    assert cache.get_stats()["entries"] == 1


async def test_saved_cost_of_hits(tmp_path, cache):
    (first, second), _ = await ask(tmp_path, cache, WHOLE)
    assert (first.cost, second.cost) == (pytest.approx(COST), 0)
    assert second.saved_cost == pytest.approx(COST)
    assert cache.get_stats()["saved_cost"] == pytest.approx(COST)


def test_saved_cost_ignores_unknown(cache):
    cache.set("a", "known", "m", "r", estimated_cost=0.25)
    cache.set("a", "unknown", "m", "r", estimated_cost=None)
    assert cache.get_stats()["saved_cost"] == 0
    for task in ("known", "unknown", "missing", "known", "known"):
        cache.get("a", task, "m")
    assert cache.get_stats()["saved_cost"] == pytest.approx(0.75)
    assert cache.stats["saved_cost"] == pytest.approx(0.75)


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence", "tool_use"])
async def test_whole_answer_is_kept(tmp_path, cache, stop_reason):
    (first, second), _ = await ask(tmp_path, cache, answer("Hello", stop_reason))
    assert (first.cached, second.cached, second.stop_reason) == (False, True, stop_reason)


def open_stores():
    """The cache files that this process has open."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            paths.append(os.readlink(descriptor))
    return [path for path in paths if path.endswith("answers-1.db")]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there are no descriptors to look at")
async def test_close_spares_shared_cache(tmp_path, cache):
    project = write_project(tmp_path)
    for given, left in ((None, 0), (cache, 1)):
        async with sequence(WHOLE) as (url, _):
            orchestrator = AsyncAgentOrchestrator(
                project, api_key="test-key", base_url=url, response_cache=given
            )
            assert (await orchestrator.execute_agent("python-expert", "x")).success
            assert open_stores()
            await orchestrator.close()
        assert len(set(open_stores())) == left


async def test_missing_cache_is_logged_once(tmp_path, clean_environment, caplog):
    (clean_environment / ".claude").mkdir()
    (clean_environment / ".claude" / "cache").write_text("a file in its place", encoding="utf-8")
    async with sequence(WHOLE, WHOLE) as (url, _):
        async with AsyncAgentOrchestrator(
            write_project(tmp_path), api_key="test-key", base_url=url
        ) as orchestrator:
            results = [await orchestrator.execute_agent("python-expert", "x") for _ in range(2)]
    assert [(result.success, result.cached) for result in results] == [(True, False)] * 2
    reported = [record for record in caplog.records if "answers are not cached" in record.getMessage()]
    assert [(record.name, record.levelname) for record in reported] == [
        ("claude_force.engine.async_cache", "WARNING")
    ]
