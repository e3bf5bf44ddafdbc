"""The ledger: seconds and memory to sum up many executions, and what recording one costs.

A ledger of that many lines is made in a temporary folder and then read. Memory is the maximum of the reading
process. Recording runs in a process of its own: `python -m benchmarks.ledger FOLDER`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List

from claude_force.ledger.entry import Entry
from claude_force.ledger.rotating_log import RotatingLog
from claude_force.performance_tracker import PerformanceTracker
from claude_force.types import AgentResult, Attempt, Call, CallCompleted, Usage

from .part import Found, Part, spread, table
from .processes import answered, say

LINES, RECORDED, ROUNDS = 1_000_000, 20_000, 2
FILE_BYTES = 64_000_000
BLOCK = 5000
# What the tracker leaves out where it says nothing.
LEFT_OUT = {"cached", "shared", "cache_read_tokens", "cache_write_tokens", "stop_reason", "request_id"} | {
    *("status", "saved_cost", "prompt_cache_saving", "timeline")
}


_READ = """
import json, resource, sys, time
from pathlib import Path
from claude_force.ledger.reader import read_summary
began = time.perf_counter()
summary = read_summary(Path(sys.argv[1])).as_dict()
seconds = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_SELF)
cpu, megabytes = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
print(json.dumps(dict(seconds=seconds, cpu=cpu, megabytes=megabytes, executions=summary["executions"])))
"""


def entries(count: int) -> Any:
    """Of 20 agents and 3 models over a month; a fifth from the cache, one in thirty an error."""
    chance, now = random.Random(1), 1_790_000_000.0
    for number in range(count):
        now += chance.expovariate(count / 2_600_000)
        wall = chance.lognormvariate(7, 1)
        cached, bad = chance.random() < 0.2, chance.random() < 0.03
        yield Entry(
            timestamp=datetime.fromtimestamp(now, timezone.utc).isoformat(),
            agent_name=f"agent-{chance.randrange(20)}",
            task_hash=f"{chance.getrandbits(64):016x}",
            success=not bad,
            execution_time_ms=round(wall, 3),
            model=f"claude-model-{chance.randrange(3)}",
            input_tokens=0 if cached else 1234,
            output_tokens=0 if cached else 321,
            total_tokens=0 if cached else 1555,
            estimated_cost=0.0 if cached else 0.0012345,
            error_type="OverloadedError" if bad else None,
            run=f"{number // 20_000:016x}",
            cached=cached,
            attempts=0 if cached else 1,
            cache_read_tokens=0 if cached else 1000,
            stop_reason="end_turn",
            request_id=f"req_{chance.getrandbits(96):024x}",
            wait_ms=round(wall if cached else wall / 10, 3),
            service_time_ms=0.0 if cached else round(wall * 0.9, 3),
            saved_cost=0.0012345 if cached else None,
            prompt_cache_saving=None if cached else 0.0005,
            timeline=() if cached else ((round(wall / 10, 3), round(wall, 3), 10, None),),
        )


def line_of(entry: Entry) -> str:
    """As the tracker writes it."""
    kept = {name: value for name, value in entry.fields().items() if value or name not in LEFT_OUT}
    return json.dumps(kept, separators=(",", ":"))


def fill(folder: Path, count: int) -> int:
    """Returns its bytes."""
    journal, lines = RotatingLog(folder, FILE_BYTES), []
    for entry in entries(count):
        lines.append(line_of(entry))
        if len(lines) == BLOCK:
            journal.append(lines)
            lines = []
    if lines:
        journal.append(lines)
    return sum(file.stat().st_size for file in folder.glob("*.jsonl"))


def read(folder: Path) -> Dict[str, float]:
    command = [sys.executable, "-c", _READ, str(folder)]
    found: Dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def executions(count: int) -> List[CallCompleted]:
    call = Call("expert", ("You help.",), "x" * 400, "claude-sonnet-5-5", 1024)
    return [
        CallCompleted(
            call,
            AgentResult(
                "expert",
                True,
                "y" * 400,
                usage=Usage(300, 100, 0, 1000),
                model="claude-sonnet-5-5",
                cost=0.0012345,
                duration=1.25,
                attempts=1,
                stop_reason="end_turn",
                request_id=f"req_{number:024x}",
                prompt_cache_saving=0.0005,
                timeline=(Attempt(0.25, 1.25, 10),),
            ),
            1_790_000_000.0,
        )
        for number in range(count)
    ]


def record(folder: Path, count: int) -> Dict[str, float]:
    """Microseconds of CPU an execution; as calls end, so that the writing thread keeps up."""
    tracker, made = PerformanceTracker(folder), executions(count)
    cpu, on_loop = time.process_time(), 0.0
    for number, one in enumerate(made):
        before = time.thread_time()
        tracker.record(one)
        on_loop += time.thread_time() - before
        if number % 200 == 199:
            tracker.flush()
    tracker.close()
    return {"cpu_us": (time.process_time() - cpu) / count * 1e6, "caller_us": on_loop / count * 1e6}


def measure() -> Found:
    recorded: List[Dict[str, float]] = []
    read_: List[Dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        say(f"making {LINES:,} lines")
        size = fill(Path(name, "ledger"), LINES)
        for number in range(ROUNDS):
            say(f"round {number + 1}")
            recorded.append(answered("-m", "benchmarks.ledger", str(Path(name, f"recorded-{number}"))))
            read_.append(read(Path(name, "ledger")))
    return {"lines": LINES, "bytes": size, "rounds": ROUNDS, "recorded": recorded, "read": read_}


def page(found: Found) -> Iterator[str]:
    recorded = found["recorded"]
    yield (
        f"Recording takes {spread([one['cpu_us'] for one in recorded], '{:.1f}')} us of CPU an execution, "
        f"of which {spread([one['caller_us'] for one in recorded], '{:.1f}')} us before `record()` returns."
    )
    yield (
        f"Summing up {found['lines']:,} lines of {found['bytes'] / 1e6:,.0f} MB, {found['rounds']} rounds:"
    )
    heads = ("seconds", "CPU seconds", "resident MB at most")
    cells = [spread([one[key] for one in found["read"]], "{:.1f}") for key in ("seconds", "cpu", "megabytes")]
    yield from ("", *table(heads, [cells]))


PART = Part("ledger", "A million executions in the ledger", measure, page, versions=())


if __name__ == "__main__":
    print(json.dumps(record(Path(sys.argv[1]), RECORDED)))
