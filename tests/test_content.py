"""The content blocks of answers, streamed and in one piece, as they go back to the API."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.conversation import ContentBlock, tool_uses
from claude_force.errors import BadReplyError, CallError
from claude_force.transport.content import ContentEvents, with_content
from claude_force.transport.events import EventDecoder
from claude_force.transport.messages import BodyReader, StreamReader


def event(data):
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def stream(*blocks, stop_reason="tool_use"):
    """A streamed answer; each block is its start and its deltas."""
    events = [{"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7}}}]
    for index, (start, *deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    usage = {"output_tokens": 2}
    events.append({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage})
    return b"".join(map(event, [*events, {"type": "message_stop"}]))


def read(data, cuts=()):
    """The reply to a stream that arrives in pieces of these sizes."""
    reader, position = StreamReader(None, ContentEvents(EventDecoder())), 0
    for size in cuts:
        reader.feed(data[position : position + size])
        position += size
    reader.feed(data[position:])
    return with_content(reader.reply("r"), reader)


def read_body(body):
    reader = BodyReader()
    reader.feed(body)
    return with_content(reader.reply("r"), reader)


def decoded(content):
    return [json.loads(block.json) for block in content]


def text(*pieces):
    return [{"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces)]


def call(*pieces, kind="tool_use"):
    start = {"type": kind, "id": "t1", "name": "Read", "input": {}}
    return [start, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces)]


def thinking(*pieces, signature="sig/+="):
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return [start, *deltas, {"type": "signature_delta", "signature": signature}]


class TestStreamed:
    def test_thinking_keeps_its_signature(self):
        reply = read(stream(thinking("I look", " at é."), text("I read ", "it.")))
        assert decoded(reply.content) == [
            {"type": "thinking", "thinking": "I look at é.", "signature": "sig/+="},
            {"type": "text", "text": "I read it."},
        ]
        assert [block.type for block in reply.content] == ["thinking", "text"]
        assert reply.text == "I read it."

    def test_hidden_thinking_is_kept(self):
        block = {"type": "redacted_thinking", "data": "abc=="}
        assert decoded(read(stream([block], thinking(), call("{}"))).content)[:2] == [
            block,
            {"type": "thinking", "thinking": "", "signature": "sig/+="},
        ]

    def test_input_is_kept_byte_for_byte(self):
        written = '{"b":  1.50, "a": "\\u00e9é", "n": 1e5,"b2":[ ]}'
        (block,) = read(stream(call("", written[:9], written[9:]))).content
        assert block.json.endswith(f'"input":{written}}}')
        assert tool_uses([block])[0].input == json.loads(written)

    @pytest.mark.parametrize("pieces", [[], [""], ["", ""]])
    def test_no_input_is_an_empty_one(self, pieces):
        (block,) = read(stream(call(*pieces))).content
        assert (tool_uses([block])[0].input, block.wrong_input) == ({}, "")

    @pytest.mark.parametrize(
        "written",
        [
            '{"file_path": "a',
            "{'a': 1}",
            '{"a": NaN}',
            '{"a": -Infinity}',
            '{"a": 1e999}',
            "{} {}",
            "[" * 100_000,
            '{"a":' * 101 + "1" + "}" * 101,
            '{"a": "\n"}',
        ],
    )
    def test_input_that_is_not_json(self, written):
        (block,) = read(stream(call(written))).content
        assert json.loads(block.json)["input"] == {}
        use = tool_uses([block])[0]
        assert (use.input, use.wrong_input) == ({}, written)

    def test_input_may_be_nested(self):
        written = '{"a":' * 99 + json.dumps("[" * 200) + "}" * 99
        (block,) = read(stream(call(written))).content
        assert json.dumps(tool_uses([block])[0].input, separators=(",", ":")) == written

    @pytest.mark.parametrize("value", [[1], "text", 5, None, True])
    def test_input_that_is_no_object_is_not_sent_back(self, value):
        for content in (
            read(stream(call(json.dumps(value)))).content,
            read_body(
                body(f'[{{"type":"tool_use","id":"t1","name":"Read","input":{json.dumps(value)}}}]')
            ).content,
        ):
            (use,) = tool_uses(content)
            assert (use.input, use.wrong_input) == (value, "")
            assert decoded(content)[0]["input"] == {}

    def test_server_tools_are_kept(self):
        found = {
            "type": "web_search_tool_result",
            "tool_use_id": "t1",
            "content": [{"type": "web_search_result", "url": "https://x", "encrypted_content": "e=="}],
        }
        reply = read(stream(call('{"query":', ' "x"}', kind="server_tool_use"), [found], text("so")))
        assert decoded(reply.content) == [
            {"type": "server_tool_use", "id": "t1", "name": "Read", "input": {"query": "x"}},
            found,
            {"type": "text", "text": "so"},
        ]
        assert tool_uses(reply.content) == []

    def test_citations_are_collected(self):
        cited = [{"type": "page_location", "cited_text": one} for one in "ab"]
        deltas = [{"type": "citations_delta", "citation": one} for one in cited]
        start, *pieces = text("so")
        for first in (start, {**start, "citations": None}):
            (block,) = decoded(read(stream([first, deltas[0], *pieces, deltas[1]])).content)
            assert block == {"type": "text", "text": "so", "citations": cited}

    def test_unknown_blocks_and_deltas_are_kept(self):
        compaction = [
            {"type": "compaction", "content": None},
            {"type": "compaction_delta", "content": "a summary", "encrypted_content": "e"},
        ]
        strange = [{"type": "hologram", "of": {"x": [1]}}, {"type": "spin_delta", "angle": 3}]
        assert decoded(read(stream(compaction, strange)).content) == [
            {"type": "compaction", "content": "a summary", "encrypted_content": "e"},
            {"type": "hologram", "of": {"x": [1]}, "angle": 3},
        ]

    @pytest.mark.parametrize("blank", ["", " ", "\n\n"])
    def test_blank_text_is_left_out(self, blank):
        content = read(stream(text("\n", "so \n"), call("{}"), text(blank))).content
        assert [block.type for block in content] == ["text", "tool_use"]
        assert decoded(content)[0]["text"] == "\nso \n"

    def test_blocks_that_overlap_are_told_apart(self):
        starts = [{"type": "text", "text": ""}, {"type": "tool_use", "id": "t", "name": "R", "input": {}}]
        events = [{"type": "message_start", "message": {"usage": {}}}]
        events += [
            {"type": "content_block_start", "index": index, "content_block": start}
            for index, start in enumerate(starts)
        ]
        for piece, partial in (("a", "{"), ("b", "}")):
            deltas = [
                {"type": "text_delta", "text": piece},
                {"type": "input_json_delta", "partial_json": partial},
            ]
            events += [
                {"type": "content_block_delta", "index": index, "delta": delta}
                for index, delta in enumerate(deltas)
            ]
        events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}})
        text_block, use = read(b"".join(map(event, events))).content
        assert json.loads(text_block.json)["text"] == "ab"
        assert (json.loads(use.json)["input"], use.wrong_input) == ({}, "")

    def test_stream_without_indices(self):
        data = stream(text("so"), call("{", "}"))
        for index in (0, 1):
            data = data.replace(f'"index": {index}, '.encode(), b"")
        assert [block.type for block in read(data).content] == ["text", "tool_use"]

    def test_many_events_are_cheap(self):
        written = json.dumps({"file_path": "a.txt", "content": "word " * 196})
        data = stream(call(*(written[at : at + 5] for at in range(0, 1005, 5)), written[1005:]))
        assert data.count(b"\n\n") == 207
        events = [len(one) + 2 for one in data.split(b"\n\n")]
        assert tool_uses(read(data, events).content)[0].input == json.loads(written)
        # 1 ms on two busy cores; a parser that starts again with each event takes ten times that.
        assert min(timed(lambda: read(data, events)) for _ in range(20)) < 0.003


def timed(work):
    began = time.process_time()
    work()
    return time.process_time() - began


class TestSurrogates:
    """The API refuses lone surrogates."""

    @pytest.mark.parametrize(
        ("pieces", "whole"),
        [
            (["\ud83d", "\ude00"], "\U0001f600"),
            (["a\ud83d", "b"], "a\ufffdb"),
            (["\ude00"], "\ufffd"),
            (["\\ud83d"], "\\ud83d"),
        ],
    )
    def test_in_text(self, pieces, whole):
        (block,) = read(stream(text(*pieces))).content
        assert json.loads(block.json)["text"] == whole

    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ('"\\ud83d\\ude00"', "\U0001f600"),
            ('"\\uD83D x"', "\ufffd x"),
            ('"\\\\ud83d"', "\\ud83d"),
            ('"\\\\\\ud83d"', "\\\ufffd"),
            ('"\ud83d"', "\ufffd"),
        ],
    )
    def test_in_input(self, written, value):
        (block,) = read(stream(call('{"a": ', written, "}"))).content
        assert json.loads(block.json.encode())["input"] == {"a": value}


def body(content, before="", after=""):
    fields = f'"type":"message","model":"m",{before}"content" :{content},{after}"stop_reason":"tool_use"'
    return f'{{{fields},"usage":{{"input_tokens":1,"output_tokens":1}}}}'.encode()


class TestInOnePiece:
    def test_blocks_are_kept_byte_for_byte(self):
        blocks = [
            '{"type":"thinking", "thinking":"a\\u00e9", "signature":"x/+="}',
            '{ "type":"text","text":"so","citations":null }',
            '{"type":"tool_use","id":"t1","name":"Read","input":{"n": 1.50, "e":1e5}}',
        ]
        for gap in ("", " ", "\n\t"):
            joined = f"{gap},{gap}".join(blocks)
            reply = read_body(b"  \n" + body(f"[{gap}{joined}{gap}]", '"x": {"content": [1]} , ', '"y":[] ,'))
            assert [block.json for block in reply.content] == blocks
            assert [block.type for block in reply.content] == ["thinking", "text", "tool_use"]
            assert reply.text == "so"

    def test_blank_text_is_left_out(self):
        assert read_body(body('[{"type":"text","text":" "},{"type":"text"}]')).content == ()
        assert read_body(body("[]")).content == ()

    def test_lone_surrogates_are_replaced(self):
        (block,) = read_body(body('[{"type":"text","text":"a\\ud83d"}]')).content
        assert json.loads(block.json)["text"] == "a\ufffd"

    @pytest.mark.parametrize("number", ["1e999", "NaN"])
    def test_number_that_is_not_finite(self, number):
        block = f'{{"type":"tool_use","id":"t1","name":"Read","input":{{"a":{number}}}}}'
        (use,) = tool_uses(read_body(body(f"[{block}]")).content)
        assert (use.input, use.wrong_input) == ({}, '{"a": NaN}' if number == "NaN" else '{"a": Infinity}')

    @pytest.mark.parametrize("blank", ["\x0b", "\u3000", "\x1f"])
    def test_blanks_around_it(self, blank):
        block = '{"type":"text","text":"so"}'
        data = blank.encode() + body(f"[{block}]") + blank.encode()
        try:
            reply = read_body(data)
        except BadReplyError:
            return
        assert reply.content == (ContentBlock("text", block),)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
    def test_other_encodings(self, encoding):
        block = '{"type":"text","text":"é"}'
        assert read_body(body(f"[{block}]").decode().encode(encoding)).content == (
            ContentBlock("text", block),
        )


def pieces_of(text_of):
    return st.lists(text_of, max_size=4)


WORDS = st.text(max_size=8)
BLOCKS = st.one_of(
    pieces_of(WORDS).map(lambda pieces: text(*pieces)),
    pieces_of(WORDS).map(lambda pieces: thinking(*pieces)),
    pieces_of(WORDS).map(lambda pieces: call(*pieces)),
    st.dictionaries(WORDS, WORDS, min_size=1, max_size=2).map(
        lambda value: call(*(json.dumps(value)[at : at + 3] for at in range(0, 40, 3)))
    ),
)


@given(st.lists(BLOCKS, max_size=4), st.lists(st.integers(1, 60), max_size=40))
def test_splits_do_not_matter(blocks, cuts):
    data = stream(*blocks)
    whole = read(data)
    assert read(data, cuts).content == whole.content
    assert read(data, [1] * len(data)).content == whole.content
    for block in whole.content:
        block.json.encode()
        assert json.loads(block.json)["type"] == block.type


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(
                    [
                        "content_block_start",
                        "content_block_delta",
                        "content_block_stop",
                        "message_start",
                        "ping",
                    ]
                ),
                "index": st.one_of(st.integers(-1, 2), st.lists(st.none()), st.text(max_size=1)),
                "content_block": st.one_of(
                    st.none(),
                    st.dictionaries(
                        st.sampled_from(["type", "text", "input", "citations", "thinking"]),
                        st.one_of(
                            st.none(),
                            st.integers(),
                            st.sampled_from(["text", "tool_use"]),
                            st.lists(st.none()),
                        ),
                    ),
                ),
                "delta": st.one_of(
                    st.integers(),
                    st.dictionaries(
                        st.sampled_from(["type", "text", "partial_json", "citation", "thinking"]),
                        st.one_of(
                            st.none(),
                            st.lists(st.none()),
                            st.sampled_from(
                                ["text_delta", "input_json_delta", "citations_delta", "thinking_delta"]
                            ),
                        ),
                    ),
                ),
            },
        ),
        max_size=12,
    )
)
def test_any_events_are_survived(events):
    collected = ContentEvents(EventDecoder())
    data = b"".join(f"data: {json.dumps(one)}\n\n".encode() for one in events)
    assert list(collected.feed(data)) == events
    for block in collected.content():
        assert isinstance(json.loads(block.json), dict)


WHOLE = '{"type":"text","text":"a"},{"type":"tool_use","id":"t","name":"R","input":{"b":[1]}}'
PARTS = st.one_of(
    st.binary(max_size=2), st.sampled_from([b" ", b",", b'"', b"{}", b"[1]", b"\\ud800", b"NaN"])
)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), PARTS), max_size=3))
def test_any_body_is_survived(changes):
    """Whatever is read as an answer has blocks that can be sent."""
    changed = bytearray(body(f"[{WHOLE}]", '"x":{},'))
    for place, length, part in changes:
        at = int(place * len(changed))
        changed[at : at + length] = part
    try:
        content = read_body(bytes(changed)).content
    except CallError:
        return
    for block in content:
        assert isinstance(json.loads(block.json.encode()), dict)


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_deep_blocks_are_survived(depth):
    block = f'{{"type":"x","y":{"[" * depth + "]" * depth}}}'
    start = f'{{"type":"content_block_start","index":0,"content_block":{block}}}'
    end = b"event: message_delta"
    streamed = stream().replace(end, f"data: {start}\n\n".encode() + end)
    for attempt in (lambda: read_body(body(f"[{block}]")), lambda: read(streamed)):
        with suppress(BadReplyError):
            assert len(attempt().content) == 1
