"""The tools of one agent in one run: offers them, checks each call, and runs what is allowed."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from anyio import to_thread

from ..agent_types import Agent
from ..conversation import ToolResult, ToolUse
from ..errors import ClaudeForceError
from ..lazy_pattern import pattern
from ..storage.project_root import has_entry
from .environment import environment_text
from .grant import GrantOption
from .input_validation import InvalidInputError, validate_input
from .offers import NOT_GRANTED, ToolOffer
from .permissions import Permissions
from .protocol import Tool, ToolError, Tools
from .tool_names import BASH, GLOB, GREP, is_known_tool
from .tool_setup import OpenCopy, ToolSetup
from .workspace import Workspace

logger = logging.getLogger(__name__)

# Of the text of one result, beyond what each tool bounds itself.
MOST_CHARACTERS = 1_000_000
_HEAD, _TAIL = 600_000, 300_000
_SURROGATES = pattern("[\ud800-\udfff]")
_ASKED = "Claude requested permissions to "


class Toolbox:
    """Implements `protocol.Tools` for the tools that an agent is offered.

        toolbox = Toolbox([ReadTool(workspace)], permissions, offers, workspace)
        result = await toolbox.run(ToolUse("toolu_1", "Read", {"file_path": "a.txt"}))

    Attributes:
        definitions, context: as in `protocol.Tools`.
        offers: what the agent is offered, and why the rest of what its file names is left out.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        permissions: Permissions,
        offers: Sequence[ToolOffer],
        workspace: Workspace,
        context: str = "",
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._permissions, self._workspace = permissions, workspace
        self.offers, self.context = tuple(offers), context
        self.definitions = json.dumps([_definition(tool) for tool in tools], separators=(",", ":"))
        self._is_closed = False

    def is_read_only(self, use: ToolUse) -> bool:
        """As `Tool.is_read_only`; True for a call that is refused."""
        found = self._prepare(use)
        if isinstance(found, ToolResult):
            return True
        tool, arguments = found
        return tool.is_read_only(arguments)

    async def run(self, use: ToolUse) -> ToolResult:
        """Runs one call. One that fails, is denied or names no tool has a result with `is_error`."""
        found = self._prepare(use)
        return found if isinstance(found, ToolResult) else _cleaned(await _run(*found))

    async def state(self) -> str:
        """Returns where relative paths start, where commands have changed that."""
        cwd = self._workspace.cwd
        return "" if cwd == str(self._workspace.root) else cwd

    async def restore(self, state: str) -> None:
        """Makes relative paths start there again, if the folder is still one that tools may use."""
        if state:
            try:
                # It opens the folder.
                await to_thread.run_sync(self._workspace.change_folder, state)
            except ToolError as error:
                logger.warning("relative paths of tools start in the project's folder again: %s", error)

    async def close(self) -> None:
        """Ends what the tools have started, and closes the folders. Does nothing the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            for tool in self._tools.values():
                await tool.close()
        finally:
            self._workspace.close()

    def _prepare(self, use: ToolUse) -> Union[ToolResult, Tuple[Tool, Dict[str, Any]]]:
        """Returns the tool and the arguments of a call, or the result of one that can't be run."""
        tool = self._tools.get(use.name)
        if tool is None:
            return self._without_tool(use)
        try:
            arguments = validate_input(use, tool.input_schema)
        except InvalidInputError as error:
            return _cleaned(ToolResult(str(error), True))
        denial = self._permissions.denial(use.name, arguments, self._workspace.cwd)
        return _cleaned(ToolResult(denial, True, is_denied=True)) if denial else (tool, arguments)

    def _without_tool(self, use: ToolUse) -> ToolResult:
        """The result of a call of a tool that is not offered."""
        if any(one.name == use.name and one.state == NOT_GRANTED for one in self.offers):
            arguments = use.input if isinstance(use.input, dict) else {}
            denial = self._permissions.refusal(use.name, arguments, self._workspace.cwd)
            return _cleaned(ToolResult(denial, True, is_denied=True))
        name = use.name[:100]
        hint = self._hint(name)
        text = f"Error: No such tool available: {name}{f'. {hint}' if hint else ''}"
        return _cleaned(ToolResult(f"<tool_use_error>{text}</tool_use_error>", True))

    def _hint(self, name: str) -> str:
        same = next((one for one in self._tools if one.lower() == name.lower()), None)
        if same:
            return f"Tool names are case-sensitive: call {same} instead."
        if name in (GREP, GLOB):
            if BASH not in self._tools:
                return f"{name} is disabled for this session."
            how = "search file contents with `grep`" if name == GREP else "find files with `find`"
            return f"{name} is not available in this session — {how} via the Bash tool instead."
        if is_known_tool(name):
            others = ", ".join(self._tools)
            return f"{name} is not among the tools available here. Use only: {others}."
        return ""


def open_tools(
    agent: Agent,
    grant: GrantOption,
    folder: Path,
    add_dirs: Sequence[Path] = (),
    open_copy: Optional[OpenCopy] = None,
) -> Optional[Tools]:
    """Opens the tools that an agent is granted in a project. Blocks: it reads settings files.

    Args:
        folder: a folder of the project; where it is the user's home, the working directory takes its place.
        add_dirs: further folders that the tools may use.
        open_copy: makes a copy of the project, for tools that can change files; the caller closes it after
            the tools. None for tools that change the project itself.

    Returns None where no tool is granted. Raises InputError.
    """
    setup = ToolSetup.find(agent.settings, grant, folder)
    if not setup.offered:
        return None
    if open_copy is not None:
        setup = setup.in_copy(open_copy)
    workspace = setup.open_workspace(add_dirs)
    try:
        permissions = setup.permit(workspace)
        context = environment_text(
            str(workspace.root),
            setup.offered,
            sys.platform,
            has_entry(str(setup.shown_as), ".git"),
            [str(folder) for folder in workspace.extra_folders],
            setup.grant.has_network,
        )
        return Toolbox(setup.make_tools(workspace), permissions, setup.offers, workspace, context)
    except BaseException:
        workspace.close()
        raise


def _definition(tool: Tool) -> Dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}


async def _run(tool: Tool, arguments: Mapping[str, Any]) -> ToolResult:
    try:
        result = await tool.run(arguments)
    except ToolError as error:
        text = str(error)
        return ToolResult(text, True, is_denied=text.startswith(_ASKED))
    except ClaudeForceError as error:
        return ToolResult(f"<tool_use_error>{error}</tool_use_error>", True)
    except Exception as error:
        logger.exception("the tool %s failed", tool.name)
        text = f"Error calling tool ({tool.name}): {type(error).__name__}"
        return ToolResult(f"<tool_use_error>{text}</tool_use_error>", True)
    return result


def _cleaned(result: ToolResult) -> ToolResult:
    """Bounds the texts of a result, and takes out what can't be sent as UTF-8."""
    if isinstance(result.content, str):
        return result._replace(content=_bounded(result.content))
    blocks = tuple(
        {**block, "text": _bounded(block["text"])} if isinstance(block.get("text"), str) else block
        for block in result.content
    )
    return result._replace(content=blocks)


def _bounded(text: str) -> str:
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    if len(text) <= MOST_CHARACTERS:
        return text
    left = len(text) - _HEAD - _TAIL
    return f"{text[:_HEAD]}\n\n[... {left:,} characters left out ...]\n\n{text[-_TAIL:]}"
