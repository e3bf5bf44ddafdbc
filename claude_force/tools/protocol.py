"""What the agent loop needs of tools, and what a toolbox needs of each tool."""

from __future__ import annotations

from typing import Any, Mapping, Protocol

from ..conversation import ToolResult, ToolUse


class ToolError(Exception):
    """A tool call that failed. Its text goes to the model as it stands, with `is_error`."""


class Tool(Protocol):
    """One tool that a model may call.

    Attributes:
        name: as the model and the agents' files spell it: "Read", "Bash".
        description: what the model is told about it.
        input_schema: JSON Schema of its input, an object. The toolbox checks each call against it.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        """Whether this call changes nothing: it may run beside others, and answers after it may be cached."""

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Runs one call, with arguments that match the schema. Raises ToolError."""

    async def close(self) -> None:
        """Ends what the tool has started."""


class Tools(Protocol):
    """The tools of one agent in one run: what the loop offers to the model, and runs.

    Attributes:
        definitions: the `tools` of the request as JSON text of a list; the same text for the same tools.
        context: a block for the system prompt that says where the tools work; "" for none.
    """

    definitions: str
    context: str

    def is_read_only(self, use: ToolUse) -> bool:
        """As `Tool.is_read_only`; True for a call that is refused."""

    async def run(self, use: ToolUse) -> ToolResult:
        """Runs one call. One that fails, is denied or names no tool has a result with `is_error`."""

    async def state(self) -> str:
        """Returns what a later process needs to go on with these tools; "" for nothing."""

    async def restore(self, state: str) -> None:
        """Makes the state of an earlier process that of these tools. Ignores what is not a state."""

    async def close(self) -> None:
        """Ends what the tools have started."""
