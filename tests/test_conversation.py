"""The messages between an agent with tools and its model."""

import base64
import json
import struct

import pytest

from claude_force.conversation import (
    ContentBlock,
    Conversation,
    ToolResult,
    ToolUse,
    content_of,
    input_of,
    tool_uses,
    without_lone_surrogates,
)
from claude_force.errors import BadReplyError

CONTROL = '{"type":"ephemeral"}'
TOOLS = '[{"name":"Read"}]'
CALL = ContentBlock("tool_use", '{"type":"tool_use","id":"t1","name":"Read","input":{"file_path":"a"}}')
USE = ToolUse("t1", "Read", {"file_path": "a"})


def turns(count):
    """A conversation of a task and `count` answers with their results."""
    conversation = Conversation.start(TOOLS, ["task"])
    for number in range(count):
        conversation = conversation.with_answer([CALL])
        conversation = conversation.with_results([(USE, ToolResult(f"text {number}"))])
    return conversation


def text_of(conversation):
    return b"".join(conversation.messages_json(CONTROL)).decode()


def sent(conversation):
    return json.loads(text_of(conversation))


def plain(message):
    """A message without its breakpoint."""
    blocks = [{k: v for k, v in block.items() if k != "cache_control"} for block in message["content"]]
    return {**message, "content": blocks}


def breakpoints(messages):
    return [
        place for place, one in enumerate(messages) for block in one["content"] if "cache_control" in block
    ]


def test_blocks_go_back_unchanged():
    odd = ContentBlock("thinking", '{"thinking": "a\\u00e9",  "signature":"x/+=", "type":"thinking"}')
    conversation = Conversation.start(TOOLS, ["task"]).with_answer([odd, CALL])
    assert f'"content":[{odd.json},{CALL.json}]' in text_of(conversation)


def test_results_are_one_message():
    uses = [replace_id("t1"), replace_id("t2")]
    results = [(uses[0], ToolResult("one")), (uses[1], ToolResult("no such file", is_error=True))]
    conversation = Conversation.start(TOOLS, ["task"]).with_answer([CALL]).with_results(results, ["a note"])
    last = plain(sent(conversation)[-1])
    assert last["role"] == "user"
    assert last["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "t2", "content": "no such file", "is_error": True},
        {"type": "text", "text": "a note"},
    ]


def replace_id(identity):
    return USE._replace(id=identity)


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_breakpoints_end_this_request_and_the_last(count):
    messages = sent(turns(count))
    assert breakpoints(messages) == [2 * count - 2, 2 * count][not count :]


@pytest.mark.parametrize("count", [1, 2, 10])
def test_prefix_is_stable(count):
    before, after = sent(turns(count)), sent(turns(count + 1))
    assert [plain(one) for one in after][: len(before)] == [plain(one) for one in before]


def test_earlier_conversation_is_unchanged():
    first = turns(1)
    text, digest = text_of(first), first.digest
    first.with_answer([CALL]).without_calls()
    assert (text_of(first), first.digest, first.tool_choice) == (text, digest, "auto")


def test_digest_tells_conversations_apart():
    different = [
        turns(0),
        turns(1),
        Conversation.start("[]", ["task"]),
        Conversation.start(TOOLS, ["another"]),
        Conversation.start(TOOLS, ["ta", "sk"]),
    ]
    assert len({one.digest for one in different}) == len(different)
    assert turns(3).digest == turns(3).digest


def test_size_is_that_of_the_messages():
    messages = turns(5)
    assert messages.size == (len(TOOLS) + sum(len(message.json) for message in messages.messages), 0, 0)


def test_added_is_what_the_last_request_did_not_have():
    assert turns(0).added == turns(0).size
    after = turns(3)
    assert after.sent == turns(2).size
    assert after.added.text == sum(len(message.json) for message in after.messages[-2:])


def test_count_of_the_api_holds_for_one_request():
    answered = turns(1).with_answer([CALL], 700)
    assert (turns(1).counted, answered.counted) == (0, 700)
    assert answered.with_results([(USE, ToolResult("text"))]).counted == 700
    assert answered.with_answer([CALL]).counted == 0


class TestMedia:
    """Images and PDFs count by their pixels and pages, not by the bytes of their base64."""

    @staticmethod
    def sizes(*blocks):
        before = Conversation.start(TOOLS, ["task"]).with_answer([CALL])
        after = before.with_results([(USE, ToolResult(tuple(blocks)))])
        return after.size.minus(before.size)

    @staticmethod
    def block(data, kind="image", media_type="image/png"):
        text = base64.b64encode(data).decode()
        return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": text}}

    @pytest.mark.parametrize(
        ("wide", "high", "expected", "most"),
        [
            (28, 28, 1, 1),
            (1000, 1000, 1296, 1296),
            (1, 1, 1, 1),
            (2000, 1500, 1600, 3888),
            (8000, 8000, 1600, 4784),
        ],
    )
    def test_image(self, wide, high, expected, most):
        png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", wide, high) + b"x" * 100_000
        text, *tokens = self.sizes(self.block(png))
        assert tokens == [expected, most]
        assert text < 300

    def test_strange_image_counts_the_most(self):
        assert self.sizes(self.block(b"GIF87a", media_type="image/gif"))[1:] == (1600, 4784)
        assert self.sizes(self.block(b"x", media_type="image/x"))[1:] == (1600, 4784)
        broken = {"type": "image", "source": {"type": "base64", "data": "A"}}
        assert self.sizes(broken, broken)[1:] == (3200, 9568)

    def test_pdf(self):
        pages = self.sizes(self.block(b"/Type /Page /Type/Page /Type /Pages", "document"))
        assert pages[1:] == (6000, 2 * 8784)
        hidden = self.sizes(self.block(b"x" * 120_000, "document"))
        assert hidden[1:] == (9000, 100 * 8784)

    def test_other_blocks_are_text(self):
        url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
        text = {"type": "text", "text": "é" * 1000}
        assert self.sizes(text, url)[1:] == (0, 0)
        assert self.sizes(text)[0] > 2000

    def test_blank_texts_are_left_out(self):
        texts = [{"type": "text", "text": text} for text in ("", " \n", "so")]
        before = Conversation.start(TOOLS, ["task"]).with_answer([CALL])
        after = before.with_results([(USE, ToolResult(tuple(texts)))])
        assert plain(sent(after)[-1])["content"][0]["content"] == texts[2:]

    def test_plain_values_keep_it(self):
        conversation = Conversation.start(TOOLS, ["task"]).with_answer([CALL], 9)
        conversation = conversation.with_results([(USE, ToolResult((self.block(b"x"),)))])
        again = Conversation.from_fields(json.loads(json.dumps(conversation.to_fields())))
        assert vars(again) == vars(conversation)


def test_odd_text_is_encoded():
    odd = 'quote " and \\ud800 and é and \U0001f600'
    conversation = Conversation.start(TOOLS, [odd])
    assert plain(sent(conversation)[0])["content"][0]["text"] == odd


def test_lone_surrogates_are_replaced():
    conversation = Conversation.start(TOOLS, ["task"]).with_answer([CALL])
    conversation = conversation.with_results([(USE, ToolResult("a\ud800b"))], ["\udc00"])
    result, text = plain(sent(conversation)[-1])["content"]
    assert (result["content"], text["text"]) == ("a\ufffdb", "\ufffd")


def test_tool_uses_are_in_order():
    text = ContentBlock("text", '{"type":"text","text":"I read."}')
    second = ContentBlock("tool_use", CALL.json.replace("t1", "t2"), '{"file_pa')
    assert [use.id for use in tool_uses([text, CALL, second])] == ["t1", "t2"]
    assert tool_uses([CALL]) == [USE]
    assert tool_uses([second])[0].wrong_input == '{"file_pa'


@pytest.mark.parametrize("missing", ["id", "name"])
def test_call_without_its_fields_is_refused(missing):
    fields = {"type": "tool_use", "id": "t1", "name": "Read", "input": {}}
    del fields[missing]
    with pytest.raises(BadReplyError):
        tool_uses([ContentBlock("tool_use", json.dumps(fields))])


@pytest.mark.parametrize("written", ["[1]", '"text"', "5", "null"])
def test_input_of_another_kind_is_decoded(written):
    block = ContentBlock("tool_use", '{"type":"tool_use","id":"t1","name":"Read","input":{}}', written)
    (use,) = tool_uses([block])
    assert (use.input, use.wrong_input) == (json.loads(written), "")


@pytest.mark.parametrize("written", ["NaN", "-Infinity", "[1e999]", "{", "[" * 101 + "]" * 101, "[" * 10**5])
def test_input_that_is_no_json_is_given_as_text(written):
    block = ContentBlock("tool_use", '{"type":"tool_use","id":"t1","name":"Read","input":{}}', written)
    assert tool_uses([block]) == [ToolUse("t1", "Read", {}, written)]


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_input_may_be_nested_a_hundred_deep(opened):
    closed = "]" if opened == "[" else "}"
    text = opened * 98 + f"[{'[],' * 50}1.5]" + closed * 98
    assert json.dumps(input_of(text), separators=(",", ":")) == text
    with pytest.raises(ValueError, match="^The input is nested too deep.$"):
        input_of(opened * 100 + "[]" + closed * 100)


def test_input_with_a_number_that_is_not_finite_says_so():
    with pytest.raises(ValueError, match="^1e999 is not a finite number.$"):
        input_of("[1e999]")


def test_call_without_an_id_says_so():
    with pytest.raises(BadReplyError, match="^The answer has a tool call without a name or an id"):
        tool_uses([ContentBlock("tool_use", '{"type":"tool_use","name":"Read"}')])


def test_stored_content_is_that_of_an_answer_or_none():
    call = ["tool_use", CALL.json, ""]
    assert content_of([call, ["odd", "{}", ""]]) is None
    assert content_of([["", "{}", ""]]) == (ContentBlock("", "{}"),)
    assert content_of([call]) == (CALL,)
    assert content_of([["tool_use", '{"type":"tool_use","id":"t1"}', ""]]) is None


def test_halves_of_a_pair_are_joined_and_others_replaced():
    for odd, whole in (
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        (r"\ud83d\ude00 \ud83d", r"\ud83d\ude00 \ufffd"),
        (r"\\ud83d \n \uDC00", r"\\ud83d \n \ufffd"),
    ):
        assert without_lone_surrogates(odd) == whole


def test_plain_values_make_the_same_one():
    conversation = turns(3).without_calls()
    again = Conversation.from_fields(json.loads(json.dumps(conversation.to_fields())))
    assert vars(again) == vars(conversation)
