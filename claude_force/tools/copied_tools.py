"""Tools that work in a copy of the project: what was changed there is part of their state."""

from __future__ import annotations

import json

from anyio import to_thread

from ..conversation import ToolResult, ToolUse
from ..errors import WorktreeError
from .patches import apply_patch
from .protocol import Tools
from .worktree import Worktree

_CWD, _PATCH = "cwd", "patch"


class CopiedTools:
    """Adds the changes in a copy to the state of the tools that work in it.

    tools = CopiedTools(toolbox, worktree)
    state = await tools.state()  # of this process
    await tools.restore(state)  # in another one, with another copy
    """

    def __init__(self, tools: Tools, copy: Worktree) -> None:
        self._tools, self._copy = tools, copy
        self.definitions, self.context = tools.definitions, tools.context

    def is_read_only(self, use: ToolUse) -> bool:
        """As `protocol.Tools`."""
        return self._tools.is_read_only(use)

    async def run(self, use: ToolUse) -> ToolResult:
        """As `protocol.Tools`."""
        return await self._tools.run(use)

    async def close(self) -> None:
        """As `protocol.Tools`; the copy stays."""
        await self._tools.close()

    async def state(self) -> str:
        """Returns the state of the tools, and a patch of the copy."""
        cwd = await self._tools.state()
        changes = await to_thread.run_sync(self._copy.changes)
        return "" if not cwd and changes.patch == "" else json.dumps({_CWD: cwd, _PATCH: changes.patch})

    async def restore(self, state: str) -> None:
        """Makes the same changes in this copy. Raises WorktreeError, PatchConflictError."""
        if not state:
            return
        fields = json.loads(state)
        if fields[_PATCH] is None:
            raise WorktreeError(
                "What the agent had changed is lost, as it was too much for a patch. Start a new run."
            )
        await to_thread.run_sync(apply_patch, fields[_PATCH], self._copy.path)
        await self._tools.restore(fields[_CWD])
