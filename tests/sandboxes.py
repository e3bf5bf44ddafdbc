"""Sandboxes for tests; a test that needs one is skipped where none can work."""

import time
from pathlib import Path
from typing import Any, Callable, Tuple

import pytest

from claude_force.conversation import ToolResult
from claude_force.errors import ToolSandboxError
from claude_force.tools.bash_tool import BashTool
from claude_force.tools.bubblewrap import bubblewrap
from claude_force.tools.protocol import ToolError
from claude_force.tools.sandbox import Sandbox
from claude_force.tools.workspace import Workspace


def program() -> str:
    """The path of bubblewrap."""
    try:
        return bubblewrap()
    except ToolSandboxError as error:
        pytest.skip(f"no sandbox: {error}")


class Shell:
    """The Bash tool of one agent in a project."""

    def __init__(self, root: Path, **ways: Any) -> None:
        ways.setdefault("is_writable", True)
        extra, shown_as = ways.get("extra_folders", ()), ways.get("shown_as")
        self.workspace = Workspace(root, extra, writable=ways["is_writable"], shown_as=shown_as)
        self.tool = BashTool(self.workspace, Sandbox(root, **ways), program())

    async def run(self, command: str, **arguments: Any) -> ToolResult:
        try:
            return await self.tool.run({"command": command, **arguments})
        except ToolError as error:
            return ToolResult(str(error), is_error=True)

    async def text(self, command: str, **arguments: Any) -> str:
        content = (await self.run(command, **arguments)).content
        assert isinstance(content, str)
        return content

    def close(self) -> None:
        self.workspace.close()


def found(result: ToolResult) -> Tuple[str, bool]:
    assert isinstance(result.content, str)
    return result.content, result.is_error


def eventually(condition: Callable[[], Any], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())
