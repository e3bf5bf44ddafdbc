"""The ledger: decoding lines, reading files, and computing metrics."""

import json
import math
import os
import pickle
import time
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ledgers import SECRET, executed, line_of

from claude_force.errors import InvalidOptionError
from claude_force.ledger.ddsketch import EXACT_UP_TO, RELATIVE_ERROR, Distribution
from claude_force.ledger.encoder import encode_line
from claude_force.ledger.entry import FIELD_NAMES, Entry, decode_lines, to_entry
from claude_force.ledger.metrics import Summary, advice_for
from claude_force.ledger.reader import (
    LedgerReader,
    parse_since,
    parse_time,
    read_summary,
)
from claude_force.ledger.saturation import TimeAtConcurrencyLimit
from claude_force.ledger.turns import join_turns
from claude_force.types import ToolCall, Turn

NOW = 1_790_000_000.0


def iso(unix):
    return datetime.fromtimestamp(unix, timezone.utc).isoformat()


def write(folder, *texts, name="executions.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab") as file:
        for text in texts:
            file.write(text if isinstance(text, bytes) else text.encode() + b"\n")


def nearest_rank(values, share):
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1] if values else None


def bytes_of(value):
    """The size of a value with all that it holds."""
    return len(pickle.dumps(value))


milliseconds = st.floats(0, 1e7).map(lambda value: round(value, 3))
shares = st.floats(0, 1)
counts = st.integers(0, 10**6)
money = st.none() | st.floats(0, 100)
names = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def entries(draw):
    success = draw(st.booleans())
    attempts_of_run = draw(
        st.lists(st.tuples(milliseconds, milliseconds, st.integers(1, 9), st.none() | names), max_size=3)
    )
    attempts = len(attempts_of_run)
    return Entry(
        timestamp=iso(NOW + draw(st.integers(0, 300_000))),
        agent_name=draw(st.sampled_from(["a", "b", "ü"])),
        task_hash="0123456789abcdef",
        success=success,
        execution_time_ms=draw(milliseconds),
        model=draw(st.sampled_from([None, "sonnet", "haiku"])),
        input_tokens=draw(counts),
        output_tokens=draw(counts),
        estimated_cost=draw(money),
        error_type=None if success else draw(st.sampled_from(["SilenceError", "OverloadedError", None])),
        workflow_name=draw(st.sampled_from([None, "review"])),
        run=draw(st.sampled_from([None, "one", "two"])),
        cached=draw(st.booleans()),
        shared=draw(st.booleans()),
        attempts=attempts,
        cache_read_tokens=draw(counts),
        cache_write_tokens=draw(counts),
        stop_reason=draw(st.sampled_from([None, "end_turn", "max_tokens", "refusal", "pause_turn"])),
        empty=draw(st.booleans()),
        cost_at_most=draw(money),
        status=draw(st.none() | st.integers(200, 599)),
        wait_ms=draw(milliseconds),
        service_time_ms=draw(milliseconds),
        saved_cost=draw(money),
        prompt_cache_saving=draw(st.none() | st.floats(-10, 10)),
        timeline=tuple((min(trip[:2]), max(trip[:2]), *trip[2:]) for trip in attempts_of_run),
    )


# Lines that no writer made: torn, foreign, with wrong types, or with impossible numbers.
GARBAGE = [
    b"",
    b"   ",
    b"{}",
    b"[]",
    b"null",
    b"1,2",
    b"{},{}",
    b'"}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a"',
    b'{"a": [{}',
    b"{}]},{}",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"timestamp": "yesterday", "agent_name": "a"}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": 1}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "input_tokens": "many"}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "input_tokens": true}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "input_tokens": -1}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "execution_time_ms": 1e999}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "execution_time_ms": NaN}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "prompt_cache_saving": -1e999}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "timeline": [5]}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "timeline": [[2, 1, 1, null]]}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "timeline": [[0, 1e999, 1, null]]}',
    b'{"timestamp": "9999-12-31T23:59:59-23:59", "agent_name": "a", "success": 1}',
    b'{"timestamp": "9999-12-31T23:59:59-23:59", "agent_name": "a"}',
    b'{"timestamp": "0001-01-01T00:00:00+23:59", "agent_name": "a"}',
    b'{"timestamp": "2026-11-25T08:00:00", "agent_name": "a", "execution_time_ms": 1e14}',
]
garbage = st.sampled_from(GARBAGE) | st.binary(max_size=40).filter(
    lambda line: b"\n" not in line and not line.lstrip().startswith(b"{")
)


class TestLines:
    @given(entries())
    def test_round_trips_an_entry(self, entry):
        (row,), skipped = decode_lines([line_of(entry).encode() + b"\n"])
        assert (to_entry(row), skipped) == (entry, 0)

    @given(st.lists(entries().map(lambda one: line_of(one).encode()) | garbage, max_size=12))
    @example([b'{"a": [{}', b"{}]},{}", b"{}"])
    def test_garbage_hides_no_line(self, given_lines):
        rows, skipped = decode_lines([line + b"\n" for line in given_lines])
        one_by_one = [decode_lines([line + b"\n"]) for line in given_lines]
        assert rows == [row for found, _ in one_by_one for row in found]
        assert skipped == sum(skipped for _, skipped in one_by_one)
        blank = sum(not line.strip() for line in given_lines)
        assert len(rows) + skipped + blank == len(given_lines)

    @pytest.mark.parametrize("line", GARBAGE[2:])
    def test_counts_foreign_lines(self, line):
        assert decode_lines([line + b"\n"]) == ([], 1)

    def test_reads_the_older_format(self):
        old = {
            "timestamp": "2024-03-05T06:07:08.123456",
            "agent_name": "code-reviewer",
            "task_hash": "abcdef0123456789",
            "success": True,
            "execution_time_ms": 1234.5,
            "model": "claude-3-haiku",
            "input_tokens": 100,
            "output_tokens": 50,
            "total_tokens": 150,
            "estimated_cost": 0.001,
            "error_type": None,
            "workflow_name": "review",
            "workflow_position": 1,
        }
        (row,), _ = decode_lines([json.dumps(old).encode()])
        entry = to_entry(row)
        assert {name: getattr(entry, name) for name in old} == old
        assert (entry.cached, entry.timeline, entry.saved_cost) == (False, (), None)

    def test_ignores_later_fields(self):
        line = b'{"timestamp": "2026-11-25T08:00:00Z", "agent_name": "a", "later": {"x": [1]}}'
        (row,), skipped = decode_lines([line])
        assert (to_entry(row).agent_name, skipped) == ("a", 0)

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
    def test_time_without_offset_is_local(self, zone, monkeypatch):
        if not hasattr(time, "tzset"):
            pytest.skip("this system has no tzset")
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            (row,), _ = decode_lines([b'{"timestamp": "2026-07-01T12:00:00", "agent_name": "a"}'])
        finally:
            monkeypatch.undo()
            time.tzset()
        hours = {"Europe/Berlin": 10, "America/New_York": 16}[zone]
        assert row["ended"] == datetime(2026, 7, 1, hours, tzinfo=timezone.utc).timestamp()

    def test_checks_the_type_of_each_field(self):
        wrong = {"success": 1, "cached": None, "shared": 0, "timeline": None, "tools": None}
        for name in FIELD_NAMES:
            line = {"timestamp": iso(NOW), "agent_name": "a", name: wrong.get(name, [])}
            if name != "timeline":
                assert decode_lines([json.dumps(line).encode()]) == ([], 1), name


class TestReading:
    def test_reads_files_oldest_first(self, tmp_path):
        for number, name in enumerate(
            ("executions-2.jsonl", "executions-000010.jsonl", "executions-11.jsonl", "executions.jsonl")
        ):
            write(tmp_path, line_of(Entry(iso(NOW + number), f"a{number}")), name=name)
        write(tmp_path, "not ours", name="executions-x.jsonl")
        reading = LedgerReader(tmp_path)
        assert [entry.agent_name for entry in reading.entries()] == ["a0", "a1", "a2", "a3"]
        assert reading.skipped == 0

    def test_reads_a_line_without_newline(self, tmp_path):
        write(tmp_path, line_of(Entry(iso(NOW), "a")).encode())
        assert len(list(LedgerReader(tmp_path).entries())) == 1

    def test_reads_a_file_with_two_names_once(self, tmp_path):
        """The file is rotated after it was opened and before the folder is listed."""
        write(tmp_path, line_of(Entry(iso(NOW), "a")))
        os.link(tmp_path / "executions.jsonl", tmp_path / "executions-000001.jsonl")
        assert len(list(LedgerReader(tmp_path).entries())) == 1

    @given(st.integers(-5, 25))
    def test_since_includes_its_moment(self, tmp_path_factory, since):
        folder = tmp_path_factory.mktemp("ledger")
        write(folder, *(line_of(Entry(iso(NOW + number), "a")) for number in range(20)))
        found = [entry.timestamp for entry in LedgerReader(folder, NOW + since).entries()]
        assert found == [iso(NOW + number) for number in range(20) if number >= since]

    def test_skips_older_files(self, tmp_path):
        day = 86_400
        for number in range(1, 4):
            path = tmp_path / f"executions-{number}.jsonl"
            write(tmp_path, line_of(Entry(iso(NOW + number * day), f"a{number}")), "torn", name=path.name)
            os.utime(path, (NOW + number * day, NOW + number * day))
        reader = LedgerReader(tmp_path, NOW + 1.5 * day)
        assert [entry.agent_name for entry in reader.entries()] == ["a2", "a3"]
        assert reader.skipped == 2


class TestSince:
    @pytest.mark.parametrize(
        "text, seconds",
        [("45m", 2700), ("3h", 10_800), ("2d", 172_800), ("1w", 604_800), ("1.5h", 5400), ("90s", 90)],
    )
    def test_age_counts_back_from_now(self, text, seconds):
        assert parse_time(text, NOW) == NOW - seconds

    def test_parses_dates_and_times(self):
        assert parse_time("2026-11-25T08:30:00+01:00", NOW) == parse_time("2026-11-25T07:30:00Z", NOW)
        assert parse_time("2026-11-25", NOW) == datetime(2026, 11, 25).timestamp()

    @pytest.mark.parametrize("text", ["yesterday", "2h ago", "-3h", "2026-13-01", "3", "nan"])
    def test_invalid_time_names_the_forms(self, text):
        with pytest.raises(InvalidOptionError, match="2026-11-25"):
            parse_time(text, NOW)

    def test_rejects_hours_with_since(self):
        with pytest.raises(InvalidOptionError, match="leave one out"):
            parse_since(NOW, hours=1, since="2d")

    def test_parses_hours_and_since(self):
        assert parse_since(NOW) is None
        assert parse_since(NOW, hours=2) == parse_since(NOW, since="2h") == NOW - 7200


class TestDistribution:
    @given(st.lists(milliseconds, max_size=60), shares)
    def test_is_exact_for_few_values(self, values, share):
        distribution = Distribution(values)
        assert distribution.quantile(share) == nearest_rank(values, share)
        assert distribution.is_exact

    @given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60), shares)
    def test_sketch_stays_within_its_error(self, values, share):
        exact = nearest_rank(values, share)
        found = Distribution(values, exact_up_to=0).quantile(share)
        assert abs(found - exact) <= RELATIVE_ERROR * exact * (1 + 1e-9) + 1e-6

    @given(st.lists(st.lists(milliseconds, max_size=30), max_size=6), st.sampled_from([0, 20, EXACT_UP_TO]))
    def test_merged_parts_equal_the_whole(self, parts, exact_up_to):
        whole = Distribution([value for part in parts for value in part], exact_up_to)
        merged = Distribution((), exact_up_to)
        for part in parts:
            merged.merge(Distribution(part, exact_up_to))
        assert (merged.count, merged.maximum, merged.is_exact) == (whole.count, whole.maximum, whole.is_exact)
        assert merged.total == pytest.approx(whole.total)
        for share in (0.0, 0.25, 0.5, 0.95, 1.0):
            assert merged.quantile(share) == whole.quantile(share)

    def test_sketch_is_small(self):
        values = [1.0001**number for number in range(100_000)]
        distribution = Distribution(values)
        assert not distribution.is_exact and bytes_of(distribution) < 5000
        for share in (0.01, 0.5, 0.99, 0.999):
            assert distribution.quantile(share) == pytest.approx(
                nearest_rank(values, share), rel=RELATIVE_ERROR
            )

    def test_merges_the_lowest_buckets(self):
        values = [10.0**number * (1 + k / 30) for number in range(-5, 300) for k in range(30)]
        distribution = Distribution(values, exact_up_to=0)
        assert bytes_of(distribution) < 15_000
        for share in (0.95, 0.99, 1.0):
            assert distribution.quantile(share) == pytest.approx(
                nearest_rank(values, share), rel=RELATIVE_ERROR
            )

    def test_empty_has_no_quantile(self):
        empty = Distribution()
        assert (empty.quantile(0.5), empty.mean, empty.count) == (None, None, 0)


def naive(found):
    """The metrics of entries, each computed by its definition."""
    n, paid = len(found), [one for one in found if one.attempts]
    failures = [one for one in found if not one.success]
    free = [one for one in found if one.cached or one.shared]
    begins = [
        datetime.fromisoformat(one.timestamp).timestamp() - one.execution_time_ms / 1000 for one in found
    ]
    seconds = max(datetime.fromisoformat(one.timestamp).timestamp() for one in found) - min(begins)
    types = [one.error_type or "unknown" for one in failures]
    timeouts = types.count("SilenceError") + types.count("DeadlineExceededError")
    tokens = sum(one.input_tokens + one.output_tokens for one in found)
    priceless = [one for one in found if one.estimated_cost is None]
    unknown = [one for one in priceless if one.success or one.cost_at_most != 0]
    return {
        "executions": n,
        "successes": n - len(failures),
        "errors": len(failures),
        "error_rate": len(failures) / n,
        "errors_by_type": {name: types.count(name) for name in set(types)},
        "timeouts": timeouts,
        "timeout_rate": timeouts / n,
        "cached": sum(one.cached for one in found),
        "cache_hit_rate": sum(one.cached for one in found) / n,
        "shared": sum(one.shared and not one.cached for one in found),
        "shared_rate": sum(one.shared and not one.cached for one in found) / n,
        "truncated": sum(one.stop_reason in ("max_tokens", "pause_turn") for one in found),
        "refused": sum(one.stop_reason == "refusal" for one in found),
        "empty": sum(one.empty for one in found),
        "turns": sum(one.turns for one in found),
        "tool_calls": sum(len(one.tools) for one in found),
        "failed_tool_calls": sum(call[-1] for one in found for call in one.tools),
        "attempts": sum(one.attempts for one in found),
        "retries": sum(max(0, one.attempts - 1) for one in found),
        "wall_ms": spread([one.execution_time_ms for one in found]),
        "wait_ms": spread([one.wait_ms for one in found]),
        "service_ms": spread([one.service_time_ms for one in paid]),
        "tokens": {
            "input": sum(one.input_tokens for one in found),
            "output": sum(one.output_tokens for one in found),
            "cache_read": sum(one.cache_read_tokens for one in found),
            "cache_write": sum(one.cache_write_tokens for one in found),
            "total": tokens,
        },
        "cost_usd": sum(one.estimated_cost or 0 for one in found),
        "unknown_price": len(unknown),
        "unknown_at_most_usd": sum(one.cost_at_most or 0 for one in unknown),
        "saved_usd": sum(one.saved_cost or 0 for one in free),
        "unknown_saving": sum(one.saved_cost is None for one in free),
        "prompt_cache_saving_usd": sum(one.prompt_cache_saving or 0 for one in found),
        "began": iso(min(begins)),
        "ended": max(one.timestamp for one in found),
        "executions_per_second": n / seconds if seconds else None,
        "tokens_per_minute": tokens / (seconds / 60) if seconds else None,
    }


def spread(values):
    return {
        "p50": nearest_rank(values, 0.5),
        "p95": nearest_rank(values, 0.95),
        "p99": nearest_rank(values, 0.99),
        "mean": sum(values) / len(values) if values else None,
        "max": max(values, default=None),
        "exact": True,
    }


def close(found, expected):
    """Compares with a tolerance for floats."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            close(found[name], expected[name]) for name in expected
        )
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    return found == expected


def rows_of_tools():
    """The decoded lines of an agent with tools: three turns, the second from the cache, and the whole."""
    cached = {"cached": True, "cost": 0.0, "saved_cost": 0.5, "attempts": 0, "timeline": ()}
    turns = [
        replace(executed(number, seconds=2.0, **fields), execution_id="e1", turn=number + 1)
        for number, fields in enumerate(({}, cached, {}))
    ]
    call = ToolCall(1, "Read", {"file_path": SECRET}, 0.5, 10, None, 2.0)
    sums = {"cost": 0.002, "attempts": 2, "turns": (Turn(), Turn(), Turn()), "tool_calls": (call,)}
    whole = replace(executed(seconds=9.0, stopped_by="max_turns", **sums), execution_id="e1")
    lines = [encode_line(one, "run") for one in (*turns, whole)]
    assert SECRET not in "".join(lines)
    rows, skipped = decode_lines([f"{line}\n".encode() for line in lines])
    assert (len(rows), skipped) == (4, 0)
    return rows


def check_metrics_of_tools(metrics):
    assert (metrics["executions"], metrics["successes"], metrics["cached"]) == (1, 1, 0)
    assert (metrics["attempts"], metrics["saved_usd"], metrics["unknown_saving"]) == (2, 0.5, 0)
    assert metrics["cost_usd"] == pytest.approx(0.002)
    assert metrics["wall_ms"]["max"] == pytest.approx(9000)
    assert metrics["tokens"]["output"] == 100
    assert (metrics["turns"], metrics["tool_calls"], metrics["failed_tool_calls"]) == (3, 1, 0)


class TestMetrics:
    @given(st.lists(entries(), min_size=1, max_size=12))
    def test_metrics_match_their_definitions(self, found):
        rows, _ = decode_lines([line_of(one).encode() + b"\n" for one in found])
        summary = Summary()
        for begin in range(0, len(rows), 5):
            summary.add(rows[begin : begin + 5])
        metrics = summary.as_dict()
        whole = naive(found)
        assert close({name: metrics[name] for name in whole}, whole)
        for part, key in (
            ("by_agent", lambda one: one.agent_name),
            ("by_model", lambda one: one.model or "unknown"),
            ("by_workflow", lambda one: one.workflow_name),
            ("by_day", lambda one: one.timestamp[:10]),
        ):
            keys = {key(one) for one in found} - {None}
            assert set(metrics[part]) == keys
            for name in keys:
                assert close(metrics[part][name], naive([one for one in found if key(one) == name]))

    def test_agent_with_tools_is_one_execution(self):
        """The lines of its turns have what was paid, the line of the whole the outcome and the time."""
        rows = rows_of_tools()
        entry = to_entry(rows[-1])
        calls = ((1, "Read", 2000.0, 2500.0, False),)
        assert (entry.turns, entry.stopped_by, entry.tools) == (3, "max_turns", calls)
        summary = Summary()
        summary.add(rows)
        check_metrics_of_tools(summary.as_dict())
        assert summary.as_dict()["service_ms"]["max"] == pytest.approx(8750)

    def test_joined_turns_have_the_same_metrics(self):
        rows = rows_of_tools()
        (joined,) = join_turns(rows)
        summary = Summary()
        summary.add([joined])
        check_metrics_of_tools(summary.as_dict())
        # The turns began with the whole, a second apart; each request took from 0.25 to 2 s.
        assert [trip[:2] for trip in joined["timeline"]] == [[250.0, 2000.0], [2250.0, 4000.0]]
        assert to_entry(joined).turns == 3

    def test_turns_without_their_whole_stay(self):
        rows = rows_of_tools()[:-1]
        assert join_turns(rows) == rows
        summary = Summary()
        summary.add(rows)
        metrics = summary.as_dict()
        assert (metrics["executions"], metrics["attempts"], metrics["wall_ms"]["p50"]) == (0, 2, None)

    def test_sums_of_money_are_exact(self):
        summary = Summary()
        row = {"agent_name": "a", "ended": NOW, "estimated_cost": 0.0123457, "success": True}
        for _ in range(100):
            summary.add([row] * 10_000)
        assert round(summary.total().cost, 4) == 12345.7

    def test_older_format_has_no_wait(self):
        summary = Summary()
        summary.add([{"agent_name": "a", "ended": NOW, "execution_time_ms": 5.0}])
        metrics = summary.as_dict()
        assert (metrics["wait_ms"]["p50"], metrics["service_ms"]["p50"]) == (None, None)
        assert metrics["wall_ms"]["p50"] == 5.0

    def test_counts_skipped_lines(self, tmp_path):
        write(tmp_path, line_of(Entry(iso(NOW), "a")), "foreign", b'{"torn')
        summary = read_summary(tmp_path).as_dict()
        assert (summary["executions"], summary["skipped_lines"]) == (1, 2)

    @pytest.mark.parametrize(("moment", "ms"), [("0001-01-01T00:00:00Z", 0), ("9999-12-31T23:59:58Z", 1e14)])
    def test_shows_ends_of_the_calendar(self, tmp_path, moment, ms):
        write(tmp_path, json.dumps({"timestamp": moment, "agent_name": "a", "execution_time_ms": ms}))
        summary = read_summary(tmp_path).as_dict()
        assert list(summary["by_day"]) == [moment[:10]] and summary["ended"][:10] == moment[:10]

    def test_advice_for_error_types(self):
        assert "max_concurrent" in advice_for("RateLimitError")
        assert advice_for("KeyError") is None


def attempts_of_run(run, *found):
    """Rows of one run, one per (start in seconds, end in seconds, limit)."""
    return [
        {
            "run": run,
            "ended": NOW + end,
            "execution_time_ms": 1000.0 * end,
            "timeline": [[1000.0 * begin, 1000.0 * end, limit, None]],
        }
        for begin, end, limit in found
    ]


def swept(found):
    """The share by its definition, moment by moment."""
    moments = sorted({moment for begin, end, _ in found for moment in (begin, end)})
    busy = full = 0
    for start, stop in zip(moments, moments[1:]):
        on_wire = [one for one in found if one[0] <= start and one[1] >= stop]
        if on_wire:
            limit = max(
                (one for one in found if one[0] <= start and one[1] > one[0]), key=lambda one: one[0]
            )[2]
            busy += stop - start
            full += (stop - start) * (len(on_wire) >= limit)
    return full / busy if busy else None


class TestTimeAtLimit:
    def test_is_the_share_of_busy_time(self):
        at_limit = TimeAtConcurrencyLimit()
        # One from 0 to 2, two from 2 to 4, one from 4 to 6, none from 6 to 8.
        at_limit.add(attempts_of_run("r", (0, 4, 2), (2, 6, 2), (8, 10, 2)))
        assert at_limit.share() == pytest.approx(2 / 8)

    def test_each_run_has_its_own_limit(self):
        at_limit = TimeAtConcurrencyLimit()
        at_limit.add(attempts_of_run("one", (0, 4, 1)) + attempts_of_run("two", (0, 4, 2)))
        assert at_limit.share() == pytest.approx(1 / 2)

    def test_no_attempts_no_share(self):
        at_limit = TimeAtConcurrencyLimit()
        at_limit.add([{"ended": NOW, "agent_name": "a"}])
        assert at_limit.share() is None

    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=20), st.integers(1, 4))
    def test_sweep_matches_its_definition(self, spans, limit):
        found = sorted(((begin, begin + length, limit) for begin, length in spans), key=lambda one: one[1])
        at_limit = TimeAtConcurrencyLimit()
        for one in found:
            at_limit.add(attempts_of_run("r", one))
        expected = swept(found)
        assert at_limit.share() == (expected if expected is None else pytest.approx(expected))

    def test_bounds_its_buffer(self):
        """The result is the same if executions end roughly in the order of their starts."""
        spans = [(number, number + 3, 1 + number % 4) for number in range(2000)]
        whole, bounded = TimeAtConcurrencyLimit(), TimeAtConcurrencyLimit(max_buffered=50)
        whole.add(attempts_of_run("r", *spans))
        for one in spans:
            bounded.add(attempts_of_run("r", one))
            assert bytes_of(bounded) < 3000
        assert bounded.share() == pytest.approx(whole.share())

    def test_bounds_its_runs(self):
        at_limit = TimeAtConcurrencyLimit(max_runs=10)
        for number in range(100):
            at_limit.add(attempts_of_run(f"r{number}", (0, 1, 1 + number % 2)))
        assert bytes_of(at_limit) < 2000
        assert at_limit.share() == pytest.approx(1 / 2)
