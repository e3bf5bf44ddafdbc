"""The file tools answer as Claude Code's own command did, or differ for a reason that is given here."""

from typing import Dict, Tuple

import pytest
from tool_cases import Json, Setting, call, load_cases, same

from claude_force.tools.edit_tools import EditTool, WriteTool
from claude_force.tools.read_tool import ReadTool
from claude_force.tools.workspace import PathRules, Workspace

TOOLS = (EditTool, ReadTool, WriteTool)
NAMES = {tool.name for tool in TOOLS}
CASES = {
    case["name"]: case
    for case in load_cases()
    if all(step["tool"] in NAMES for step in case["steps"] if "tool" in step)
}
NOT_CUT = "a long line is shown whole, up to the 256 KB that a file may have"

DIFFERENCES: Dict[Tuple[str, int], Tuple[object, str]] = {
    ("read-long-2", 2): ("1\t" + "y" * 120_000, NOT_CUT),
}


def workspace_of(case: Json, setting: Setting) -> Workspace:
    extra = (setting.outside,) if case["name"] == "outside-add-dir" else ()
    workspace = Workspace(setting.project, extra, writable=not case["name"].startswith("denied"))
    if case["name"] == "denied-settings":
        denied = str(setting.project / "secret") + "/"
        workspace.rules = PathRules(denies_read=lambda path: path.startswith(denied))
    return workspace


@pytest.mark.parametrize("name", sorted(CASES))
async def test_file_tools_answer_as_recorded(name: str, tmp_path) -> None:
    case = CASES[name]
    setting = Setting(tmp_path, case)
    with workspace_of(case, setting) as workspace:
        tools = {tool.name: tool for tool in (kind(workspace) for kind in TOOLS)}
        for number, step in enumerate(case["steps"]):
            if "write" in step:
                setting.make(step["write"], step["content"])
                continue
            result = await call(tools[step["tool"]], setting.real(step["input"]))
            found = setting.shown(result.content) if isinstance(result.content, str) else result.content
            expected, reason = DIFFERENCES.get((name, number), (step["result"], ""))
            assert same(expected, found), (step, found, reason)
            assert result.is_error == step["is_error"]
