"""The messages between an agent with tools and its model. Pure.

A block of an answer goes back to the API byte for byte: signatures of thinking cover its text, and the API's
prompt cache reads a prefix only if it has not changed. So blocks are JSON text here. Only tool calls are
decoded, once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Iterable, List, Mapping, NamedTuple, Sequence, Tuple, Union

from .errors import BadReplyError

USER, ASSISTANT = "user", "assistant"
TOOL_USE = "tool_use"
# The prompt cache is written at the end of the user's newest messages: where this request ends, and where the
# one before it ended. One more breakpoint is on the last block of `system`, which covers the tools. The API
# allows four.
_BREAKPOINTS = 2


class ContentBlock(NamedTuple):
    """One block of an answer, as the server sent it.

    Attributes:
        type: "text", "thinking", "tool_use" and others of the Messages API.
        json: the block as JSON text.
        wrong_input: of a tool call whose input was not JSON, that input; its `json` has an empty one.
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
    """

    content: Union[str, Tuple[Mapping[str, Any], ...]]
    is_error: bool = False


class Message(NamedTuple):
    """One message: "user" or "assistant", and its blocks as JSON text."""

    role: str
    blocks: Tuple[str, ...]

    def to_json(self, last_block: str = "") -> str:
        """The message as JSON text, with `last_block` in place of its last one where it is given."""
        blocks = (*self.blocks[:-1], last_block or self.blocks[-1])
        return f'{{"role":"{self.role}","content":[{",".join(blocks)}]}}'


@dataclass(frozen=True, eq=False)
class Conversation:
    """The messages of one agent's loop, and the tools that it is offered. Immutable.

    Adding one costs the same however long the conversation is.

        conversation = Conversation.start('[{"name": "Read", ...}]', ["Read a.txt"])
        conversation = conversation.with_answer(reply.content)
        conversation = conversation.with_results([(use, ToolResult("1\\tone"))])

    Attributes:
        tools: the definitions of the tools as JSON text of a list, the same in all requests of the loop.
        tool_choice: "auto", or "none" where the model has to answer without another call.
        digest: SHA-256 over tools and messages, for the request's key.
        size: bytes of tools and messages, for estimates.
    """

    tools: str
    messages: Tuple[Message, ...]
    digest: bytes
    size: int
    tool_choice: str = "auto"

    @classmethod
    def start(cls, tools: str, texts: Sequence[str]) -> Conversation:
        """The first request: one message of the user with a block for each text."""
        encoded = tools.encode("utf-8", "surrogatepass")
        empty = cls(tools, (), hashlib.sha256(encoded).digest(), len(encoded))
        return empty._with(Message(USER, tuple(_text_block(text) for text in texts)))

    def with_answer(self, content: Iterable[ContentBlock]) -> Conversation:
        """Adds the model's answer."""
        return self._with(Message(ASSISTANT, tuple(block.json for block in content)))

    def with_results(
        self, results: Iterable[Tuple[ToolUse, ToolResult]], texts: Sequence[str] = ()
    ) -> Conversation:
        """Adds the results of all calls of the last answer, then `texts`, as one message of the user."""
        blocks = [_result_block(use, result) for use, result in results]
        return self._with(Message(USER, (*blocks, *map(_text_block, texts))))

    def without_calls(self) -> Conversation:
        """The same conversation for the last request that is allowed: the model may not call a tool.

        The tools stay in the request, because another list would be another prefix for the prompt cache.
        """
        return replace(self, tool_choice="none")

    def messages_json(self, cache_control: str) -> str:
        """The `messages` of the request as JSON text, with the breakpoints of the prompt cache.

        `cache_control`: the JSON text of that field.
        """
        texts: List[str] = []
        left = _BREAKPOINTS
        for message in reversed(self.messages):
            last_block = ""
            if left and message.role == USER:
                left -= 1
                last_block = f'{message.blocks[-1][:-1]},"cache_control":{cache_control}}}'
            texts.append(message.to_json(last_block))
        return f"[{','.join(reversed(texts))}]"

    def _with(self, message: Message) -> Conversation:
        text = message.to_json().encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(self.digest + text).digest()
        return replace(self, messages=(*self.messages, message), digest=digest, size=self.size + len(text))


def tool_uses(content: Iterable[ContentBlock]) -> List[ToolUse]:
    """The tool calls of an answer, in its order. Raises BadReplyError for one without a name or an id."""
    return [_tool_use(block) for block in content if block.type == TOOL_USE]


def _tool_use(block: ContentBlock) -> ToolUse:
    fields = json.loads(block.json)
    identity, name = fields.get("id"), fields.get("name")
    if not isinstance(identity, str) or not isinstance(name, str):
        raise BadReplyError("The answer has a tool call without a name or an id")
    return ToolUse(identity, name, fields.get("input"), block.wrong_input)


def _text_block(text: str) -> str:
    return json.dumps({"type": "text", "text": text})


def _result_block(use: ToolUse, result: ToolResult) -> str:
    content = result.content if isinstance(result.content, str) else list(result.content)
    fields = {"type": "tool_result", "tool_use_id": use.id, "content": content}
    return json.dumps({**fields, "is_error": True} if result.is_error else fields)
