"""What the API refuses in requests with tools, and in conversations that used them. Pure; raises Refused.

Source: the Messages API reference, chapters "Tool use", "Prompt caching" and "Extended thinking".
"""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, Sequence, Set, Tuple

from .replies import Refused
from .scripts import signature_of
from .tokens import blocks_of

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_MOST_BREAKPOINTS = 4
_OF_TOOLS = ("tool_use", "tool_result")


def check_tools(body: Mapping[str, Any]) -> None:
    """400 for wrong definitions of tools, for calls without results, and for breakpoints that can't be."""
    tools = body.get("tools")
    if isinstance(tools, list):
        _check_definitions(tools)
    elif body.get("tool_choice") and not tools:
        raise Refused(400, "tool_choice: may only be specified while providing tools")
    _check_breakpoints(body)
    messages = [(str(one["role"]), _blocks(one["content"])) for one in body["messages"]]
    used = [block for _, blocks in messages for block in blocks if block.get("type") in _OF_TOOLS]
    if used and not tools:
        raise Refused(400, "Requests which include `tool_use` or `tool_result` blocks must define tools")
    _check_blocks(messages)
    if used:
        _check_turns(messages)


def _blocks(content: Any) -> Sequence[Mapping[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _check_definitions(tools: Sequence[Any]) -> None:
    names: List[str] = []
    for number, tool in enumerate(tools):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            pattern = "^[a-zA-Z0-9_-]{1,128}$"
            raise Refused(400, f"tools.{number}.custom.name: String should match pattern '{pattern}'")
        if tool.get("type", "custom") == "custom" and not isinstance(tool.get("input_schema"), dict):
            raise Refused(400, f"tools.{number}.custom.input_schema: Field required")
        names.append(name)
    if len(set(names)) < len(names):
        raise Refused(400, "tools: Tool names must be unique.")


def _check_breakpoints(body: Mapping[str, Any]) -> None:
    found = [block for _, block in blocks_of(body) if isinstance(block, dict) and "cache_control" in block]
    count = len(found) + ("cache_control" in body)
    if count > _MOST_BREAKPOINTS:
        raise Refused(400, f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")
    for block in found:
        if block.get("type") in ("thinking", "redacted_thinking"):
            raise Refused(400, f"{block['type']}.cache_control: Extra inputs are not permitted")


def _check_blocks(messages: Sequence[Tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    for number, (_, blocks) in enumerate(messages):
        for at, block in enumerate(blocks):
            place, kind = f"messages.{number}.content.{at}", block.get("type")
            if kind == "text" and not block["text"].strip():
                raise Refused(400, "messages: text content blocks must contain non-whitespace text")
            if kind == "tool_use" and not isinstance(block.get("id"), str):
                raise Refused(400, f"{place}.tool_use.id: Input should be a valid string")
            if kind == "tool_use" and not isinstance(block.get("input"), dict):
                raise Refused(400, f"{place}.tool_use.input: Input should be a valid dictionary")
            if kind == "thinking" and block.get("signature") != signature_of(str(block.get("thinking"))):
                raise Refused(400, f"{place}: Invalid `signature` in `thinking` block")
    role, blocks = messages[-1]
    text = blocks[-1].get("text") if role == "assistant" and blocks else None
    if isinstance(text, str) and text != text.rstrip():
        raise Refused(400, "messages: final assistant content cannot end with trailing whitespace")


def _check_turns(messages: Sequence[Tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Roles alternate, and each call has one result, at the beginning of the next message."""
    waiting: List[str] = []
    known: Set[str] = set()
    before = "assistant"
    for number, (role, blocks) in enumerate(messages):
        if role == before:
            raise Refused(
                400, f'messages: roles must alternate, but messages.{number} is another of the "{role}"'
            )
        before = role
        _check_results(number, blocks, waiting)
        waiting = [block["id"] for block in blocks if block.get("type") == "tool_use"]
        for identity in waiting:
            if identity in known or waiting.count(identity) > 1:
                raise Refused(400, f"messages.{number}: `tool_use` ids must be unique, and {identity} is not")
            known.add(identity)
    if waiting:
        raise Refused(400, _without_result(len(messages) - 1, waiting))


def _check_results(number: int, blocks: Sequence[Mapping[str, Any]], waiting: List[str]) -> None:
    leading = list(_leading_results(blocks))
    for at, block in enumerate(blocks):
        if block.get("type") == "tool_result" and block.get("tool_use_id") not in waiting:
            raise Refused(
                400,
                f"messages.{number}.content.{at}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{block.get('tool_use_id')}. Each `tool_result` block must have a corresponding `tool_use` "
                "block in the previous message.",
            )
    missing = [identity for identity in waiting if identity not in leading]
    if missing:
        raise Refused(400, _without_result(number - 1, missing))
    for identity in leading:
        if leading.count(identity) > 1:
            raise Refused(
                400,
                f"messages.{number}.content: each `tool_use` must have a single result. Found multiple "
                f"`tool_result` blocks with id: {identity}",
            )


def _leading_results(blocks: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    for block in blocks:
        if block.get("type") != "tool_result":
            return
        yield block.get("tool_use_id")


def _without_result(number: int, missing: Sequence[str]) -> str:
    return (
        f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
        "next message."
    )
