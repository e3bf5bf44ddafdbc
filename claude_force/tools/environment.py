"""Tells a model where its tools work, as Claude Code does. Pure.

There is no date, no model and no version in it: each would make the API's prompt cache and the answer cache
miss, although nothing that matters has changed.
"""

from __future__ import annotations

from typing import Sequence

from .tool_names import BASH


def environment_text(
    root: str,
    offered: Sequence[str],
    platform: str,
    is_git: bool,
    extra_folders: Sequence[str] = (),
    has_network: bool = False,
) -> str:
    """Returns a block for the system prompt.

    Args:
        root: the absolute path that the model knows the project by; relative paths start there.
        offered: the names of the agent's tools.
        platform: as `sys.platform` has it.
        extra_folders: absolute paths of further folders that the tools may use.
    """
    facts = [
        f"Working directory: {root}",
        f"Is directory a git repo: {'Yes' if is_git else 'No'}",
        *(f"Additional working directory: {folder}" for folder in extra_folders),
        f"Platform: {platform}",
    ]
    lines = "\n".join(facts)
    return f"Your tools work in this environment:\n<env>\n{lines}\n</env>{_commands(offered, has_network)}"


def _commands(offered: Sequence[str], has_network: bool) -> str:
    """What a model that may run commands should not have to find out."""
    if BASH not in offered:
        return ""
    network = "The network can be reached." if has_network else "There is no network."
    return f"\nCommands run in a sandbox, which sees these folders and the system's programs. {network}"
