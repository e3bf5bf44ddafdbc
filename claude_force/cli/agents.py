"""`list` and `info`: what the project's files hold. Neither needs the SDK."""

from __future__ import annotations

import argparse

from ..agents import Registry
from . import render, streams


def show_list(args: argparse.Namespace) -> int:
    """Lists agents or workflows; files that could not become an agent are named on stderr."""
    registry = Registry(args.config)
    if args.what == "agents":
        found = registry.list_agents()
        render.agents(found, args.json)
        if not found:
            streams.note("there are no agents here; put one in .claude/agents/NAME.md")
    else:
        render.workflows(registry.list_workflows(), args.json)
    for problem in registry.problems():
        streams.warn(f"{problem.name} ({problem.file}) could not be loaded: {problem.reason}")
    return 0


def show_info(args: argparse.Namespace) -> int:
    """Raises AgentNotFoundError."""
    render.info(Registry(args.config).get_agent_info(args.name), args.json)
    return 0
