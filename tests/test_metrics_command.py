"""`claude-force metrics`: what it shows on a terminal and in a pipe, and what other programs get from it."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import write_project
from ledgers import line_of

from claude_force.cli import metrics as cli_metrics
from claude_force.cli.main import main
from claude_force.ledger.entry import Entry

ROOT = Path(__file__).parent.parent
DAY = "2026-11-{:02d}T10:00:00+00:00"
ENTRIES = [
    Entry(
        DAY.format(1),
        "reviewer",
        "h",
        True,
        1500.0,
        "sonnet",
        100,
        20,
        120,
        1.25,
        None,
        "review",
        0,
        "r1",
        attempts=2,
        cache_read_tokens=40,
        cache_write_tokens=10,
        wait_ms=500.0,
        service_time_ms=1000.0,
        prompt_cache_saving=-0.5,
        timeline=((0.0, 400.0, 1, "OverloadedError"), (900.0, 1500.0, 1, None)),
    ),
    Entry(
        DAY.format(2),
        "reviewer",
        "h",
        True,
        2.5,
        "sonnet",
        estimated_cost=0.0,
        cached=True,
        saved_cost=0.75,
        wait_ms=2.5,
        run="r1",
    ),
    Entry(
        DAY.format(3),
        "writer",
        "h",
        True,
        90_000.0,
        "local-model",
        10,
        5,
        15,
        attempts=1,
        service_time_ms=90_000.0,
    ),
    Entry(
        DAY.format(3),
        "writer",
        "h",
        False,
        31_000.0,
        "sonnet",
        error_type="SilenceError",
        attempts=1,
        wait_ms=1000.0,
        service_time_ms=30_000.0,
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project without a ledger, which is the working directory."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".claude" / "metrics"


@pytest.fixture
def ledger(folder):
    """The log of four executions, and a line that holds no metrics."""
    folder.mkdir()
    file = folder / "executions.jsonl"
    file.write_text("".join(f"{line_of(one)}\n" for one in ENTRIES) + "foreign\n", encoding="utf-8")
    return file


def metrics(capsys, *arguments):
    """What it prints, and the remarks beside it."""
    assert main(["metrics", *arguments]) == 0
    return capsys.readouterr()


def columns(text):
    return [re.split(r"\s{2,}", line) for line in text.splitlines()]


class TestPiped:
    def test_summary_names_unknown(self, ledger, capsys):
        out = metrics(capsys, "summary").out
        shown = dict(re.split(r":\s+", line, maxsplit=1) for line in out.splitlines())
        assert shown["executions"] == "4 from 2026-10-31T10:00 to 2026-11-03T10:00 UTC".replace(
            "10-31T10:00", "11-01T09:59"
        )
        assert shown["errors"] == "1 (25.0 %), 1 of them a timeout"
        assert shown["cost"] == "$1.25 + 1 unknown"
        assert shown["saved"] == "$0.7500 by cached answers, -$0.5000 by the prompt cache"
        assert shown["wall"].startswith("p50 1.50 s, p95 1 min 30 s")
        assert shown["attempts"] == "4, 1 retry"

    def test_agents_busiest_first(self, ledger, capsys):
        heads, *rows = columns(metrics(capsys, "agents").out)
        assert heads == ["agent", "runs", "errors", "cached", "p50", "p95", "p99", "tokens", "cost", "saved"]
        assert {row[0]: row[1:4] for row in rows} == {
            "reviewer": ["2", "0.0 %", "50.0 %"],
            "writer": ["2", "50.0 %", "0.0 %"],
        }
        assert {row[0]: row[8] for row in rows} == {"reviewer": "$1.25", "writer": "unknown (1)"}

    def test_models_likewise(self, ledger, capsys):
        rows = columns(metrics(capsys, "models").out)
        assert [row[:2] for row in rows] == [["model", "runs"], ["sonnet", "3"], ["local-model", "1"]]

    def test_costs_by_four_groups(self, ledger, capsys):
        out = metrics(capsys, "costs").out
        assert out.startswith("$1.25 + 1 unknown spent, $0.7500 saved by cached answers")
        assert [line.split()[0] for line in out.splitlines() if line][1:] == [
            *("agent", "reviewer", "writer", "model", "sonnet", "local-model"),
            *("workflow", "review", "day", "2026-11-01", "2026-11-02", "2026-11-03"),
        ]

    def test_errors_come_with_advice(self, ledger, capsys):
        rows = columns(metrics(capsys, "errors").out)
        assert rows[1][:3] == ["SilenceError", "1", "25.0 %"] and "Raise --timeout" in rows[1][3]
        assert rows[-1] == ["writer", "1", "50.0 %"]

    def test_no_errors_is_said(self, ledger, capsys):
        ledger.write_text(line_of(ENTRIES[0]), encoding="utf-8")
        assert metrics(capsys, "errors").out == "none in 1 execution\n"

    def test_counts_unreadable_lines(self, ledger, capsys):
        assert "1 line of the ledger could not be read" in metrics(capsys, "summary").err

    @pytest.mark.parametrize("what", ["summary", "agents", "models", "costs", "errors"])
    def test_json_is_the_figures(self, ledger, capsys, what):
        found = json.loads(metrics(capsys, what, "--json").out)
        of_reviewer = {
            "summary": lambda: (
                found["by_agent"]["reviewer"]["executions"] == 2 and found["skipped_lines"] == 1
            ),
            "agents": lambda: found["reviewer"]["wall_ms"]["max"] == 1500.0,
            "models": lambda: found["local-model"]["unknown_price"] == 1,
            "costs": lambda: found["by_agent"]["reviewer"]["cost_usd"] == 1.25,
            "errors": lambda: found["by_type"][0]["type"] == "SilenceError" and found["timeouts"] == 1,
        }
        assert of_reviewer[what]()


class TestWindow:
    def test_since_a_date(self, ledger, capsys):
        found = json.loads(metrics(capsys, "summary", "--json", "--since", "2026-11-02T00:00Z").out)
        assert found["executions"] == 3

    def test_nothing_in_that_time_says_so(self, ledger, capsys):
        ended_long_ago = line_of(Entry("2001-01-01T00:00:00+00:00", "a"))
        ledger.write_text(ended_long_ago, encoding="utf-8")
        shown = metrics(capsys, "summary", "--hours", "1")
        assert shown.out == "" and "for that time; leave out --hours" in shown.err

    @pytest.mark.parametrize(
        "wrong", [["--since", "yesterday"], ["--hours", "-1"], ["--hours", "1", "--since", "2d"]]
    )
    def test_refuses_invalid_time(self, ledger, wrong):
        assert main(["metrics", "summary", *wrong]) == 2


class TestNoLedger:
    @pytest.mark.parametrize("what", ["summary", "agents", "models", "costs", "errors"])
    def test_empty_ledger_says_what_to_do(self, folder, capsys, what):
        shown = metrics(capsys, what)
        assert shown.out == "" and f"no executions are recorded in {folder} yet" in shown.err
        assert "claude-force run agent" in shown.err
        assert not folder.exists()

    def test_empty_ledger_json_is_valid(self, folder, capsys):
        assert json.loads(metrics(capsys, "summary", "--json").out)["executions"] == 0
        assert json.loads(metrics(capsys, "export").out) == []
        assert metrics(capsys, "export", "--format", "csv").out.startswith("timestamp,agent_name")
        assert "claude_force_skipped_lines 0" in metrics(capsys, "export", "--format", "prometheus").out

    def test_rotated_files_count_as_ledger(self, ledger, capsys):
        ledger.rename(ledger.with_name("executions-000001.jsonl"))
        assert "leave out --hours" in metrics(capsys, "summary", "--since", "2026-12-01").err


class TestExport:
    def test_json_holds_all_executions(self, ledger, capsys):
        found = json.loads(metrics(capsys, "export").out)
        assert found == json.loads(json.dumps([one.fields() for one in ENTRIES]))

    def test_csv_into_a_file(self, ledger, capsys, tmp_path):
        assert metrics(capsys, "export", "--format", "csv", "-o", str(tmp_path / "out.csv")).out == ""
        rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
        assert [row["agent_name"] for row in rows] == ["reviewer", "reviewer", "writer", "writer"]

    def test_escapes_spreadsheet_formulas(self, folder, capsys):
        folder.mkdir()
        formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-1\r=2", "\uff1d1", "plain"]
        with (folder / "executions.jsonl").open("w", encoding="ascii") as file:
            for one in formulas:
                line = {
                    "timestamp": DAY.format(1),
                    "agent_name": one,
                    "model": one,
                    "prompt_cache_saving": -0.5,
                }
                file.write(json.dumps({**line, "workflow_name": one, "request_id": one}) + "\n")
        said = metrics(capsys, "export", "--format", "csv").out
        rows = list(csv.DictReader(io.StringIO(said, newline="")))
        shown = [one.replace("\r", "\n") for one in formulas]
        assert [row["agent_name"] for row in rows] == [*(f"'{one}" for one in shown[:-1]), "plain"]
        assert all(row["model"] == row["workflow_name"] == row["request_id"] for row in rows)
        assert {row["prompt_cache_saving"] for row in rows} == {"-0.5"}

    def test_names_unwritable_file(self, ledger, capsys, tmp_path):
        assert main(["metrics", "export", "-o", str(tmp_path / "no" / "folder")]) == 2
        assert "can't be written" in capsys.readouterr().err

    def test_json_names_exported_file(self, ledger, capsys, tmp_path):
        target = str(tmp_path / "out.csv")
        found = json.loads(metrics(capsys, "export", "--format", "csv", "-o", target, "--json").out)
        assert found == {"success": True, "output": target, "executions": 4, "skipped_lines": 1}

    @pytest.mark.parametrize("format", ["csv", "prometheus"])
    def test_json_excludes_csv_on_stdout(self, ledger, capsys, format):
        assert main(["metrics", "export", "--format", format, "--json"]) == 2
        assert "exclude each other" in json.loads(capsys.readouterr().out)["error"]

    @pytest.mark.parametrize("format", ["json", "csv", "prometheus"])
    def test_lone_surrogate_is_exported(self, folder, capsys, tmp_path, format):
        folder.mkdir()
        line = json.dumps({"timestamp": DAY.format(1), "agent_name": "a\ud800"})
        (folder / "executions.jsonl").write_text(f"{line}\n", encoding="ascii")
        metrics(capsys, "export", "--format", format, "-o", str(tmp_path / "out"))
        text = (tmp_path / "out").read_text(encoding="utf-8")
        # In the exposition a backslash is written twice.
        assert ("a\\\\ud800" if format == "prometheus" else "a\\ud800") in text

    def test_refuses_ledger_file(self, ledger, capsys, tmp_path):
        before = ledger.read_bytes()
        (tmp_path / "link").symlink_to(ledger)
        for target in (ledger, tmp_path / "link"):
            assert main(["metrics", "export", "-o", str(target)]) == 2
            assert main(["report", "-o", str(target)]) == 2
        assert "belongs to the ledger itself" in capsys.readouterr().err
        assert ledger.read_bytes() == before

    def test_prometheus_metrics(self, ledger, capsys):
        text = metrics(capsys, "export", "--format", "prometheus").out
        reviewer = 'agent="reviewer",model="sonnet"'
        assert set(text.splitlines()) >= {
            "# TYPE claude_force_executions_total counter",
            f'claude_force_executions_total{{{reviewer},workflow="review",outcome="success"}} 1',
            'claude_force_errors_total{agent="writer",model="sonnet",type="SilenceError"} 1',
            f'claude_force_tokens_total{{{reviewer},workflow="review",kind="input"}} 50',
            f'claude_force_cost_usd_total{{{reviewer},workflow="review"}} 1.25',
            'claude_force_unknown_price_total{agent="writer",model="local-model"} 1',
            "# TYPE claude_force_execution_seconds summary",
            f'claude_force_execution_seconds{{{reviewer},workflow="review",quantile="0.95"}} 1.5',
            f'claude_force_execution_seconds_sum{{{reviewer},workflow="review"}} 1.5',
            f'claude_force_execution_seconds_count{{{reviewer},workflow="review"}} 1',
            "claude_force_prompt_cache_saving_usd -0.5",
            "claude_force_skipped_lines 1",
        }

    def test_prometheus_grammar(self, ledger, capsys):
        odd = Entry(DAY.format(4), 'a "quoted" \\ name\nin two lines', model="ü")
        ledger.write_text(line_of(odd) + "\n" + line_of(ENTRIES[0]), encoding="utf-8")
        text = metrics(capsys, "export", "--format", "prometheus").out
        label = r'[a-z_]+="(?:[^"\\\n]|\\\\|\\n|\\")*"'
        sample = re.compile(rf"[a-z_]+(\{{{label}(,{label})*\}})? -?\d+(\.\d+)?(e-?\d+)?")
        comment = re.compile(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|summary))")
        assert [
            line for line in text.splitlines() if not (sample.fullmatch(line) or comment.fullmatch(line))
        ] == []
        families = re.findall(r"# TYPE (\S+)", text)
        assert len(families) == len(set(families))

    def test_closed_reader_is_no_error(self, ledger, tmp_path):
        ledger.write_text("".join(f"{line_of(ENTRIES[0])}\n" for _ in range(2000)), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "claude_force", "metrics", "export"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        with process:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


class TestTerminal:
    @pytest.fixture
    def terminal(self, monkeypatch, capsys):
        """Runs it as a person sees it, in a window so many columns wide."""

        def show(*arguments, width=120):
            monkeypatch.setenv("COLUMNS", str(width))
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
            return metrics(capsys, *arguments).out

        return show

    def test_the_days_are_a_sparkline(self, ledger, terminal):
        out = terminal("summary")
        assert "2026-11-01 to 2026-11-03, by day:" in out
        assert "executions:   ▅▅█" in out and "cost:         █▁▁" in out

    def test_wide_tables_have_bars(self, ledger, terminal):
        assert "█" in terminal("agents")
        assert "█" in terminal("costs", width=100)
        assert "█" not in terminal("agents", width=80)

    def test_a_narrow_window_is_kept_to(self, ledger, terminal):
        out = re.sub("\x1b\\[[0-9;]*m", "", terminal("agents", width=60))
        assert max(map(len, out.splitlines())) <= 60
        assert re.search("agent +┃ runs ┃ errors +┃ p95", out) and "reviewer" in out


class TestAmounts:
    def test_missing_duration_is_a_dash(self):
        assert (cli_metrics.format_ms(None), cli_metrics.format_ms(1500.0)) == ("-", "1.50 s")

    @pytest.mark.parametrize(
        "known, unknown, shown",
        [
            (0.0, 0, "$0.00"),
            (0.0, 3, "unknown (3)"),
            (1.005, 0, "$1.00"),
            (1234.5, 2, "$1,234.50 + 2 unknown"),
            (0.00012, 0, "$0.0001"),
        ],
    )
    def test_sum_names_unknown(self, known, unknown, shown):
        assert cli_metrics.format_sum(known, unknown) == shown

    def test_what_nobody_measured_is_unknown(self):
        assert cli_metrics.format_distribution({"mean": None}) == cli_metrics.format_rate(None) == "unknown"

    def test_small_share_is_not_zero(self):
        assert [cli_metrics.format_share(share) for share in (None, 0.0, 0.0001, 0.5)] == [
            "unknown",
            "0.0 %",
            "<0.1 %",
            "50.0 %",
        ]
        assert cli_metrics.bars([0, 0.001, 100])[:2] == ["", "▏"]

    def test_ascii_terminal_gets_letters(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert cli_metrics.sparkline([0, 1]) == "_@" and cli_metrics.bars([1]) == ["#" * 12]

    def test_nothing_has_a_picture_too(self):
        assert (cli_metrics.sparkline([]), cli_metrics.sparkline([0, 0])) == ("", "▁▁")
        assert cli_metrics.bars([0]) == [""]


def test_needs_no_sdk_or_asyncio(ledger):
    program = (
        "import sys; from claude_force.cli.main import main; code = main(['metrics', 'summary']); "
        "heavy = {'anthropic', 'asyncio', 'rich', 'pydantic', 'aiohttp', 'genai_prices'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
