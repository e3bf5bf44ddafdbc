"""The wire format: what is sent, and how answers are put together however their bytes are cut."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.errors import (
    BadReplyError,
    CallError,
    ConnectionFailedError,
    OverloadedError,
    RateLimitError,
    RequestRefusedError,
    ServerError,
)
from claude_force.transport.events import EventDecoder
from claude_force.transport.messages import BodyReader, StreamReader
from claude_force.transport.request import request_fields
from claude_force.transport.usage import read_usage
from claude_force.types import Call, Usage


def event(data, newline="\n"):
    return f"event: {data['type']}{newline}data: {json.dumps(data)}{newline}{newline}".encode()


def stream(*texts, newline="\n", usage=None):
    message = {"model": "m", "usage": {"input_tokens": 7, "cache_read_input_tokens": 3}}
    events = [{"type": "message_start", "message": message}, {"type": "ping"}]
    events.append({"type": "content_block_start", "content_block": {"type": "text", "text": ""}})
    events += [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": t}} for t in texts]
    events.append(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": usage or {"output_tokens": 2, "input_tokens": None},
        }
    )
    events.append({"type": "message_stop"})
    return b"".join(event(one, newline) for one in events)


def call(**changes):
    fields = {
        "agent_name": "a",
        "system": ("who you are", "what you owe"),
        "task": "do it",
        "model": "m",
        "max_tokens": 5,
    }
    return Call(**{**fields, **changes})


def test_task_is_user_message():
    assert request_fields(call(), True)["messages"] == [{"role": "user", "content": "do it"}]


def test_system_has_breakpoint_on_last():
    assert request_fields(call(), True)["system"] == [
        {"type": "text", "text": "who you are"},
        {"type": "text", "text": "what you owe", "cache_control": {"type": "ephemeral"}},
    ]


def test_options_do_not_replace_fields():
    assert request_fields(call(options={"model": "other"}), True)["model"] == "m"


@pytest.mark.parametrize("reader", [StreamReader, BodyReader])
def test_work_is_linear_in_bytes(reader):
    opened, began = reader(), time.process_time()
    for _ in range(4096):
        opened.feed(b"x" * 4096)
    # A copy for each piece would be 32 GB.
    assert time.process_time() - began < 1


@given(st.text(max_size=200), st.lists(st.integers(1, 40), max_size=60), st.sampled_from(["\n", "\r\n"]))
def test_splits_do_not_matter(text, cuts, newline):
    data = stream(text, newline=newline)
    reader = StreamReader()
    position = 0
    for size in cuts:
        reader.feed(data[position : position + size])
        position += size
    reader.feed(data[position:])
    assert reader.complete
    assert reader.reply("r").text == text


def test_last_usage_wins():
    reader = StreamReader()
    reader.feed(stream("a"))
    assert reader.reply(None).usage == Usage(input_tokens=7, output_tokens=2, cache_read_input_tokens=3)


def test_data_may_span_lines():
    lines = b'data: {"type":\ndata: "ping"}\n\n'
    assert list(EventDecoder().feed(lines)) == [{"type": "ping"}]


def test_early_end_is_broken_connection():
    reader = StreamReader()
    reader.feed(stream("a").partition(b"event: message_delta")[0])
    with pytest.raises(ConnectionFailedError, match="before the answer was whole"):
        reader.reply("req_1")


@pytest.mark.parametrize(
    ("sent", "kind", "words"),
    [
        (
            b'event: error\ndata: {"code":500,"message":"Out of context.","type":"server_error"}\n\n',
            ServerError,
            "Out of context.",
        ),
        (
            b'event: error\ndata: {"code":400,"message":"Too long","type":"exceed_context_size_error"}\n\n',
            RequestRefusedError,
            "exceed_context_size_error: Too long",
        ),
        (
            b'data: {"error":{"message":"Slow down","type":"None","code":"429"}}\n\ndata: [DONE]\n\n',
            RateLimitError,
            "Slow down",
        ),
    ],
    ids=["llama-server", "llama-server, refused", "LiteLLM"],
)
def test_foreign_error_in_stream(sent, kind, words):
    with pytest.raises(kind, match=words) as raised:
        StreamReader().feed(stream("Hel").partition(b"event: message_delta")[0] + sent)
    assert type(raised.value) is kind


def test_ignores_bytes_after_end():
    for cut in (b"", b"data: [DO"):
        reader = StreamReader()
        reader.feed(stream("Hello") + cut)
        reader.feed((b"data: [DONE]" if not cut else b"NE]") + b"\n\n")
        assert reader.reply(None).text == "Hello"


def test_bills_tool_input_by_its_bytes():
    delta = {"type": "input_json_delta", "partial_json": '{"path": "' + "a" * 590}
    reader = StreamReader()
    message = {"model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}
    reader.feed(event({"type": "message_start", "message": message}))
    reader.feed(event({"type": "content_block_delta", "delta": delta}))
    assert reader.billed() == Usage(7, 600)
    assert reader.billed(most=100) == Usage(7, 100)


def test_hidden_thinking_between_blocks_is_billed_at_most():
    reader = StreamReader()
    usage = {"input_tokens": 7, "output_tokens": 1}
    reader.feed(event({"type": "message_start", "message": {"model": "m", "usage": usage}}))
    assert reader.billed(5000, thinks=True) == Usage(7, 5000)
    block = {"type": "text", "text": "Hello"}
    reader.feed(event({"type": "content_block_start", "content_block": block}))
    assert reader.billed(5000, thinks=True) == Usage(7, 5)
    reader.feed(event({"type": "content_block_stop"}))
    assert reader.billed(5000, thinks=True) == Usage(7, 5000)
    assert reader.billed(5000) == Usage(7, 5)


def test_raises_error_events():
    with pytest.raises(OverloadedError):
        StreamReader().feed(event({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}))


NO_EVENTS = [b"data: {broken\n\n", b"data: [1]\n\n", b'data: {"type":"message_start"}\n\n']


@pytest.mark.parametrize("data", NO_EVENTS)
def test_unknown_events_are_bad_replies(data):
    with pytest.raises(BadReplyError):
        StreamReader().feed(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data):
    reader = StreamReader()
    try:
        reader.feed(data)
        reader.reply(None)
    except (BadReplyError, ConnectionFailedError):
        return
    raise AssertionError("random bytes are no answer")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "delta",
                    "message",
                    "content_block",
                    "content",
                    "text",
                    "usage",
                    "error",
                    "input_tokens",
                    "type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KINDS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
    "error",
    "new_event",
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.dictionaries(
                st.sampled_from(["delta", "message", "usage", "content_block", "error"]), ANYTHING
            ),
        ),
        max_size=6,
    )
)
def test_any_events_are_survived(events):
    reader = StreamReader()
    try:
        for kind, fields in events:
            reader.feed(event({**fields, "type": kind}))
        reader.reply(None)
    except CallError:
        return
    assert reader.complete


@given(ANYTHING)
def test_any_body_is_survived(body):
    reader = BodyReader()
    reader.feed(json.dumps(body).encode())
    try:
        assert isinstance(reader.reply(None).text, str)
    except CallError:
        return


def test_plain_body():
    reader = BodyReader()
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    content = [{"type": "thinking", "thinking": "hm"}, *texts]
    whole = json.dumps({"model": "m", "content": content, "stop_reason": "end_turn", "usage": {}}).encode()
    reader.feed(whole[:10])
    reader.feed(whole[10:])
    assert reader.reply(None).text == "ab"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"content": 3}', b'{"content": [3]}'])
def test_body_without_message(data):
    reader = BodyReader()
    reader.feed(data)
    with pytest.raises(BadReplyError):
        reader.reply(None)


def test_null_cache_counts_are_zero():
    counts = {"input_tokens": 3, "output_tokens": 4, "cache_creation": None, "cache_read_input_tokens": None}
    assert read_usage(counts) == Usage(3, 4)


class TestHalvesOfPairs:
    """JSON may have the two halves of a character in two strings, or one of them alone."""

    @pytest.mark.parametrize(
        ("pieces", "text"),
        [
            (["a\ud83d", "\ude00b"], "a\U0001f600b"),
            (["\ud83d", "", "\ude00"], "\U0001f600"),
            (["a\ud83d", "b"], "a\ufffdb"),
            (["a\ude00", "b"], "a\ufffdb"),
            (["a\ud83d"], "a\ufffd"),
            (["\ud83d", "\ud83d", "\ude00"], "\ufffd\U0001f600"),
            (["é\ud83dé\ude00"], "é\ufffdé\ufffd"),
        ],
    )
    def test_are_joined_or_replaced(self, pieces, text):
        reported = []
        reader = StreamReader(reported.append)
        reader.feed(stream(*pieces))
        assert reader.reply(None).text == text
        assert "".join(reported) == text
        text.encode("utf-8")

    def test_in_one_piece(self):
        reader = BodyReader()
        blocks = [{"type": "text", "text": "a\ud83d"}, {"type": "text", "text": "\ude00 \ud83d"}]
        reader.feed(json.dumps({"content": blocks, "usage": {}}).encode())
        assert reader.reply(None).text == "a\U0001f600 \ufffd"
