"""The messages between an agent with tools and its model. Pure.

A block of an answer goes back to the API byte for byte: signatures of thinking cover its text, and the API's
prompt cache reads a prefix only if it has not changed. So blocks are JSON text here. Only tool calls are
decoded, once.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Dict, Iterable, List, Mapping, Match, NamedTuple, Optional, Sequence, Tuple, Union

from .errors import BadReplyError
from .media_tokens import media_tokens

USER, ASSISTANT = "user", "assistant"
TOOL_USE = "tool_use"
# The prompt cache is written at the end of the user's newest messages: where this request ends, and where the
# one before it ended. One more breakpoint is on the last block of `system`, which covers the tools. The API
# allows four.
_BREAKPOINTS = 2
# An escape in JSON: a pair of surrogates, a lone one, or any other.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(u[dD][89a-fA-F][\da-fA-F]{2})|.)"
)
# How deep the input of a call may be nested: those who read it go as deep.
_DEEPEST = 100
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class ContentBlock(NamedTuple):
    """One block of an answer, as the server sent it.

    Attributes:
        type: "text", "thinking", "tool_use" and others of the Messages API.
        json: the block as JSON text.
        wrong_input: of a tool call whose input was not an object in JSON, that input; its `json` has an empty
            one, because the API takes no other.
    """

    type: str
    json: str
    wrong_input: str = ""


class ToolUse(NamedTuple):
    """One tool call of an answer.

    Attributes:
        id: the API's, to which the result refers.
        input: the arguments; not always an object, because the model writes them.
        wrong_input: the text of an input that was not JSON; `input` is then empty.
    """

    id: str
    name: str
    input: Any
    wrong_input: str = ""


class ToolResult(NamedTuple):
    """What a tool call returns to the model.

    Attributes:
        content: text, or blocks of the Messages API (text, image, document).
        is_error: whether the call failed, was denied or could not be understood.
        is_denied: whether it was not run, or not carried out, because it is not permitted.
    """

    content: Union[str, Tuple[Mapping[str, Any], ...]]
    is_error: bool = False
    is_denied: bool = False


class Message(NamedTuple):
    """One message: "user" or "assistant", and its JSON text with the blocks as they came, in UTF-8."""

    role: str
    json: bytes

    def with_breakpoint(self, cache_control: bytes) -> bytes:
        """The JSON text with a breakpoint of the prompt cache at the end of its last block."""
        return b'%b,"cache_control":%b}]}' % (self.json[: -len(b"}]}")], cache_control)


class PromptSize(NamedTuple):
    """What a prompt has: bytes of text in UTF-8, JSON around it included, and tokens of images and PDFs."""

    text: int = 0
    media: int = 0
    media_at_most: int = 0

    def plus(self, other: PromptSize) -> PromptSize:
        return PromptSize(*(one + more for one, more in zip(self, other)))

    def minus(self, other: PromptSize) -> PromptSize:
        return PromptSize(*(one - less for one, less in zip(self, other)))


_NOTHING = PromptSize()


@dataclass(frozen=True, eq=False)
class Conversation:
    """The messages of one agent's loop, and the tools that it is offered. Immutable.

    Adding one costs the same however long the conversation is.

        conversation = Conversation.start('[{"name": "Read", ...}]', ["Read a.txt"])
        conversation = conversation.with_answer(reply.content, reply.usage.total_tokens)
        conversation = conversation.with_results([(use, ToolResult("1\\tone"))])

    Attributes:
        tools: the definitions of the tools as JSON text of a list, the same in all requests of the loop.
        tool_choice: "auto", or "none" where the model has to answer without another call.
        digest: SHA-256 over tools and messages, for the request's key.
        size: of tools and messages.
        sent: the size of the request before this one, whose beginning the prompt cache has.
        counted: tokens of that request and its answer by the API's count; 0 where it is not known.
    """

    tools: str
    messages: Tuple[Message, ...]
    digest: bytes
    size: PromptSize
    tool_choice: str = "auto"
    sent: PromptSize = _NOTHING
    counted: int = 0

    @property
    def added(self) -> PromptSize:
        """The size of what is new in this request: the last answer, and what the user has added to it."""
        return self.size.minus(self.sent)

    @classmethod
    def start(cls, tools: str, texts: Sequence[str]) -> Conversation:
        """The first request: one message of the user with a block for each text."""
        return cls._empty(tools)._with(USER, map(_text_block, texts))

    @classmethod
    def _empty(cls, tools: str) -> Conversation:
        encoded = tools.encode("utf-8", "surrogatepass")
        return cls(tools, (), hashlib.sha256(encoded).digest(), PromptSize(len(encoded)))

    def with_answer(self, content: Iterable[ContentBlock], tokens: int = 0) -> Conversation:
        """Adds the model's answer; `tokens` are those of its request and of itself, where they are known."""
        answered = replace(self, sent=self.size, counted=tokens)
        return answered._with(ASSISTANT, (block.json for block in content))

    def with_results(
        self, results: Iterable[Tuple[ToolUse, ToolResult]], texts: Sequence[str] = ()
    ) -> Conversation:
        """Adds the results of all calls of the last answer, then `texts`, as one message of the user."""
        media, blocks = _NOTHING, []
        for use, result in results:
            blocks.append(_result_block(use, result))
            media = media.plus(_media_size(result))
        return self._with(USER, (*blocks, *map(_text_block, texts)), media)

    def without_calls(self) -> Conversation:
        """The same conversation for the last request that is allowed: the model may not call a tool.

        The tools stay in the request, because another list would be another prefix for the prompt cache.
        """
        return replace(self, tool_choice="none")

    def messages_json(self, cache_control: str) -> List[bytes]:
        """The `messages` of the request as pieces of JSON text, with the breakpoints of the prompt cache.

        `cache_control`: the JSON text of that field.
        """
        pieces, left = [b"]"], _BREAKPOINTS
        for message in reversed(self.messages):
            text = message.json
            if left and message.role == USER:
                left -= 1
                text = message.with_breakpoint(cache_control.encode())
            pieces += (text, b",")
        pieces[-1] = b"["
        return pieces[::-1]

    def to_fields(self) -> Dict[str, Any]:
        """The conversation as plain values for JSON."""
        messages = [[one.role, one.json.decode("utf-8", "surrogatepass")] for one in self.messages]
        fields = {**vars(self), "messages": messages}
        del fields["digest"]
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Conversation:
        """The conversation that `to_fields` described."""
        conversation = cls._empty(fields["tools"])
        for role, text in fields["messages"]:
            conversation = conversation._with_message(role, text.encode("utf-8", "surrogatepass"))
        return replace(
            conversation,
            size=PromptSize(*fields["size"]),
            sent=PromptSize(*fields["sent"]),
            counted=fields["counted"],
            tool_choice=fields["tool_choice"],
        )

    def _with(self, role: str, blocks: Iterable[str], media: PromptSize = _NOTHING) -> Conversation:
        text = f'{{"role":"{role}","content":[{",".join(blocks)}]}}'.encode("utf-8", "surrogatepass")
        return self._with_message(role, text, media)

    def _with_message(self, role: str, text: bytes, media: PromptSize = _NOTHING) -> Conversation:
        return replace(
            self,
            messages=(*self.messages, Message(role, text)),
            digest=hashlib.sha256(self.digest + text).digest(),
            size=self.size.plus(media).plus(PromptSize(len(text))),
        )


def tool_uses(content: Iterable[ContentBlock]) -> List[ToolUse]:
    """The tool calls of an answer, in its order. Raises BadReplyError for one without a name or an id."""
    return [_tool_use(block) for block in content if block.type == TOOL_USE]


def _tool_use(block: ContentBlock) -> ToolUse:
    fields = json.loads(block.json)
    identity, name = fields.get("id"), fields.get("name")
    if not isinstance(identity, str) or not isinstance(name, str):
        raise BadReplyError("The answer has a tool call without a name or an id")
    if not block.wrong_input:
        return ToolUse(identity, name, fields.get("input"))
    try:
        # Something else than an object.
        return ToolUse(identity, name, input_of(block.wrong_input))
    except ValueError:
        return ToolUse(identity, name, {}, block.wrong_input)


def stored_content(content: Iterable[ContentBlock]) -> List[List[str]]:
    """The content of an answer as plain values for JSON."""
    return [list(block) for block in content]


def content_of(stored: Any) -> Optional[Tuple[ContentBlock, ...]]:
    """The content that `stored_content` described; None for anything else."""
    if not isinstance(stored, list) or not all(map(_is_block, stored)):
        return None
    content = tuple(ContentBlock(*one) for one in stored)
    try:
        tool_uses(content)
    except (BadReplyError, RecursionError):
        return None
    return content


def _is_block(stored: Any) -> bool:
    if not isinstance(stored, list) or [type(one) for one in stored] != [str, str, str]:
        return False
    try:
        fields = json.loads(stored[1])
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("type", "") == stored[0]


def input_of(text: str) -> Any:
    """Decodes the input of a tool call.

    Raises ValueError for text that is not JSON, is nested too deep, or has a number that is no finite one.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("The input is nested too deep.") from None
    if text.count("{") + text.count("[") > _DEEPEST and _depth(value) > _DEEPEST:
        raise ValueError("The input is nested too deep.")
    return value


def _finite(number: str) -> float:
    # Python takes NaN, Infinity and 1e999, and would write what is no JSON.
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is not a finite number.")
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inner(outer)]
    return depth


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def without_lone_surrogates(text: str) -> str:
    """Replaces lone surrogates in JSON text, which the API refuses, by U+FFFD; escapes of them too."""
    if not text.isascii():
        # Joins two that are a pair.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _ESCAPE.sub(_whole, text) if _SURROGATE.search(text) else text


def _whole(escape: Match[str]) -> str:
    return "\\ufffd" if escape[1] else escape[0]


def _text_block(text: str) -> str:
    return _to_json({"type": "text", "text": text})


def _result_block(use: ToolUse, result: ToolResult) -> str:
    content = (
        result.content if isinstance(result.content, str) else list(filter(_is_sendable, result.content))
    )
    fields = {"type": "tool_result", "tool_use_id": use.id, "content": content}
    return _to_json({**fields, "is_error": True} if result.is_error else fields)


def _is_sendable(block: Mapping[str, Any]) -> bool:
    """Whether the API takes the block: it refuses blank texts."""
    return block.get("type") != "text" or bool(str(block.get("text", "")).strip())


def _media_size(result: ToolResult) -> PromptSize:
    """Tokens of images and PDFs, and the bytes of their data, which are not text."""
    total = _NOTHING
    if not isinstance(result.content, str):
        for block in result.content:
            tokens = media_tokens(block)
            if tokens is not None:
                total = total.plus(PromptSize(-len(block["source"]["data"]), *tokens))
    return total


def _to_json(block: Mapping[str, Any]) -> str:
    return without_lone_surrogates(_encode(block))


_encode = json.JSONEncoder(ensure_ascii=False).encode
