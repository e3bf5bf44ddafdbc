"""Puts the content blocks of an answer together, so that they can be sent back. Pure.

Only for calls that have a conversation: no other call imports this.

Source of the rules: the Messages API reference, chapters "Create a Message" and "Streaming messages"; what a
delta does to its block is as in the official SDK.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from ..conversation import ContentBlock, input_of, without_lone_surrogates
from ..errors import BadReplyError
from ..types import Reply, fast_replace, is_blank
from .events import Events
from .messages import BodyReader, Reader

# Deltas of text: where the text is, and the field of the block that it continues.
_TEXTS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "input"),
}
_decode = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(ensure_ascii=False).encode


class ContentEvents:
    """Decodes the events of a stream, and collects the content blocks in them on the way."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._blocks: List[_Block] = []
        self._by_index: Dict[int, _Block] = {}

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]:
        """Implements `Events.feed`."""
        for event in self._events.feed(chunk):
            kind = event.get("type")
            if kind == "content_block_delta":
                block, delta = self._block_of(event), event.get("delta")
                if block is not None and isinstance(delta, dict):
                    block.append(delta)
            elif kind == "content_block_start":
                self._begin(event)
            yield event

    def content(self) -> Tuple[ContentBlock, ...]:
        """The blocks so far, without those that the API would refuse."""
        found = (block.finished() for block in self._blocks)
        return tuple(block for block in found if block is not None)

    def _begin(self, event: Dict[str, Any]) -> None:
        fields, index = event.get("content_block"), event.get("index")
        if isinstance(fields, dict):
            block = _Block(fields)
            self._blocks.append(block)
            if isinstance(index, int):
                self._by_index[index] = block

    def _block_of(self, event: Dict[str, Any]) -> Optional[_Block]:
        """The block that a delta belongs to: of its index, else the newest."""
        index = event.get("index")
        found = self._by_index.get(index) if isinstance(index, int) else None
        return found or (self._blocks[-1] if self._blocks else None)


class _Block:
    """A block as it began, and the texts that continue its fields."""

    __slots__ = ("_fields", "_pieces")

    def __init__(self, fields: Dict[str, Any]) -> None:
        self._fields = dict(fields)
        self._pieces: Dict[str, List[str]] = {}

    def append(self, delta: Dict[str, Any]) -> None:
        kind = delta.get("type")
        source, field = _TEXTS.get(kind, ("", "")) if isinstance(kind, str) else ("", "")
        piece = delta.get(source)
        if isinstance(piece, str):
            self._pieces.setdefault(field, []).append(piece)
        elif kind == "citations_delta":
            before = self._fields.get("citations")
            self._fields["citations"] = [*(before if before else ()), delta.get("citation")]
        elif not field:
            # A signature, and whatever later versions of the API add.
            self._fields.update((name, value) for name, value in delta.items() if name != "type")

    def finished(self) -> Optional[ContentBlock]:
        """The block; None for a text that is blank."""
        fields = dict(self._fields)
        for field, pieces in self._pieces.items():
            if field != "input":
                start = fields.get(field)
                fields[field] = "".join([start if isinstance(start, str) else "", *pieces])
        return _content_block(fields, "".join(self._pieces.get("input", ())))


def _content_block(fields: Dict[str, Any], raw_input: str) -> Optional[ContentBlock]:
    """The block with these fields; `raw_input` is the JSON text of its input, as the model wrote it."""
    kind = _type_of(fields)
    if kind == "text" and _is_blank(fields):
        return None
    wrong_input = ""
    if raw_input and not _is_object(raw_input):
        wrong_input, raw_input = raw_input, "{}"
    members = [
        f"{_encode(name)}:{raw_input if name == 'input' and raw_input else _encode(value)}"
        for name, value in ({**fields, "input": {}} if raw_input else fields).items()
    ]
    return ContentBlock(kind, without_lone_surrogates(f"{{{','.join(members)}}}"), wrong_input)


def with_content(reply: Reply, reader: Reader) -> Reply:
    """The reply with the blocks of its answer. A stream's reader decodes it with `ContentEvents`.

    Raises BadReplyError for blocks that are nested too deep.
    """
    try:
        content = _content_of(reader)
    except RecursionError as error:
        raise BadReplyError(
            "The answer has a block that is nested too deep", request_id=reply.request_id
        ) from error
    return fast_replace(reply, content=content)


def _content_of(reader: Reader) -> Tuple[ContentBlock, ...]:
    if isinstance(reader, BodyReader):
        return _content_of_body(reader.body)
    return reader.events.content() if isinstance(reader.events, ContentEvents) else ()


def _content_of_body(body: Union[bytes, bytearray]) -> Tuple[ContentBlock, ...]:
    """The blocks of a message as JSON, each as it stands in there."""
    text = body.decode(json.detect_encoding(body), "replace").strip()
    found = (_of_body(fields, raw) for fields, raw in _elements(text, _start_of(text, "content")))
    return tuple(block for block in found if block is not None)


def _of_body(fields: Dict[str, Any], raw: str) -> Optional[ContentBlock]:
    kind = _type_of(fields)
    if kind == "text" and _is_blank(fields):
        return None
    if kind == "tool_use":
        given = _encode(fields.get("input", {}))
        if not _is_object(given):
            return _content_block(fields, given)
    return ContentBlock(kind, without_lone_surrogates(raw))


def _start_of(text: str, name: str) -> int:
    """The place at which the value of a member of this JSON object begins."""
    place, found = _next(text, _next(text, 0) + 1), 0
    while text[place] != "}":
        key, place = _decode(text, place)
        value = _next(text, _next(text, place) + 1)
        if key == name:
            found = value
        place = _next(text, _decode(text, value)[1])
        if text[place] == ",":
            place = _next(text, place + 1)
    return found


def _elements(text: str, start: int) -> Iterator[Tuple[Any, str]]:
    """The elements of the JSON list that begins there, each with its text."""
    place = _next(text, start + 1)
    while text[place] != "]":
        value, end = _decode(text, place)
        yield value, text[place:end]
        place = _next(text, end)
        if text[place] == ",":
            place = _next(text, place + 1)


def _next(text: str, place: int) -> int:
    """The place of the next character that is no blank."""
    while text[place] in " \t\r\n":
        place += 1
    return place


def _type_of(fields: Dict[str, Any]) -> str:
    kind = fields.get("type")
    return kind if isinstance(kind, str) else ""


def _is_blank(fields: Dict[str, Any]) -> bool:
    text = fields.get("text")
    return not isinstance(text, str) or is_blank(text)


def _is_object(text: str) -> bool:
    try:
        return isinstance(input_of(text), dict)
    except ValueError:
        return False
