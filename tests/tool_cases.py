"""Recorded calls of file tools, and what Claude Code's own command answered: `data/file_tool_cases.json`.

A case has files and steps. `$P` is the project, `$O` a folder outside of it. A step is a call with its
result, or a write by somebody else. In a result " …" stands for text that was left out, and a long one is
given by its length, hash, beginning and end.
"""

import hashlib
import json
import re
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any, Dict, List, Union

from claude_force.conversation import ToolResult
from claude_force.tools.protocol import ToolError

Json = Dict[str, Any]
_DATA = Path(__file__).parent / "data" / "file_tool_cases.json"


def load_cases() -> List[Json]:
    return json.loads(_DATA.read_text(encoding="utf-8"))


class Setting:
    """The project and the folder outside of one case."""

    def __init__(self, folder: Path, case: Json) -> None:
        self.project, self.outside = folder / "proj", folder / "out"
        self.project.mkdir(parents=True)
        self.outside.mkdir()
        for name, content in case["files"].items():
            self.make(name, content)
        if case.get("git"):
            subprocess.run(["git", "init", "-q"], cwd=self.project, check=True, timeout=30)

    def make(self, name: str, content: Union[str, Json]) -> None:
        path = Path(self.real(name)) if name.startswith("$") else self.project / name
        if isinstance(content, dict) and "each" in content:
            for number in range(content["each"]):
                self.make(name % number, content["text"])
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict) and "symlink" in content:
            path.symlink_to(self.real(content["symlink"]))
        else:
            path.write_bytes(_bytes(content))

    def real(self, value: Any) -> Any:
        """Puts the real folders into a text, or into all texts of a value."""
        text = json.dumps(value)
        return json.loads(text.replace("$P", str(self.project)).replace("$O", str(self.outside)))

    def shown(self, text: str) -> str:
        """The opposite for a result."""
        return text.replace(str(self.project), "$P").replace(str(self.outside), "$O")


def _bytes(content: Union[str, Json]) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8")
    if "b64" in content:
        return b64decode(content["b64"])
    if "char" in content:
        return content["char"].encode("utf-8") * content["n"]
    lines = [content["repeat"] % number for number in range(1, content["n"] + 1)]
    return "".join(lines).encode("utf-8")


async def call(tool: Any, arguments: Json) -> ToolResult:
    """Runs a call, with numbers in strings made numbers as a toolbox does."""
    fields = tool.input_schema["properties"]
    given = {
        name: int(value) if fields[name]["type"] == "integer" and isinstance(value, str) else value
        for name, value in arguments.items()
    }
    try:
        return await tool.run(given)
    except ToolError as error:
        return ToolResult(str(error), is_error=True)


def same(expected: Any, found: Any) -> bool:
    """Whether a result is the one that was recorded."""
    if isinstance(expected, dict):
        sha = hashlib.sha256(found.encode("utf-8")).hexdigest()[:12]
        return (expected["chars"], expected["sha"]) == (len(found), sha)
    if isinstance(expected, list):
        return expected == list(found)
    if not isinstance(found, str):
        return False
    pattern = re.escape(expected.replace(" …", "\0").replace("<system-reminder/>", "\1"))
    pattern = pattern.replace(re.escape("\0"), ".*").replace(
        re.escape("\1"), "<system-reminder>.*</system-reminder>"
    )
    return re.fullmatch(pattern, found, re.DOTALL) is not None
