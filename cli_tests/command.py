"""Plays a recorded case to Claude Code's own command. No request of it leaves the machine."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.metadata import files
from pathlib import Path
from typing import Any, Dict, Optional

from agent_cases import TASK, Outcome, Result, Stage, recorded

PACKAGE = "claude-agent-sdk"
_MODEL = "claude-sonnet-5-5"
_SECONDS = 180
# It stands for tools that are searched for, and is none.
_PLACEHOLDER = "DeferredToolPlaceholder"
# What the command itself puts behind the results of tools.
_REMINDER = re.compile(r"(?<=.)\n\n<system-reminder>.*</system-reminder>\Z", re.DOTALL)
_DEAD_END = "http://127.0.0.1:9"
_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "test-key",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "SHELL": "/bin/bash",
    # Whatever is not on loopback is a dead end.
    "HTTP_PROXY": _DEAD_END,
    "HTTPS_PROXY": _DEAD_END,
    "NO_PROXY": "127.0.0.1",
}


def command_path() -> Path:
    """The command in the installed wheel. Raises RuntimeError where it has none."""
    for file in files(PACKAGE) or ():
        if file.name == "claude" and file.parent.name == "_bundled":
            return Path(str(file.locate()))
    raise RuntimeError(f"The wheel of {PACKAGE} for this machine has no command.")


def version_of(command: Path) -> str:
    """Such as "2.1.332"."""
    done = subprocess.run(
        [str(command), "--version"], env=_environment(Path("/nonexistent")), capture_output=True, timeout=60
    )
    return done.stdout.decode().split()[0]


def play_to_command(command: Path, case: Dict[str, Any], folder: Path) -> Outcome:
    """Plays a case to the command."""
    stage = Stage(folder, case)
    home = stage.setting.home
    home.mkdir(exist_ok=True)
    flags = [stage.setting.real(flag) for flag in case["flags"]]
    # The model of the agent's file would lose against the option.
    flags += () if "model" in case else ("--model", _MODEL)
    with stage.server() as server:
        subprocess.run(
            [str(command), "-p", TASK, "--agent", "w", *flags],
            cwd=str(stage.setting.project),
            env={**_environment(home), "ANTHROPIC_BASE_URL": server.base_url, **case.get("env", {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
        # It tries a form of messages first that not every server takes.
        usual = [one for one in server.requests if _is_usual(one.body)]
        outcome = stage.outcome(usual)._replace(requests=len(server.bills))
        return _cleaned(outcome, recorded(case))


def _environment(home: Path) -> Dict[str, str]:
    config = str(home / ".claude")
    return {**_ENVIRONMENT, "PATH": os.environ["PATH"], "HOME": str(home), "CLAUDE_CONFIG_DIR": config}


def _is_usual(body: Dict[str, Any]) -> bool:
    return all(message["role"] != "system" for message in body.get("messages", ()))


def _cleaned(outcome: Outcome, record: Outcome) -> Outcome:
    results = {
        place: Result(_without_reminder(one.content, record.results.get(place)), one.is_error)
        for place, one in outcome.results.items()
    }
    offered = tuple(name for name in outcome.offered if name != _PLACEHOLDER)
    return outcome._replace(offered=offered, results=results)


def _without_reminder(content: Any, record: Optional[Result]) -> Any:
    if not isinstance(content, str) or not _REMINDER.search(content):
        return content
    text = _REMINDER.sub("", content)
    # The command strips what it puts a reminder behind.
    is_stripped = record is not None and isinstance(record.content, str) and record.content.rstrip() == text
    return record.content if record is not None and is_stripped else text
