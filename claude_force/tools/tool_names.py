"""The names of tools in agents' files, rules and grants. Pure.

Source: the tools of Claude Code, and which of its older names it still understands.
"""

from __future__ import annotations

from typing import Mapping, Tuple

READ, GREP, GLOB, EDIT, WRITE, BASH = "Read", "Grep", "Glob", "Edit", "Write", "Bash"
# In the order in which they are offered to the model.
AVAILABLE: Tuple[str, ...] = (READ, GREP, GLOB, EDIT, WRITE, BASH)
READING = frozenset((READ, GREP, GLOB))
WRITING = frozenset((EDIT, WRITE))
# The tools whose rules about paths grant a tool.
ALSO_OF: Mapping[str, Tuple[str, ...]] = {GREP: (GREP, READ), GLOB: (GLOB, READ), WRITE: (WRITE, EDIT)}

# Tools of Claude Code that agents here don't have.
NOT_YET = frozenset(
    (
        *("Agent", "AskUserQuestion", "EnterPlanMode", "EnterWorktree", "ExitPlanMode", "ExitWorktree"),
        *("ListAgents", "ListMcpResourcesTool", "LSP", "Monitor", "NotebookEdit", "PowerShell"),
        *("PushNotification", "ReadMcpResourceTool", "ReportFindings", "ScheduleWakeup", "SendMessage"),
        *("Skill", "TaskCreate", "TaskGet", "TaskList", "TaskOutput", "TaskStop", "TaskUpdate", "TodoWrite"),
        *("ToolSearch", "WebFetch", "WebSearch", "Workflow"),
    )
)
# Older names, which files may still use.
RENAMED: Mapping[str, str] = {
    "Task": "Agent",
    "KillBash": "TaskStop",
    "KillShell": "TaskStop",
    "AgentOutputTool": "TaskOutput",
    "BashOutputTool": "TaskOutput",
}
# Tools that Claude Code has no more, and what does their work.
GONE: Mapping[str, str] = {
    "BashOutput": "",
    "LS": "Glob",
    "MultiEdit": "Edit",
    "NotebookRead": "Read",
    "SlashCommand": "Skill",
}
_MCP = "mcp__"


def current_name(name: str) -> str:
    """Returns the name that Claude Code has for a tool today."""
    return RENAMED.get(name, name)


def is_mcp(name: str) -> bool:
    """Whether it names tools of an MCP server: `mcp__server`, `mcp__server__*` or `mcp__server__tool`."""
    return name.startswith(_MCP) and len(name) > len(_MCP)


def is_known_tool(name: str) -> bool:
    """Whether Claude Code has, or had, a tool of this name."""
    return name in AVAILABLE or name in NOT_YET or name in GONE or name in RENAMED


def covers(pattern: str, name: str) -> bool:
    """Whether the name in a rule means the tool `name`.

    >>> covers("mcp__github", "mcp__github__search"), covers("Task", "Agent"), covers("*", "Read")
    (True, True, True)
    """
    if pattern == "*" or current_name(pattern) == name:
        return True
    if not is_mcp(pattern):
        return False
    server = pattern[: -len("__*")] if pattern.endswith("__*") else pattern
    return name.startswith(f"{server}__") and "__" not in server[len(_MCP) :]
