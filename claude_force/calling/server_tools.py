"""What tools of the API's own side charge beside tokens. Pure.

Source: the API's prices, October 2026: web search $10 per 1,000 searches; web fetch, tool search and MCP only
tokens; code execution by the hour of its container, which `usage` does not tell.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional

# USD.
PER_SEARCH = 0.01

_SEARCH = "web_search"
# The caller's own tools, and those of the API's that charge nothing for each use.
_NO_FEE = ("custom", "bash", "text_editor", "computer", "memory", "web_fetch", "tool_search", "mcp")


def most_searches(options: Mapping[str, Any]) -> Optional[int]:
    """How many web searches a request may make; None where nothing bounds that."""
    searches = 0
    for tool in _tools(options):
        if _type_of(tool).startswith(_SEARCH):
            most = tool.get("max_uses")
            if type(most) is not int or most < 0:
                return None
            searches += most
    return searches


def unknown_fee(options: Mapping[str, Any]) -> Optional[str]:
    """The type of a tool that may charge what `usage` does not tell, or None."""
    for tool in _tools(options):
        kind = _type_of(tool)
        if kind and not kind.startswith((*_NO_FEE, _SEARCH)):
            return kind
    return None


def _tools(options: Mapping[str, Any]) -> Any:
    tools = options.get("tools") if options else None
    return [one for one in tools if isinstance(one, Mapping)] if isinstance(tools, (list, tuple)) else ()


def _type_of(tool: Mapping[str, Any]) -> str:
    kind = tool.get("type")
    return kind if isinstance(kind, str) else ""
