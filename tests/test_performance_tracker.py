"""PerformanceTracker: records are complete, and recording never blocks; metrics and exports."""

import asyncio
import json
import logging
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import SECRET, entry_of, executed, failed, line_of, lines, written

from claude_force import performance_tracker
from claude_force.errors import InvalidOptionError, OverloadedError
from claude_force.ledger import rotating_log
from claude_force.ledger.encoder import encode_line
from claude_force.ledger.entry import decode_lines
from claude_force.performance_tracker import BATCH, PerformanceTracker
from claude_force.storage import locks
from claude_force.types import AgentResult, Attempt, Call, CallCompleted, Usage

TESTS = Path(__file__).parent
seconds, money, counts = st.floats(0, 1e5), st.none() | st.floats(0, 100), st.integers(0, 10**6)
words = st.text(max_size=8)


@st.composite
def executions(draw):
    """Executions with any outcome and any text."""
    error = draw(st.none() | st.builds(OverloadedError, words, status=st.none() | st.integers(400, 599)))
    attempts = st.builds(Attempt, seconds, seconds, st.integers(1, 9), st.none() | words)
    result = AgentResult(
        draw(words),
        error is None,
        error=error,
        usage=Usage(*(draw(counts) for _ in range(5))),
        timeline=tuple(draw(st.lists(attempts, max_size=3))),
        **{name: draw(money) for name in ("cost", "saved_cost", "prompt_cache_saving")},
        **{name: draw(st.booleans()) for name in ("cached", "shared")},
        **{name: draw(st.none() | words) for name in ("model", "stop_reason", "request_id")},
        attempts=draw(counts),
        duration=draw(seconds),
    )
    call = Call(draw(words), ("You help.",), draw(words), draw(words), 100)
    return CallCompleted(
        call, result, 1.79e9 + draw(seconds), draw(st.none() | words), draw(st.none() | st.integers(1, 9))
    )


ROOT = TESTS.parent
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and signals of POSIX")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".claude" / "metrics"


@pytest.fixture
def tracker(folder):
    tracker = PerformanceTracker(folder)
    yield tracker
    tracker.close()


def python(program, *arguments, **options):
    """Starts a process that can import the tests' modules."""
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        **options,
    )


def wait_for_lines(folder, count):
    """Returns when another thread has written exactly `count` lines."""
    deadline = time.monotonic() + 30
    while len(lines(folder)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestRecording:
    def test_writes_one_line_per_execution(self, tracker, folder):
        one = executed(7)
        tracker.record(one)
        tracker.flush()
        (line,) = written(folder)
        assert line == json.loads(line_of(entry_of(one, line["run"])))
        assert line["timeline"] == [[250.0, 1500.0, 10, None]]

    @given(executions())
    def test_encodes_any_execution(self, one):
        line = encode_line(one, "run")
        assert line.isascii()
        assert json.loads(line) == json.loads(line_of(entry_of(one, "run")))

    @pytest.mark.parametrize("usd", [float("nan"), float("inf")])
    def test_nan_cost_is_unknown(self, usd):
        ((row,), _) = decode_lines([encode_line(executed(cost=usd, saved_cost=usd), "run").encode()])
        assert (row["estimated_cost"], row["saved_cost"]) == (None, None)

    def test_writes_all_older_fields(self, tracker, folder):
        tracker.record(failed())
        tracker.flush()
        (line,) = written(folder)
        names = "timestamp agent_name task_hash success execution_time_ms model input_tokens output_tokens "
        more = "total_tokens estimated_cost error_type workflow_name workflow_position"
        assert set((names + more).split()) <= set(line)
        assert (line["estimated_cost"], line["error_type"], line["status"]) == (None, "OverloadedError", 529)

    def test_zero_differs_from_unknown(self, tracker, folder):
        tracker.record(executed(cached=True, cost=0.0, saved_cost=0.0, prompt_cache_saving=0.0))
        tracker.record(executed(cached=True, cost=0.0, saved_cost=None))
        tracker.flush()
        known, unknown = written(folder)
        assert (known["saved_cost"], known["prompt_cache_saving"]) == (0.0, 0.0)
        assert unknown.get("saved_cost") is None

    def test_writes_no_text_of_calls(self, tracker, folder):
        tracker.record(executed())
        tracker.record(failed())
        tracker.flush()
        text = (folder / "executions.jsonl").read_text(encoding="utf-8")
        assert not any(word in text for word in (SECRET, "You help", "The answer", "no room"))

    def test_writes_without_a_flush(self, tracker, folder):
        tracker.record(executed())
        wait_for_lines(folder, 1)

    def test_full_batch_is_written_at_once(self, folder, monkeypatch):
        monkeypatch.setattr(performance_tracker, "LINGER_SECONDS", 3600)
        tracker = PerformanceTracker(folder)
        for number in range(BATCH):
            tracker.record(executed(number))
        wait_for_lines(folder, BATCH)

    def test_records_after_close(self, tracker, folder):
        for number in range(3):
            tracker.record(executed(number))
            tracker.close()
        assert [line["request_id"] for line in written(folder)] == ["req_0", "req_1", "req_2"]

    def test_threads_record_and_flush(self, tracker, folder):
        def work(thread):
            for number in range(200):
                tracker.record(executed(1000 * thread + number))
                if number % 50 == 0:
                    tracker.flush()

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tracker.flush()
        assert {line["request_id"] for line in written(folder)} == {
            f"req_{1000 * thread + number}" for thread in range(6) for number in range(200)
        }

    async def test_event_loop_never_waits(self, tracker, folder):
        folder.mkdir(parents=True)
        holder = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        assert locks.try_lock(holder)
        for number in range(3 * BATCH):
            tracker.record(executed(number))
            await asyncio.sleep(0)
        assert lines(folder) == []
        os.close(holder)
        tracker.flush()
        assert len(lines(folder)) == 3 * BATCH

    @posix_only
    def test_files_are_owner_only(self, folder):
        before = os.umask(0)
        try:
            tracker = PerformanceTracker(folder)
            tracker.record(executed())
            tracker.close()
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
        assert modes == {"metrics": 0o700, "executions.jsonl": 0o600, "lock": 0o600}


class TestFailure:
    def test_unwritable_folder_warns_once(self, tmp_path, caplog):
        (tmp_path / "metrics").write_text("a file in its place", encoding="utf-8")
        tracker = PerformanceTracker(tmp_path / "metrics")
        with caplog.at_level(logging.WARNING):
            for number in range(3):
                tracker.record(executed(number))
                tracker.flush()
            tracker.close()
        warnings = [record.getMessage() for record in caplog.records]
        assert len(warnings) == 1 and "executions are not recorded in" in warnings[0]

    def test_unencodable_one_stops_no_other(self, tracker, folder, caplog):
        impossible = executed(duration=float("nan"))
        with caplog.at_level(logging.ERROR):
            for one in (executed(0), impossible, executed(1)):
                tracker.record(one)
            tracker.flush()
        tracker.record(executed(2))
        tracker.close()
        assert [line["request_id"] for line in written(folder)] == ["req_0", "req_1", "req_2"]
        assert "not recorded" in caplog.text

    def test_writes_inline_without_thread(self, tracker, folder, monkeypatch):
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        for number in range(2):
            tracker.record(executed(number))
            assert len(lines(folder)) == number + 1

    def test_gives_up_on_a_stuck_lock(self, tracker, folder, monkeypatch, caplog):
        monkeypatch.setattr(rotating_log, "_LOCK_TIMEOUT_SECONDS", 0.01)
        folder.mkdir(parents=True)
        holder = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            assert locks.try_lock(holder)
            tracker.record(executed())
            tracker.flush()
        finally:
            os.close(holder)
        assert len(lines(folder)) == 1
        assert "could not lock the ledger" in caplog.text

    def test_torn_line_hides_no_other(self, tracker, folder):
        folder.mkdir(parents=True)
        (folder / "executions.jsonl").write_bytes(b'{"timestamp": "2026-')
        tracker.record(executed())
        tracker.flush()
        torn, whole = lines(folder)
        assert torn == b'{"timestamp": "2026-' and json.loads(whole)["agent_name"] == "expert"
        summary = tracker.get_performance_summary()
        assert (summary["executions"], summary["skipped_lines"]) == (1, 1)


class TestRotation:
    def test_rotates_a_full_file(self, folder):
        tracker = PerformanceTracker(folder, max_file_mb=0.002)
        for number in range(20):
            tracker.record(executed(number))
            tracker.flush()
        assert len(list(folder.glob("executions-*.jsonl"))) > 3
        assert all(file.stat().st_size <= 2000 for file in folder.glob("*.jsonl"))
        assert [line["request_id"] for line in written(folder)] == [f"req_{number}" for number in range(20)]
        assert tracker.get_performance_summary()["executions"] == 20

    def test_writes_lines_over_the_limit(self, folder):
        tracker = PerformanceTracker(folder, max_file_mb=0.0001)
        for number in range(3):
            tracker.record(executed(number))
            tracker.flush()
        assert len(written(folder)) == 3

    def test_keeps_so_many_full_files(self, folder):
        tracker = PerformanceTracker(folder, max_file_mb=0.002, keep_files=2)
        for number in range(30):
            tracker.record(executed(number))
            tracker.flush()
        found = [line["request_id"] for line in written(folder)]
        assert len(list(folder.glob("executions-*.jsonl"))) == 2
        assert found == [f"req_{number}" for number in range(30)][-len(found) :]

    def test_numbers_continue(self, folder):
        folder.mkdir(parents=True)
        for name in ("executions-000009.jsonl", "executions-10.jsonl", "executions-x.jsonl"):
            (folder / name).touch()
        tracker = PerformanceTracker(folder, max_file_mb=0.0001)
        for number in range(2):
            tracker.record(executed(number))
            tracker.flush()
        assert (folder / "executions-000011.jsonl").exists()


_WRITE_MANY = """
import sys
from pathlib import Path
from ledgers import executed
from claude_force.performance_tracker import PerformanceTracker

folder, first, count, flush_each, max_mb = Path(sys.argv[1]), *map(float, sys.argv[2:])
tracker = PerformanceTracker(folder, max_file_mb=max_mb)
for number in range(int(first), int(first + count)):
    tracker.record(executed(number))
    if (number + 1) % flush_each == 0:
        tracker.flush()
        print(number + 1 - int(first), flush=True)
{end}
"""


def numbers(folder):
    """The numbers of the executions in a ledger, and the number of torn lines."""
    found, torn = [], 0
    for line in lines(folder):
        try:
            found.append(int(json.loads(line)["request_id"][4:]))
        except ValueError:
            torn += 1
    return found, torn


@posix_only
class TestProcesses:
    def test_processes_lose_no_line(self, folder, soak):
        """Across some rotations."""
        each = 20_000 if soak else 1500
        megabytes = 8 if soak else 0.6
        writers = [
            python(
                _WRITE_MANY.format(end="tracker.close()"),
                folder,
                each * k,
                each,
                250,
                megabytes,
                stdout=subprocess.DEVNULL,
            )
            for k in range(8)
        ]
        assert [writer.wait() for writer in writers] == [0] * 8
        found, torn = numbers(folder)
        assert torn == 0 and sorted(found) == list(range(8 * each))
        assert len(list(folder.glob("executions-*.jsonl"))) > 3

    def test_readers_see_each_line_once(self, folder):
        """Across rotations."""
        writer = python(
            _WRITE_MANY.format(end="tracker.close()"), folder, 0, 1500, 100, 0.05, stdout=subprocess.PIPE
        )
        tracker = PerformanceTracker(folder)
        with writer:
            for line in writer.stdout:
                seen = tracker.get_performance_summary()
                assert seen["executions"] >= int(line)
                assert seen["tokens"]["output"] == 50 * seen["executions"]
        assert tracker.get_performance_summary()["executions"] == 1500

    def test_kill_loses_only_own_unflushed(self, folder, soak):
        each, endless, random_ = 20_000 if soak else 3000, 10**6, random.Random(5)
        program = _WRITE_MANY.format(end="tracker.close()")
        writers = [
            python(program, folder, endless * k, endless if k % 2 else each, 100, 1.0, stdout=subprocess.PIPE)
            for k in range(8)
        ]
        flushed = []
        for k, writer in enumerate(writers):
            with writer:
                stop_at = random_.randrange(each) if k % 2 else endless
                for line in writer.stdout:
                    seen = int(line)
                    if seen >= stop_at:
                        writer.send_signal(signal.SIGKILL)
                        break
            assert writer.returncode == (-signal.SIGKILL if k % 2 else 0)
            flushed += range(endless * k, endless * k + seen)
        found, torn = numbers(folder)
        assert len(found) == len(set(found)) and set(flushed) <= set(found)
        assert torn <= 4

    def test_kill_loses_two_batches_at_most(self, folder):
        """The batch being written and the next one, if the disk keeps up."""
        program = """
import sys
from pathlib import Path
from ledgers import executed
from claude_force import performance_tracker
from claude_force.performance_tracker import BATCH, PerformanceTracker

performance_tracker.LINGER_SECONDS = 3600
tracker = PerformanceTracker(Path(sys.argv[1]))
for number in range(10**6):
    while len(tracker._pending) >= BATCH:
        pass
    tracker.record(executed(number))
    print(number + 1, flush=True)
"""
        writer = python(program, folder, stdout=subprocess.PIPE)
        with writer:
            for line in writer.stdout:
                recorded = int(line)
                if recorded >= 5 * BATCH + 17:
                    writer.send_signal(signal.SIGKILL)
                    break
        found, _ = numbers(folder)
        assert found == list(range(len(found))) and len(found) >= recorded - 2 * BATCH

    @pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "1 / 0"])
    def test_exit_loses_nothing(self, folder, end):
        writer = python(_WRITE_MANY.format(end=end), folder, 0, 700, 10**6, 64, stderr=subprocess.DEVNULL)
        assert writer.wait() == {"": 0, "raise SystemExit(3)": 3, "1 / 0": 1}[end]
        assert len(written(folder)) == 700

    def test_records_during_exit(self, folder):
        end = "import atexit; atexit.register(lambda: [tracker.record(executed(n)) for n in (3, 4)])"
        assert python(_WRITE_MANY.format(end=end), folder, 0, 3, 10**6, 64).wait() == 0
        assert len(written(folder)) == 5

    def test_fork_writes_only_its_own(self, folder):
        end = """
import os
child = os.fork()
tracker.record(executed(100 if child else 200))
if child == 0:
    tracker.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
tracker.close()
"""
        assert (
            python(_WRITE_MANY.format(end=end), folder, 0, 50, 10**6, 64, stderr=subprocess.DEVNULL).wait()
            == 0
        )
        found = written(folder)
        assert sorted(int(line["request_id"][4:]) for line in found) == [*range(50), 100, 200]
        assert len({line["run"] for line in found}) == 2

    def test_multiprocessing_loses_nothing(self, folder):
        end = """
import multiprocessing
def work():
    tracker.record(executed(200))
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
assert child.exitcode == 0
"""
        assert (
            python(_WRITE_MANY.format(end=end), folder, 0, 5, 10**6, 64, stderr=subprocess.DEVNULL).wait()
            == 0
        )
        assert sorted(int(line["request_id"][4:]) for line in written(folder)) == [*range(5), 200]


class TestMetrics:
    @pytest.fixture
    def filled(self, tracker):
        tracker.record(executed(1, agent="a", cost=0.25))
        tracker.record(executed(2, agent="b", cost=None))
        tracker.record(executed(3, agent="a", cached=True, cost=0.0, saved_cost=0.5, attempts=0, timeline=()))
        tracker.record(failed(4, agent="a"))
        return tracker

    def test_sees_recent_executions(self, filled):
        assert filled.get_performance_summary()["executions"] == 4

    def test_limits_hours(self, filled):
        assert filled.get_performance_summary(hours=1)["executions"] == 0

    @pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
    def test_rejects_invalid_hours(self, filled, hours):
        with pytest.raises(InvalidOptionError, match="hours"):
            filled.get_performance_summary(hours)

    def test_metrics_by_agent(self, filled):
        assert {name: of["executions"] for name, of in filled.get_agent_performance().items()} == {
            "a": 3,
            "b": 1,
        }
        one = filled.get_agent_performance("a")
        assert (one["executions"], one["error_rate"], one["cache_hit_rate"]) == (3, 1 / 3, 1 / 3)
        assert list(one["by_model"]) == ["claude-sonnet-5-5"]

    def test_unknown_agent_has_no_executions(self, filled):
        one = filled.get_agent_performance("nobody")
        assert (one["executions"], one["error_rate"], one["wall_ms"]["p50"]) == (0, None, None)

    def test_cost_counts_unknown_prices(self, filled):
        money = filled.get_cost_breakdown()
        assert money["total"] == {
            "cost_usd": 0.25,
            "unknown_price": 1,
            "unknown_at_most_usd": 0.0,
            "saved_usd": 0.5,
            "unknown_saving": 0,
            "prompt_cache_saving_usd": 0.0,
        }
        assert money["by_agent"]["b"]["unknown_price"] == 1
        assert set(money) == {"total", "by_agent", "by_model", "by_workflow", "by_day"}

    def test_missing_ledger_is_empty(self, tmp_path):
        tracker = PerformanceTracker(tmp_path / "nothing")
        assert tracker.get_performance_summary()["executions"] == 0
        assert tracker.get_cost_breakdown()["total"]["cost_usd"] == 0
        assert not (tmp_path / "nothing").exists()

    def test_exports_json(self, filled, tmp_path):
        filled.export_performance_metrics(tmp_path / "out.json")
        found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert [one["agent_name"] for one in found] == ["a", "b", "a", "a"]
        assert found[3]["error_type"] == "OverloadedError" and found[0]["timeline"] == [
            [250.0, 1500.0, 10, None]
        ]

    def test_exports_csv(self, filled, tmp_path):
        import csv

        filled.export_performance_metrics(str(tmp_path / "out.csv"), format="csv")
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["estimated_cost"] for row in rows] == ["0.25", "", "0.0", ""]
        assert [row["success"] for row in rows] == ["true", "true", "true", "false"]
        assert json.loads(rows[0]["timeline"]) == [[250.0, 1500.0, 10, None]]

    def test_rejects_other_formats(self, filled, tmp_path):
        with pytest.raises(InvalidOptionError, match="json, csv"):
            filled.export_performance_metrics(tmp_path / "out", format="xml")
        assert not (tmp_path / "out").exists()
