"""Bash answers as Claude Code's own command did, or differs for a reason that is given here."""

import json
import re
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
from sandboxes import Shell
from tool_cases import Json, Setting

CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parent / "data" / "bash_tool_cases.json").read_text("utf-8"))
}
CONFINED = "a command sees nothing outside of the project"
KILLED = "a command that takes too long is killed, as Claude Code does without background tasks"
CUT = "head and tail of a long output are kept, and no file is written"
NO_BACKGROUND = "no process outlives its call"
NO_KEY = "the environment is made from nothing"
SLEEP = "a command may begin with sleep"

NOT_THERE = "/bin/bash: line 1: {}: No such file or directory"
DIFFERENCES: Dict[Tuple[str, int], Tuple[Any, bool, str]] = {
    ("bash-background", 2): ("This command uses the `&` background operator, …", True, SLEEP),
    ("bash-background", 0): ("Commands can't run in the background here: …", True, NO_BACKGROUND),
    ("bash-children", 2): ("…open", False, "what the child writes comes before or after"),
    ("bash-cwd", 6): (f"Exit code 1\n{NOT_THERE.format('cd: $O')}", True, CONFINED),
    ("bash-env", 0): ("Exit code 1\nHOME\nPATH\nCLAUDECODE\nSHELL", True, NO_KEY),
    ("bash-env", 1): ("/dev/null", False, NO_KEY),
    ("bash-output", 0): ("1\n2\n3\n … 88,894 bytes left out …\n20000", False, CUT),
    ("bash-output", 1): ("xxx … 80,000 bytes left out …xxx", False, CUT),
    ("bash-timeout", 0): ("Exit code 143\nCommand timed out after 1s\nstart", True, KILLED),
    ("outside-bash", 0): ("Exit code 1\ncat: $O/secret.txt: No such file or directory", True, CONFINED),
    ("outside-bash", 1): ("Exit code 1\ncat: link.txt: No such file or directory", True, CONFINED),
    ("outside-bash", 2): (f"Exit code 1\n{NOT_THERE.format('$O/n.txt')}", True, CONFINED),
    ("outside-bash", 3): (f"Exit code 1\n{NOT_THERE.format('cd: $O')}", True, CONFINED),
    ("outside-bash", 5): (
        "Exit code 1\nrm: cannot remove '$O/secret.txt': No such file or directory",
        True,
        CONFINED,
    ),
}


def pattern(recorded: Any) -> str:
    """ "…" stands for text that was left out; of a long text, only the beginning is compared."""
    if isinstance(recorded, dict):
        return re.escape(recorded["head"]) + ".*" + re.escape(recorded["tail"])
    return ".*".join(re.escape(part) for part in re.split(" ?…", recorded))


@pytest.mark.parametrize("name", sorted(CASES))
async def test_bash_answers_as_recorded(name: str, tmp_path: Path) -> None:
    case: Json = CASES[name]
    setting = Setting(tmp_path, case)
    shell = Shell(setting.project)
    for number, step in enumerate(case["steps"]):
        if "write" in step:
            setting.make(step["write"], step["content"])
            continue
        result = await shell.run(**setting.real(step["input"]))
        found = setting.shown(str(result.content))
        recorded = (step["result"], step["is_error"], "")
        expected, is_error, reason = DIFFERENCES.get((name, number), recorded)
        assert re.fullmatch(pattern(expected), found, re.DOTALL), (step, found, reason)
        assert result.is_error == is_error, step
    shell.close()
