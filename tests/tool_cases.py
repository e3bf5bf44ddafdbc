"""Recorded calls of tools, and what Claude Code's own command answered: `data/tool_cases.json`.

`$P` is the project, `$O` a folder outside of it, `$H` the home folder, `$R` the folder of all three. In a
result " …" stands for text that was left out, and a long one is given by its length, hash, beginning and end.
"""

import hashlib
import json
import re
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any, Dict, Iterator, List, Union

from claude_force.conversation import ToolResult
from claude_force.tools.protocol import ToolError

Json = Dict[str, Any]
_DATA = Path(__file__).parent / "data" / "tool_cases.json"
_AGENT = "---\nname: w\ndescription: d\n{}---\nYou work.\n"
_FILE_TOOLS = ("Read", "Grep", "Glob", "Edit", "Write")
# The others are about whole agents, or about commands.
_ABOUT_FILES = ("read", "grep", "glob", "edit", "write", "denied", "one-answer-reads", "outside")
_NOT_OF_TOOLS = ("denied-rules", "denied-settings-trusted", "outside-bash", "outside-write")


def load_agent_cases() -> List[Json]:
    """The cases of whole agents, as agent_cases.py describes them."""
    data = json.loads(_DATA.read_text(encoding="utf-8"))
    for case in data["cases"]:
        if isinstance(case["files"], str):
            case["files"] = data["files"][case["files"]]
    return data["cases"]


def load_cases() -> List[Json]:
    """The cases of file tools. A step is a call with its result, or a write by somebody else."""
    return [
        {**case, "steps": list(_steps(case["answers"]))}
        for case in load_agent_cases()
        if case["name"].startswith(_ABOUT_FILES) and case["name"] not in _NOT_OF_TOOLS
    ]


def _steps(answers: List[Json]) -> Iterator[Json]:
    for answer in answers:
        for name, text in answer.get("writes", {}).items():
            yield {"write": name, "content": text}
        for call in answer["calls"]:
            if call["tool"] in _FILE_TOOLS:
                yield {"is_error": False, **call}


class Setting:
    """The project and the folder outside of one case."""

    def __init__(self, folder: Path, case: Json) -> None:
        self.project, self.outside, self.home = folder / "proj", folder / "out", folder / "home"
        self.project.mkdir(parents=True)
        self.outside.mkdir()
        for name, content in case["files"].items():
            self.make(name, self.real(content) if name.startswith("$H") else content)
        self.make(".claude/agents/w.md", _AGENT.format(case["agent"]))
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
        for sign, path in (("$P", self.project), ("$O", self.outside), ("$H", self.home)):
            text = text.replace(sign, str(path))
        return json.loads(text)

    def shown(self, text: str) -> str:
        """The opposite for a result."""
        shown = text.replace(str(self.project), "$P").replace(str(self.outside), "$O")
        return shown.replace(str(self.project.parent), "$R")


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
        if not isinstance(found, str):
            return expected == found
        sha = hashlib.sha256(found.encode("utf-8")).hexdigest()[:12]
        return (expected["chars"], expected["sha"]) == (len(found), sha)
    if isinstance(expected, list):
        return expected == list(found)
    if not isinstance(found, str):
        return False
    parts = re.split(r"( ?…|<system-reminder/>)", expected)
    return re.fullmatch("".join(map(_pattern, parts)), found, re.DOTALL) is not None


def _pattern(part: str) -> str:
    if part.endswith("…"):
        return ".*"
    if part == "<system-reminder/>":
        return "<system-reminder>.*</system-reminder>"
    return re.escape(part)
