"""Reads the options of tools: what a command grants to its agents, and how long they may use it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Dict, List

from .. import settings
from ..errors import InputError
from ..storage.path_text import printable

# Bounds of the tools, with the names of the orchestrator's arguments.
_BOUNDS = {"add_dir": "add_dirs", "max_turns": "max_turns", "max_tool_calls": "max_tool_calls"}
_NOT_DURABLE = (
    "--tools is for runs without a database: tools run in this process, and durable calls outlive it. Leave "
    "out --durable and --database: answers are in the cache, and the same command pays for the rest alone."
)


def tool_options(args: argparse.Namespace, is_durable: bool = False) -> Dict[str, Any]:
    """Returns the arguments of a call that concern tools; {} where the command grants none.

    Raises InputError.
    """
    granted = args.tools if args.tools is not None else _default_grant()
    bounds = {name: getattr(args, option) for option, name in _BOUNDS.items()}
    given = {name: value for name, value in bounds.items() if value is not None}
    if granted is None and not given:
        return {}
    # Imported here: most commands grant nothing.
    from ..tool_options import check_limits
    from ..tools.grant import parse_grant

    grant = parse_grant(granted)
    check_limits(bounds["max_turns"], bounds["max_tool_calls"])
    if not grant:
        _refuse_bounds(args)
        return {}
    if is_durable:
        if args.tools is None:
            # The user's default is for runs that can have tools.
            return {}
        raise InputError(_NOT_DURABLE)
    for folder in bounds["add_dirs"] or ():
        if not Path(folder).is_dir():
            raise InputError(f"--add-dir is {printable(folder)}, which is not a folder.")
    if getattr(args, "in_place", False):
        given["in_place"] = True
    return {"tools": grant, **given}


def given_words(args: argparse.Namespace) -> List[str]:
    """Returns the options of tools that a command was given, as it was given them, for another command."""
    words: List[str] = []
    for name in ("tools", "add_dir", "max_turns", "max_tool_calls", "call_budget"):
        value = getattr(args, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                words += [f"--{name.replace('_', '-')}", f"{one:g}" if isinstance(one, float) else str(one)]
    return words


def _default_grant() -> Any:
    """Returns what the user's own file grants; None without the file."""
    if not os.path.lexists(_file()):
        return None
    from ..tools.default_grant import default_grant

    return default_grant()


def _file() -> Path:
    return settings.user_folder() / "claude-force.toml"


def _refuse_bounds(args: argparse.Namespace) -> None:
    for name in _BOUNDS:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is for agents that use tools: add --tools read, edit or bash.")
