"""Answers of an agent that calls tools, turn by turn. Pure.

Source of their form: the Messages API reference, chapters "Create a Message" and "Tool use".
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .replies import Refused, cut, stretch
from .tokens import CHARACTERS_PER_TOKEN, estimate, texts

# The fields of a block that the model writes.
_WRITTEN = ("text", "thinking", "input")
_NO_CALLS = "No tool may be called any more."


@dataclass(frozen=True)
class Content:
    """An answer of content blocks, each as the API spells it.

        Content([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}])

    Attributes:
        blocks: the server gives a `tool_use` its `id` and a `thinking` its `signature`. An `input` may be
            text: it is then streamed as it is, JSON or not.
        stop_reason: such as "end_turn", "tool_use", "pause_turn" or "refusal".
    """

    blocks: Sequence[Mapping[str, Any]]
    stop_reason: str = "end_turn"


def tool_calls(
    *calls: Tuple[str, Union[Mapping[str, Any], str]],
    text: str = "",
    thinking: str = "",
    stop_reason: str = "tool_use",
) -> Content:
    """An answer that calls tools, each a name and its input; `thinking` and `text` come before them.

    tool_calls(("Read", {"file_path": "a.txt"}), ("Grep", {"pattern": "TODO"}), text="I look.")
    """
    blocks: List[Mapping[str, Any]] = []
    if thinking:
        blocks.append({"type": "thinking", "thinking": thinking})
    if text:
        blocks.append({"type": "text", "text": text})
    blocks += ({"type": "tool_use", "name": name, "input": given} for name, given in calls)
    return Content(blocks, stop_reason)


Answer = Union[str, Content]
# Makes an answer from the body of a request.
Answering = Callable[[Dict[str, Any]], Answer]


class Script:
    """Answers each conversation from its beginning: the first request with the first answer, and so on.

    A request that is sent again gets the same answer, and any number of agents may play one script at once.
    Where a request forbids calls (`tool_choice` "none"), an answer that calls tools becomes one of text.

        script = Script([tool_calls(("Read", {"file_path": "a.txt"})), "It has two lines."])
        with MessagesServer(answer=script) as server:
            ...

    Args:
        answers: texts, what `tool_calls` returns, or functions from a request's body to one of these. A
            request after the last of them is refused with 400.
    """

    def __init__(self, answers: Sequence[Union[Answer, Answering]]) -> None:
        self._answers = tuple(answers)

    def __call__(self, body: Dict[str, Any]) -> Answer:
        turn = _turn(body)
        if turn >= len(self._answers):
            raise Refused(400, f"The script has {len(self._answers)} answers, and this is request {turn + 1}")
        answer = self._answers[turn]
        made = answer if isinstance(answer, (str, Content)) else answer(body)
        forbidden = (body.get("tool_choice") or {}).get("type") == "none"
        return _without_calls(made) if forbidden and isinstance(made, Content) else made


def by_text(answers: Mapping[str, Answering]) -> Answering:
    """Chooses the script of a request: the first whose key is part of its system prompt or its first message.

    by_text({"# Reviewer": Script([...]), "Count the lines": Script([...])})

    A request without one is refused with 400.
    """

    def answer(body: Dict[str, Any]) -> Answer:
        text = "\n".join([*texts(body.get("system")), *texts(body["messages"][0].get("content"))])
        chosen: Optional[Answering] = next((one for key, one in answers.items() if key in text), None)
        if chosen is None:
            raise Refused(400, f"No script is for this request: {text[:200]!r}")
        return chosen(body)

    return answer


def signature_of(thinking: str) -> str:
    """The signature of thinking: the server knows it again, so a changed text is refused."""
    return base64.b64encode(hashlib.sha256(thinking.encode("utf-8", "surrogatepass")).digest()).decode()


@dataclass(frozen=True)
class Written:
    """An answer as it is sent: blocks, stop reason and tokens."""

    blocks: Sequence[Dict[str, Any]]
    stop_reason: str
    tokens: int


def write(answer: Answer, body: Mapping[str, Any], output_tokens: Optional[int]) -> Written:
    """Finishes an answer: ids and signatures, the wanted length of a text, cut at `max_tokens`."""
    if isinstance(answer, str):
        whole = answer if output_tokens is None else stretch(answer, output_tokens)
        text = cut(whole, body["max_tokens"])
        reason = "end_turn" if len(text) == len(whole) else "max_tokens"
        return Written([{"type": "text", "text": text}], reason, estimate(len(text)))
    turn = _turn(body)
    blocks = [_finished(block, turn, number) for number, block in enumerate(answer.blocks)]
    size = sum(map(_size, blocks))
    most = body["max_tokens"] * CHARACTERS_PER_TOKEN
    if size <= most:
        return Written(blocks, answer.stop_reason, estimate(size))
    return Written(_cut(blocks, most), "max_tokens", body["max_tokens"])


def _turn(body: Mapping[str, Any]) -> int:
    """How many answers the conversation has."""
    return sum(message.get("role") == "assistant" for message in body["messages"])


def _without_calls(answer: Content) -> Answer:
    if not any(block.get("type") == "tool_use" for block in answer.blocks):
        return answer
    return "\n".join(text for block in answer.blocks for text in [block.get("text")] if text) or _NO_CALLS


def _finished(block: Mapping[str, Any], turn: int, number: int) -> Dict[str, Any]:
    """The block with what the server adds; inputs are text."""
    kind = block.get("type")
    if kind == "thinking":
        return {**block, "signature": signature_of(block["thinking"])}
    if not isinstance(kind, str) or not kind.endswith("tool_use"):
        return dict(block)
    prefix = "toolu" if kind == "tool_use" else "srvtoolu"
    given = block.get("input", {})
    text = given if isinstance(given, str) else json.dumps(given)
    # The same for the same place of any conversation, so that runs can be repeated.
    return {"type": kind, "id": f"{prefix}_{turn:012d}{number:012d}", **block, "input": text}


def _size(block: Mapping[str, Any]) -> int:
    return sum(len(block[name]) for name in _WRITTEN if isinstance(block.get(name), str))


def _cut(blocks: Sequence[Dict[str, Any]], most: int) -> List[Dict[str, Any]]:
    """The blocks up to so many characters; the last may end in the middle of its text or its input."""
    kept: List[Dict[str, Any]] = []
    for block in blocks:
        size = _size(block)
        if size > most:
            kept.append({name: value[:most] if name in _WRITTEN else value for name, value in block.items()})
            break
        kept.append(block)
        most -= size
    return kept
