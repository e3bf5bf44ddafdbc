"""What the tests of the ledger share: executions as the engine hands them over, and what became of them."""

import json

from claude_force.errors import OverloadedError
from claude_force.types import AgentResult, Attempt, Call, Executed, Usage

STARTED = 1_790_000_000.0
SECRET = "the task's own words"


def executed(number=0, agent="expert", seconds=1.5, wait=0.25, **result):
    """One that was answered after `seconds`, of which `wait` before its only attempt."""
    fields = {
        "usage": Usage(100 + number, 50, 10, 20),
        "model": "claude-sonnet-5-5",
        "cost": 0.001,
        "attempts": 1,
        "duration": seconds,
        "stop_reason": "end_turn",
        "request_id": f"req_{number}",
        "timeline": (Attempt(wait, seconds, 10),),
    }
    call = Call(agent, ("You help.",), f"{SECRET} {number}", "claude-sonnet-5-5", 100)
    return Executed(call, AgentResult(agent, True, "The answer", **{**fields, **result}), STARTED + number)


def failed(number=0, error=None, **more):
    """One that ended in an error."""
    error = error or OverloadedError("no room", status=529)
    result = {"usage": Usage(), "cost": None, "error": error, "stop_reason": None, **more}
    one = executed(number, **result)
    one.result.success = False
    return one


def lines(folder):
    """All lines of a ledger, oldest file first, as bytes without their newlines."""
    older = sorted(folder.glob("executions-*.jsonl"))
    files = [*older, folder / "executions.jsonl"]
    return [line for file in files if file.exists() for line in file.read_bytes().splitlines()]


def written(folder):
    """What these lines hold."""
    return [json.loads(line) for line in lines(folder)]
