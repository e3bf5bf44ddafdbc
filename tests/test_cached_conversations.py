"""Answers of agents with tools in the cache: stored with their content, and given back byte for byte."""

import json
import logging

import pytest
from fleet import FakeClock

from claude_force.cache.request_key import request_key
from claude_force.conversation import ContentBlock, Conversation, content_of, stored_content
from claude_force.engine.async_cache import AsyncResponseCache
from claude_force.response_cache import ResponseCache
from claude_force.types import Call, Reply, Usage

START = Conversation.start('[{"name": "Read"}]', ["task"])
READ = '{"type":"tool_use","id":"t1","name":"Read","input":{"n":  1.50,"path":"\\u00e9é"}}'
CONTENT = (
    ContentBlock("thinking", '{"type": "thinking", "thinking": "", "signature": "x/+="}'),
    ContentBlock("tool_use", READ),
    ContentBlock("tool_use", READ.replace("t1", "t2"), '{"file_pa'),
)
REPLY = Reply("", "m", Usage(3, 5), "tool_use", "req_1", cost=0.25, content=CONTENT)


def key_of(conversation=START):
    return request_key(Call("a", ("who",), "task", "m", 5, conversation=conversation), ())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def stored_in(folder):
    return ResponseCache(
        cache_dir=folder, cache_secret="a secret of some length", allowed_dirs=[folder.parent]
    )


@pytest.fixture
async def cache(folder):
    opened = AsyncResponseCache(lambda: stored_in(folder), FakeClock())
    yield opened
    await opened.close()


async def test_content_is_given_back(cache):
    await cache.put(key_of(), REPLY)
    assert (await cache.get(key_of())).content == CONTENT
    assert cache.get_in_memory(key_of()).content == CONTENT
    assert await cache.get(key_of(START.without_calls())) is None
    assert await cache.get(key_of(START.with_answer(CONTENT))) is None


async def test_next_process_finds_it(cache, folder):
    await cache.put(key_of(), REPLY)
    await cache.close()
    again = AsyncResponseCache(lambda: stored_in(folder), FakeClock())
    with again.lease(key_of()) as lease:
        reply, is_acquired = await lease.get_or_acquire()
    await again.close()
    assert (reply.content, reply.stop_reason, reply.cost, is_acquired) == (CONTENT, "tool_use", 0.0, False)


ODD = [
    None,
    "text",
    [],
    5,
    [5],
    [["text"]],
    [["text", "{}", ""]],
    [["text", "[]", ""]],
    [["text", "{", ""]],
    [["text", "[" * 100_000, ""]],
    [["text", '{"type": "thinking"}', ""]],
    [["text", '{"type": "text"}', None]],
    [["tool_use", '{"type": "tool_use", "id": "t1"}', ""]],
    {"0": "text"},
]


@pytest.mark.parametrize("content", ODD)
async def test_odd_content_is_a_miss(cache, folder, content):
    with stored_in(folder) as store:
        store.set(*key_of()[:3], "", fingerprint=key_of().fingerprint, extra={"content": content})
    with cache.lease(key_of()) as lease:
        assert await lease.get_or_acquire() == (None, True)
    assert await cache.get(key_of()) is None
    assert cache.get_in_memory(key_of()) is None
    await cache.put(key_of(), REPLY)
    assert (await cache.get(key_of())).content == CONTENT


async def test_answer_without_content_is_a_miss(cache, folder, caplog):
    with stored_in(folder) as store:
        store.set(*key_of()[:3], "text", fingerprint=key_of().fingerprint)
    assert await cache.get(key_of()) is None
    said = "a cache entry without the content of its answer was not used"
    assert caplog.record_tuples == [("claude_force.cache.request_key", logging.WARNING, said)]


async def test_answer_with_content_needs_no_warning(cache, caplog):
    await cache.put(key_of(), REPLY)
    assert (await cache.get(key_of())).content == CONTENT
    assert caplog.record_tuples == []


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({}, True),
        ({"stop_reason": "max_tokens"}, False),
        ({"stop_reason": "refusal"}, False),
        ({"content": CONTENT[:1]}, False),
        ({"content": CONTENT[:1], "text": "so"}, True),
    ],
)
async def test_only_whole_answers_are_stored(cache, changes, stored):
    reply = Reply(**{**REPLY.__dict__, **changes})
    await cache.put(key_of(), reply)
    assert (await cache.get(key_of()) is not None) == stored


async def test_plain_calls_store_no_content(cache):
    key = request_key(Call("a", ("who",), "task", "m", 5), ())
    await cache.put(key, Reply("so", "m", Usage(3, 5), "end_turn"))
    hit = await cache.run(lambda opened: opened.get(*key), None)
    assert "content" not in hit
    assert (await cache.get(key)).content == ()


def test_stored_form_is_plain_json():
    assert content_of(json.loads(json.dumps(stored_content(CONTENT)))) == CONTENT
