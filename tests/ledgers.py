"""Helpers of the ledger's tests: executions, and the lines that they become."""

import json
from dataclasses import fields
from datetime import datetime, timezone
from hashlib import sha256

from claude_force.errors import OverloadedError
from claude_force.ledger.entry import Entry
from claude_force.types import AgentResult, Attempt, Call, CallCompleted, Usage

STARTED = 1_790_000_000.0
SECRET = "the task's own words"


def executed(number=0, agent="expert", seconds=1.5, wait=0.25, **result):
    """An execution answered after `seconds`, with one attempt that starts after `wait` seconds."""
    usual = {
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
    return CallCompleted(
        call, AgentResult(agent, True, "The answer", **{**usual, **result}), STARTED + number
    )


def failed(number=0, error=None, **more):
    """An execution that ended with an error."""
    error = error or OverloadedError("no room", status=529)
    result = {"usage": Usage(), "cost": None, "error": error, "stop_reason": None, **more}
    one = executed(number, **result)
    one.result.success = False
    return one


def entry_of(executed, run):
    """The entry of an execution."""
    result, call = executed.result, executed.call
    usage = Usage() if result.cached or result.shared else result.usage
    return Entry(
        timestamp=datetime.fromtimestamp(executed.started + result.duration, timezone.utc).isoformat(),
        agent_name=call.agent_name,
        task_hash=sha256(call.task.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        success=result.success,
        execution_time_ms=round(result.duration * 1000, 3),
        model=result.model or call.model,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        estimated_cost=result.cost,
        error_type=type(result.error).__name__ if result.error else None,
        workflow_name=executed.workflow_name,
        workflow_position=executed.workflow_position,
        run=run,
        cached=result.cached,
        shared=result.shared,
        attempts=result.attempts,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_write_tokens=usage.cache_creation_input_tokens,
        stop_reason=result.stop_reason,
        request_id=result.request_id,
        status=getattr(result.error, "status", None),
        wait_ms=round(result.wait * 1000, 3),
        service_time_ms=round(result.service * 1000, 3),
        saved_cost=result.saved_cost,
        prompt_cache_saving=result.prompt_cache_saving,
        truncated=result.truncated,
        refused=result.refused,
        empty=result.empty,
        cost_at_most=result.cost_at_most if result.cost is None else 0.0,
        timeline=tuple(
            (round(one.began * 1000, 3), round(one.ended * 1000, 3), one.window, one.error)
            for one in result.timeline
        ),
    )


# Never left out: their default differs from absence, or older readers expect them.
ALWAYS = {"wait_ms", "service_time_ms", "attempts", "timestamp", "agent_name", "task_hash", "success"} | {
    *("execution_time_ms", "model", "input_tokens", "output_tokens", "total_tokens", "estimated_cost"),
    *("error_type", "workflow_name", "workflow_position"),
}


def line_of(entry):
    """The JSON line of an entry without its newline; fields with their default are left out."""
    left_out = {one.name for one in fields(Entry) if getattr(entry, one.name) == one.default} - ALWAYS
    return json.dumps({name: value for name, value in entry.fields().items() if name not in left_out})


def lines(folder):
    """All lines of a ledger, oldest file first, as bytes without their newlines."""
    older = sorted(folder.glob("executions-*.jsonl"))
    files = [*older, folder / "executions.jsonl"]
    return [line for file in files if file.exists() for line in file.read_bytes().splitlines()]


def written(folder):
    """The decoded lines of a ledger."""
    return [json.loads(line) for line in lines(folder)]
