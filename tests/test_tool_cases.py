"""The file tools answer as Claude Code's own command did, or differ for a reason that is given here."""

from typing import Any, Dict, Tuple

import pytest
from tool_cases import Json, Setting, call, load_cases, same

from claude_force.tools.edit_tools import EditTool, WriteTool
from claude_force.tools.glob_tool import GlobTool
from claude_force.tools.grep_engines import ENGINES, Query
from claude_force.tools.grep_tool import GrepTool
from claude_force.tools.read_tool import ReadTool
from claude_force.tools.workspace import PathRules, Workspace

CASES = {case["name"]: case for case in load_cases()}
NOT_CUT = "a long line is shown whole, up to the 256 KB that a file may have"
FIRST_BY_PATH = "the first files by path are shown, not those that were changed last"

# Besides, Glob and Grep sort by path what the command sorts by time of change, so that equal files give equal
# requests.
DIFFERENCES: Dict[Tuple[str, int], Tuple[object, str]] = {
    ("read-long-2", 2): ("1\t" + "y" * 120_000, NOT_CUT),
    ("grep-options", 6): ("Found 1 file limit: 1\n.hidden.txt", FIRST_BY_PATH),
    ("grep-many", 0): (
        "\n".join(["Found 250 files limit: 250", *(f"m/f{number:03}.txt" for number in range(250))]),
        FIRST_BY_PATH,
    ),
}


def workspace_of(case: Json, setting: Setting) -> Workspace:
    extra = (setting.outside,) if case["name"] == "outside-add-dir" else ()
    workspace = Workspace(setting.project, extra, writable=not case["name"].startswith("denied"))
    if case["name"] == "denied-settings":
        denied = str(setting.project / "secret") + "/"
        workspace.rules = PathRules(denies_read=lambda path: path.startswith(denied))
    return workspace


def in_order(tool: str, result: Any) -> Any:
    """The result with the paths sorted that the command sorts by time."""
    if not isinstance(result, str) or tool not in ("Glob", "Grep"):
        return result
    head, *names = result.split("\n")
    if head.startswith("Found "):
        return "\n".join([head, *sorted(names)])
    is_sorted = tool == "Glob" and "(Showing " not in result
    return "\n".join(sorted(result.split("\n"))) if is_sorted else result


async def play(case: Json, setting: Setting, tools: Json) -> None:
    for number, step in enumerate(case["steps"]):
        if "write" in step:
            setting.make(step["write"], step["content"])
            continue
        if "InputValidationError" in str(step["result"]):
            continue  # That the input matches the schema is checked before a tool is run.
        result = await call(tools[step["tool"]], setting.real(step["input"]))
        found = setting.shown(result.content) if isinstance(result.content, str) else result.content
        expected, reason = DIFFERENCES.get((case["name"], number), (step["result"], ""))
        assert same(in_order(step["tool"], expected), found), (step, found, reason)
        assert result.is_error == step["is_error"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", sorted(CASES))
async def test_file_tools_answer_as_recorded(name: str, engine: Any, tmp_path) -> None:
    case = CASES[name]
    has_grep = any(step.get("tool") == "Grep" for step in case["steps"])
    if engine is not ENGINES[0] and not has_grep:
        pytest.skip("uses no engine")
    if not engine.serves(Query("x")):
        pytest.skip(f"{engine.__name__} is not installed")
    setting = Setting(tmp_path, case)
    with workspace_of(case, setting) as workspace:
        tools = {kind.name: kind(workspace) for kind in (EditTool, GlobTool, ReadTool, WriteTool)}
        # ripgrep leaves to another one what spans lines.
        tools["Grep"] = GrepTool(workspace, (engine, ENGINES[-1]))
        await play(case, setting, tools)
