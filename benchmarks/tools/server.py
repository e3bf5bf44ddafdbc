"""A Messages API that costs next to nothing and plays agents: `python -m benchmarks.tools.server`.

A path begins with the number of requests of an agent: `/4/v1/messages`. Every answer but the last calls Read.
A streamed answer comes in some 200 events, as one with thoughts or a longer input does, all written at once.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Tuple

from ..calls import server as plain
from .files import FINAL, NAMES

PIECES = 200
# Pieces of text before a call.
_TEXT, _PIECE = PIECES - 20, "word "
_ANSWERS = (b'"role":"assistant"', b'"role": "assistant"')
_USAGE = {"input_tokens": 1500, "output_tokens": 60, "cache_read_input_tokens": 1200}


def content_of(turn: int, turns: int) -> List[Dict[str, Any]]:
    """The blocks of an answer."""
    if turn >= turns - 1:
        return [{"type": "text", "text": FINAL}]
    name = NAMES[turn % len(NAMES)]
    call = {"type": "tool_use", "id": f"toolu_{turn:024d}", "name": "Read", "input": {"file_path": name}}
    return [{"type": "text", "text": _PIECE * _TEXT}, call]


@lru_cache(maxsize=None)
def answer(turn: int, turns: int, wants_stream: bool) -> bytes:
    content = content_of(turn, turns)
    reason = "tool_use" if len(content) > 1 else "end_turn"
    if wants_stream:
        chunks = b"".join(plain.chunk(event) for event in _events(content, reason))
        return (
            plain.head(b"text/event-stream; charset=utf-8")
            + b"transfer-encoding: chunked\r\n\r\n"
            + chunks
            + b"0\r\n\r\n"
        )
    whole = {**plain.message(""), "content": content, "stop_reason": reason, "usage": _USAGE}
    body = json.dumps(whole, separators=(",", ":")).encode()
    return plain.head(b"application/json") + b"content-length: %d\r\n\r\n" % len(body) + body


def _events(content: List[Dict[str, Any]], reason: str) -> Iterator[Dict[str, Any]]:
    yield {"type": "message_start", "message": {**plain.message(""), "usage": _USAGE}}
    for index, block in enumerate(content):
        start, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 60}}
    yield {"type": "message_stop"}


def _pieces(block: Dict[str, Any]) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    if block["type"] == "text":
        cut = _cut(block["text"], len(_PIECE))
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in cut]
    cut = _cut(json.dumps(block["input"]), 2)
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text} for text in cut]


def _cut(text: str, size: int) -> List[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


class Answerer(plain.Answerer):
    """Answers by the number of answers that a request has in it."""

    def _answer(self, request: bytes, end: int) -> None:
        turns = int(request[: request.index(b"\r")].split(b"/")[1])
        turn = sum(request.count(one, end) for one in _ANSWERS)
        wants_stream = b'"stream":true' in request[end:] or b'"stream": true' in request[end:]
        self._write(answer(turn, turns, wants_stream))


if __name__ == "__main__":
    asyncio.run(plain.serve(Answerer))
