"""The report: its values, its size, and its behaviour in a real browser."""

import base64
import json
import re
import zlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from browser import Browser, chromium
from fleet import write_project
from hypothesis import example, given
from hypothesis import strategies as st
from ledgers import line_of
from report_entries import START, fleet_entries, rows_of

from claude_force.cli.main import main
from claude_force.ledger.entry import Entry, decode_lines
from claude_force.report import build_report, select
from claude_force.report.charts import MAX_BARS, LogAxis, TimeAxis, linear_axis
from claude_force.report.data import table
from claude_force.report.executions import executions_of

CSS = Path(__file__).parent.parent / "claude_force" / "report" / "assets" / "page.css"
needs_browser = pytest.mark.skipif(
    chromium() is None, reason="no Chromium is installed (on Debian: apt-get install chromium)"
)


def page_of(entries, scope="All executions"):
    return build_report(rows_of(entries), scope, timezone.utc).html


def moment(began_seconds, **more):
    """An answered call of one second that began so many seconds after START."""
    ended = (START + timedelta(seconds=began_seconds + 1)).isoformat()
    wall = {"execution_time_ms": 1000.0, "service_time_ms": 1000.0, "attempts": 1}
    return Entry(
        **{"timestamp": ended, "agent_name": "writer", "timeline": ((0.0, 1000.0, 4, None),), **wall, **more}
    )


class TestData:
    def test_data_matches_the_ledger(self):
        entries = fleet_entries(300)
        page = page_of(entries)
        packed = re.search(r'id="data">([^<]*)<', page).group(1)
        unpacked = json.loads(zlib.decompress(base64.b64decode(packed)))
        assert unpacked == table(executions_of(rows_of(entries)))
        columns, names = unpacked["columns"], unpacked["names"]
        called = [names["agent"][number] for number in columns["agent"]]
        assert Counter(called) == Counter(entry.agent_name for entry in entries)
        assert sum(columns["timeline"]) == sum(len(entry.timeline) for entry in entries)
        assert sum(filter(None, columns["cost"])) / 1e8 == pytest.approx(
            sum(entry.estimated_cost or 0 for entry in entries), abs=1e-9
        )

    def test_negative_saving_has_its_sign(self):
        page = page_of([moment(0, estimated_cost=1.0, prompt_cache_saving=-0.5)])
        assert "and -$0.5000 by the prompt cache" in page

    @pytest.mark.parametrize("failing", [0.03, 1.0])
    def test_10000_calls_fit_in_a_megabyte(self, failing):
        assert len(page_of(fleet_entries(10_000, failing=failing)).encode()) < 1_000_000

    def test_rounding_errors_do_not_add_up(self):
        rows = rows_of([moment(number * 0.33333) for number in range(500)])
        begin = table(executions_of(rows))["columns"]["begin"]
        assert sum(begin) == pytest.approx(499 * 0.33333 * 10_000, abs=1)

    def test_shows_the_old_format(self):
        row = {"timestamp": "2024-05-01T10:00:00", "agent_name": "old", "execution_time_ms": 1200.0}
        rows = rows_of([])
        rows.append({**row, "ended": 1714557600.0})
        assert "Waiting: not recorded for these calls." in build_report(rows, "x", timezone.utc).html


class TestAnyLedger:
    moments = st.sampled_from(
        ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-23:00", "2026-11-25T08:30:00"]
    )
    times = st.floats(0, 1e15) | st.just(0)
    money = st.none() | st.floats(0, 1e15)
    lines = st.fixed_dictionaries(
        {"timestamp": moments, "agent_name": st.text()},
        optional={
            "execution_time_ms": times,
            "wait_ms": times,
            "service_time_ms": times,
            "attempts": st.integers(0, 10**15),
            "success": st.booleans(),
            "cached": st.booleans(),
            "shared": st.booleans(),
            "model": st.none() | st.text(),
            "error_type": st.none() | st.text(),
            "estimated_cost": money,
            "saved_cost": money,
            "prompt_cache_saving": st.none() | st.floats(-1e15, 1e15),
            "timeline": st.lists(
                st.tuples(times, times, st.integers(-9, 9), st.none() | st.text()), max_size=3
            ),
        },
    )

    @example([{"timestamp": "2026-11-25T08:30:00", "agent_name": "", "estimated_cost": 5e-324}], timezone.utc)
    @given(
        st.lists(lines, min_size=1, max_size=5),
        st.sampled_from([timezone.utc, timezone(timedelta(hours=-9))]),
    )
    def test_shows_any_decoded_line(self, lines, zone):
        rows, _ = decode_lines([json.dumps(line).encode() + b"\n" for line in lines])
        page = build_report(rows, "x", zone).html
        page.encode("utf-8")
        assert page.count("<script") == 2


class TestAxes:
    periods = st.tuples(st.floats(0, 4e9), st.floats(0, 1e10))

    @given(periods)
    def test_time_axis_covers_its_period(self, period):
        began, ended = period[0], period[0] + period[1]
        axis = TimeAxis.around(began, ended, timezone.utc)
        assert 1 <= axis.bars <= MAX_BARS
        assert axis.start <= began + 1e-5
        assert axis.start + axis.bars * axis.width > ended - 1e-5
        assert axis.bar_of(began) == 0 and 0 <= axis.bar_of(ended) < axis.bars
        places = [place for place, _ in axis.ticks()]
        assert places == sorted(places) and places[0] >= 0 and places[-1] <= 1

    @given(st.lists(st.floats(0, 1e15), min_size=1))
    def test_log_axis_covers_its_values(self, values):
        axis = LogAxis.around(values)
        for value in values:
            number = axis.bar_of(value)
            assert 0 <= number < axis.bars
            if 0 < number < axis.bars - 1:
                assert (
                    axis.start_of(number) <= value * 1.000001
                    and value <= axis.start_of(number + 1) * 1.000001
                )

    @given(st.floats(1e-6, 1e9), st.integers(1, 6))
    def test_linear_axis_reaches_its_top(self, top, most):
        end, marks = linear_axis(top, most, str)
        assert end >= top * (1 - 1e-6)
        assert len(marks) <= most + 1
        assert (marks[0][0], marks[-1][0]) == (0, 1)


class TestSelection:
    @pytest.fixture
    def ledger(self, tmp_path):
        lines = [moment(0, run="first"), moment(7200, run="second"), moment(3600, run="first"), moment(60)]
        (tmp_path / "executions.jsonl").write_text("".join(line_of(line) + "\n" for line in lines))
        return tmp_path

    def test_selects_the_last_run(self, ledger):
        chosen = select(ledger, "last")
        assert [row["run"] for row in chosen.rows] == ["second"]

    def test_selects_a_run(self, ledger):
        assert len(select(ledger, "first").rows) == 2
        assert len(select(ledger).rows) == 4

    def test_unknown_run_lists_known_ones(self, ledger):
        with pytest.raises(ValueError, match="no run 'third'.* second .*first"):
            select(ledger, "third")

    def test_selects_the_newest(self, ledger):
        chosen = select(ledger, max_rows=3)
        assert len(chosen.rows) == 3
        assert "the newest 3 of 4" in chosen.scope


class TestCommand:
    @pytest.fixture
    def project(self, tmp_path, monkeypatch):
        write_project(tmp_path)
        monkeypatch.chdir(tmp_path)
        metrics = tmp_path / ".claude" / "metrics"
        metrics.mkdir()
        lines = [line_of(entry) for entry in [*fleet_entries(40, run="old"), moment(9000, run="new")]]
        (metrics / "executions.jsonl").write_text("\n".join([*lines, "torn"]) + "\n")
        return tmp_path

    def test_default_is_the_last_run(self, project, capsys):
        before = set(project.rglob("*"))
        assert main(["report"]) == 0
        out, err = capsys.readouterr()
        written = Path(out.strip())
        assert set(project.rglob("*")) - before == {written}
        assert written == project / ".claude" / "metrics" / "report.html"
        assert "Run new: 1 call," in err and f"{written.stat().st_size / 1024:,.0f} kB" in err

    def test_shows_unknown_prices(self, project, capsys):
        line = json.dumps({"timestamp": "2026-03-14T09:00:00Z", "agent_name": "a"})
        (project / ".claude" / "metrics" / "executions.jsonl").write_text(f"{line}\n")
        assert main(["report"]) == 0
        assert "0 cached, 1 answer of unknown price;" in capsys.readouterr().err

    def test_warns_of_skipped_lines(self, project, capsys):
        (project / ".claude" / "metrics" / "executions.jsonl").write_text("torn\ntorn\n")
        assert main(["report"]) == 1
        assert "2 lines of the ledger could not be read" in capsys.readouterr().err

    def test_json_has_path_and_totals(self, project, capsys):
        assert main(["report", "--run", "old", "-o", "fleet.html", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert Path(said["report"]).stat().st_size == said["bytes"]
        assert (said["scope"], said["totals"]["executions"], said["skipped_lines"]) == ("Run old", 40, 1)

    def test_since_selects_all_runs(self, project, capsys):
        assert main(["report", "--since", "2026-03-14T09:00+00:00", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["totals"]["executions"] == 41

    def test_empty_ledger_writes_nothing(self, tmp_path, monkeypatch, capsys):
        write_project(tmp_path)
        monkeypatch.chdir(tmp_path)
        assert main(["report"]) == 1
        assert "no executions are recorded" in capsys.readouterr().err
        assert not (tmp_path / ".claude" / "metrics").exists()
        assert main(["report", "--hours", "1", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["success"] is False

    def test_unwritable_output_is_an_error(self, project, capsys):
        assert main(["report", "-o", "nowhere/report.html"]) == 2
        assert "can't be written" in capsys.readouterr().err
        assert main(["report", "-o", "."]) == 2

    def test_writes_to_a_device(self, project, capsys):
        assert main(["report", "-o", "/dev/null"]) == 0
        assert not Path("/dev/null").is_file()


class TestColours:
    """In both schemes, colours stand out from the page and differ for any common kind of sight."""

    # Machado et al.: A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009.
    SIGHTS = {
        "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        "protanopia": (
            (0.152286, 1.052583, -0.204868),
            (0.114503, 0.786281, 0.099216),
            (-0.003882, -0.048116, 1.051998),
        ),
        "deuteranopia": (
            (0.367322, 0.860646, -0.227968),
            (0.280085, 0.672501, 0.047413),
            (-0.01182, 0.04294, 0.968881),
        ),
    }
    TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    WHITE = (0.9505, 1.0, 1.089)
    STATES, SERIES = ("wire", "fail", "wait", "retry", "cache"), tuple(f"s{number}" for number in range(7))

    @pytest.fixture(params=[0, 1, 2], ids=["light", "dark by choice", "dark by system"])
    def scheme(self, request):
        blocks = re.findall(r":root[^{]*\{([^}]*--page[^}]*)\}", CSS.read_text())
        assert len(blocks) == 3
        return dict(re.findall(r"--(\w+): (#\w{6})", blocks[request.param]))

    def test_colours_have_contrast(self, scheme):
        for name, least in {"ink": 7, "quiet": 4.5, "focus": 4.5, "fail": 4.5, "cache": 4.5}.items():
            assert min(self.contrast(scheme[name], scheme[on]) for on in ("page", "raised")) >= least, name
        for name in (*self.STATES, *self.SERIES, "strong"):
            assert self.contrast(scheme[name], scheme["page"]) >= 3, name

    @pytest.mark.parametrize("sight", SIGHTS)
    def test_colours_differ_for_any_sight(self, scheme, sight):
        for names in (self.STATES, self.SERIES):
            seen = [self.lab(scheme[name], self.SIGHTS[sight]) for name in names]
            gaps = [
                sum((x - y) ** 2 for x, y in zip(one, other)) ** 0.5
                for number, one in enumerate(seen)
                for other in seen[:number]
            ]
            assert min(gaps) > 14  # CIE76; 2.3 is what can just be noticed

    def contrast(self, one, other):
        darker, lighter = sorted(self.mixed(self.TO_XYZ, self.linear(colour))[1] for colour in (one, other))
        return (lighter + 0.05) / (darker + 0.05)

    def lab(self, colour, sight):
        seen = [min(1, max(0, part)) for part in self.mixed(sight, self.linear(colour))]
        x, y, z = (
            part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116
            for part in (part / white for part, white in zip(self.mixed(self.TO_XYZ, seen), self.WHITE))
        )
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    def linear(self, colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]

    def mixed(self, matrix, parts):
        return [sum(weight * part for weight, part in zip(row, parts)) for row in matrix]


@pytest.fixture(scope="module")
def browser():
    running = Browser(chromium())
    yield running
    running.close()


@pytest.fixture(scope="module")
def entries():
    return fleet_entries(400)


@pytest.fixture(scope="module")
def file(entries, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page_of(entries), encoding="utf-8")
    return path


@needs_browser
class TestPage:
    @pytest.fixture
    def page(self, browser, file):
        browser.open(file)
        yield browser
        assert browser.complaints() == []
        assert set(browser.requests()) <= {file.as_uri(), "data:,"}

    def test_totals_match_the_ledger(self, page, entries):
        shown = dict(zip(page.texts(".totals dt"), page.texts(".totals dd")))
        shown = {name: text.split("\n") for name, text in shown.items()}
        walls = sorted(entry.execution_time_ms for entry in entries)
        tokens = sum(entry.total_tokens for entry in entries)
        cost = sum(entry.estimated_cost or 0 for entry in entries)
        unknown = sum(entry.success and entry.estimated_cost is None for entry in entries)
        saved = sum(entry.saved_cost or 0 for entry in entries)
        failed = sum(not entry.success for entry in entries)
        cached = sum(entry.cached for entry in entries)
        assert unknown > 0
        assert shown["Calls"][0] == "400"
        assert shown["Failed"] == [str(failed), f"{failed / 4:.1f} %"]
        assert shown["Cached"][0] == str(cached)
        assert shown["Tokens"][0] == f"{tokens:,}"
        assert shown["Paid"] == [
            f"${cost:,.2f}",
            f"and {unknown} answer{'s' * (unknown > 1)} of unknown price",
        ]
        assert shown["Saved"][0] == f"${saved:.4f}"
        assert shown["Wall p50"][0] == f"{walls[199] / 1000:.2f} s"
        assert shown["Wall p95"][0] == f"{walls[379] / 1000:.1f} s"
        assert shown["Wall p99"][0] == f"{walls[395] / 1000:.1f} s"

    def test_script_has_all_values(self, page, entries):
        names = ("wall", "wait", "service", "tokensIn", "tokensOut", "cacheRead", "cacheWrite", "attempts")
        fields = ("execution_time_ms", "wait_ms", "service_time_ms", "input_tokens", "output_tokens")
        fields += ("cache_read_tokens", "cache_write_tokens", "attempts")
        calls = page.js(
            "unpack(document.getElementById('data').textContent).then(calls => JSON.stringify({...calls, "
            f"{', '.join(f'{name}: [...calls.{name}]' for name in names)}, begin: [...calls.begin], "
            "end: [...calls.end], timeline: {...calls.timeline, began: [...calls.timeline.began], "
            "ended: [...calls.timeline.ended]}}))"
        )
        calls = json.loads(calls)
        executions = executions_of(rows_of(entries))
        for name, field in zip(names, fields):
            expected = [getattr(one.entry, field) for one in executions]
            assert calls[name] == pytest.approx(expected, abs=0.051), name
        assert calls["cost"] == [
            None if one.entry.estimated_cost is None else pytest.approx(one.entry.estimated_cost, abs=5e-9)
            for one in executions
        ]
        assert calls["request"] == [one.entry.request_id for one in executions]
        trips = [
            (one.began * 1000 - calls["from"], trip) for one in executions for trip in one.entry.timeline
        ]
        assert calls["timeline"]["began"] == pytest.approx([at + trip[0] for at, trip in trips], abs=0.2)
        assert calls["timeline"]["ended"] == pytest.approx([at + trip[1] for at, trip in trips], abs=0.2)

    def test_sorts_both_ways(self, page, entries):
        longest = max(entry.execution_time_ms for entry in entries)
        assert page.js("document.querySelector('#table th').getAttribute('aria-sort')") == "ascending"
        page.click("#table th:nth-child(5) button")
        sorts = "[...document.querySelectorAll('#table th')].map(one => one.getAttribute('aria-sort'))"
        assert page.js(sorts)[4] == "descending" and page.js(sorts)[0] == "none"
        assert page.text("#table tbody td:nth-child(5)") == f"{longest / 1000:.1f} s"
        page.click("#table th:nth-child(2) button")
        agents = page.texts("#table tbody td:nth-child(2)")
        assert agents == sorted(entry.agent_name for entry in entries)[: len(agents)]
        page.click("#table th:nth-child(2) button")
        assert page.text("#table tbody td:nth-child(2)") == "test-writer"

    def test_filters_calls(self, page, entries):
        some = next(entry for entry in entries if entry.request_id)
        page.click("[name=text]")
        page.write(some.request_id)
        assert page.text("#found").startswith("1 of 400 calls")
        page.click("#clear")
        assert page.text("#found").startswith("400 calls")
        self.choose(page, "status", "Failed")
        failed = [entry for entry in entries if not entry.success]
        assert page.text("#found").startswith(f"{len(failed)} of 400 calls, {len(failed)} failed")
        assert set(page.texts("#table tbody td:nth-child(4)")) == {"Failed"}
        agent = failed[0].agent_name
        self.choose(page, "agent", agent)
        both = sum(entry.agent_name == agent for entry in failed)
        assert page.text("#found").startswith(f"{both} of 400 calls")

    def choose(self, page, name, label):
        page.js(f"document.querySelector('[name={name}]').focus()")
        options = page.js(f"[...document.querySelectorAll('[name={name}] option')].map(one => one.text)")
        page.key(*["ArrowDown"] * options.index(label))

    def test_sums_the_filtered_calls(self, page, entries):
        unpriced = [entry for entry in entries if entry.success and entry.estimated_cost is None]
        assert page.text("#found").endswith(f" paid, {len(unpriced)} of unknown price")
        page.click("[name=text]")
        page.write(unpriced[0].request_id)
        assert page.text("#found") == "1 of 400 calls, 0 failed, 1 of unknown price"

    def test_turns_pages(self, page):
        first = page.text("#table tbody tr")
        assert page.text("#page") == "Page 1 of 8"
        page.click("[data-page=next]")
        assert page.text("#page") == "Page 2 of 8" and page.text("#table tbody tr") != first
        page.click("[data-page=last]")
        assert page.js("document.querySelector('[data-page=next]').disabled")
        page.click("[data-page=first]")
        assert page.text("#table tbody tr") == first

    def test_row_opens_to_its_attempts(self, page, entries):
        retried = next(entry for entry in entries if entry.attempts > 1 and entry.success)
        page.click("[name=text]")
        page.write(retried.request_id)
        page.click("#table .open")
        details = page.text(".details")
        assert retried.request_id in details and retried.task_hash in details
        outcomes = page.texts(".details tbody td:last-child")
        assert outcomes == [trip[3] or "answered" for trip in retried.timeline]
        took = retried.timeline[0][1] - retried.timeline[0][0]
        assert page.text(".details tbody td:nth-child(3)") == f"{took:.0f} ms"
        page.click("#table .open")
        assert page.js("document.querySelector('.details')") is None

    def test_errors_have_advice_and_calls(self, page, entries):
        met = Counter(trip[3] for entry in entries for trip in entry.timeline if trip[3])
        shown = dict(zip(page.texts("#errors tbody strong"), page.texts("#errors tbody td:nth-child(3)")))
        assert {name: int(count) for name, count in shown.items()} == met
        assert "ask for a higher rate limit" in page.text("#errors")
        page.click("[data-find=RateLimitError]")
        calls = sum(any(trip[3] == "RateLimitError" for trip in entry.timeline) for entry in entries)
        assert page.text("#found").startswith(f"{calls} of 400 calls")
        assert page.js("document.activeElement.name") == "text"

    def test_works_by_keyboard(self, page):
        page.key("Tab")
        assert page.js("document.activeElement.className") == "skip"
        page.key("Enter", "Tab")
        assert page.js("document.activeElement.name") == "text"
        page.write("code-reviewer")
        page.key("Tab", "Tab", "Tab", "Tab", "Tab", "Tab", "Enter")
        assert page.js("document.querySelector('#table th').getAttribute('aria-sort')") == "descending"
        page.key(*["Tab"] * 9)
        assert page.js("document.activeElement.className") == "open"
        assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.key("Space")
        assert page.js("document.activeElement.getAttribute('aria-expanded')") == "true"
        assert "Request id" in page.text(".details") or "No request" in page.text(".details")

    def test_moves_the_timeline(self, page):
        whole = page.text("#view")
        page.click("[data-view=in]")
        closer = page.text("#view")
        page.js("document.getElementById('lanes').focus()")
        page.key("ArrowRight")
        later = page.text("#view")
        assert len({whole, closer, later}) == 3
        page.click("[data-view=all]")
        assert page.text("#view") == whole
        page.js("document.getElementById('lanes').scrollIntoView({block: 'center'})")
        box = page.js("(({x, y}) => [x, y])(document.getElementById('lanes').getBoundingClientRect())")
        page.press(box[0] + 300, box[1] + 100)
        page.move(box[0] + 500, box[1] + 100)
        page.release(box[0] + 500, box[1] + 100)
        assert page.text("#view") != whole

    def test_click_on_a_call_opens_its_row(self, page):
        page.js("document.getElementById('lanes').scrollIntoView({block: 'center'})")
        x, y = page.js(
            "(({x, y}) => [x, y])(document.querySelector('#lanes canvas').getBoundingClientRect())"
        )
        page.press(x + 70, y + 27)
        page.release(x + 70, y + 27)
        assert page.js("document.activeElement.getAttribute('aria-expanded')") == "true"
        assert "Wall, waiting, service" in page.text(".details")

    def test_pictures_have_labels(self, page):
        labels = page.js(
            "[...document.querySelectorAll('[role=img]')].map(one => one.getAttribute('aria-label'))"
        )
        assert len(labels) >= 8 and all(labels)
        assert any(re.match(r"Wall time of 400 calls: p50 [\d.]+ s, p95", label) for label in labels)
        assert any("at most 12 on the wire, limit 6 to 12" in label for label in labels)
        assert page.js("[...document.querySelectorAll('button, input, select')].every(one => "
                       "one.labels?.length || one.ariaLabel || one.innerText.trim())")  # fmt: skip

    def test_follows_and_toggles_the_theme(self, browser, file):
        paper = "getComputedStyle(document.body).backgroundColor"
        for scheme, other in (("light", "dark"), ("dark", "light")):
            browser.open(file, scheme=scheme)
            before = browser.js(paper)
            assert browser.js("document.getElementById('theme').ariaPressed") == str(scheme == "dark").lower()
            browser.click("#theme")
            assert browser.js("document.documentElement.dataset.theme") == other
            assert browser.js(paper) != before

    def test_fits_a_phone(self, browser, file):
        browser.open(file, width=400)
        assert browser.js("document.documentElement.scrollWidth") <= 400
        assert browser.js("Math.max(...[...document.querySelectorAll('svg text')].map(one => "
                          "one.getBoundingClientRect().right))") <= 400  # fmt: skip

    def test_prints_in_light_colours(self, browser, file):
        browser.open(file, scheme="dark")
        browser.js("dispatchEvent(new Event('beforeprint'))")
        assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        browser.js("dispatchEvent(new Event('afterprint'))")
        assert browser.js("document.documentElement.dataset.theme") is None


@needs_browser
class TestOtherLedgers:
    @pytest.fixture
    def show(self, browser, tmp_path):
        def show(entries, scope="All executions", **options):
            path = tmp_path / "report.html"
            path.write_text(page_of(entries, scope), encoding="utf-8")
            browser.open(path, **options)
            return browser

        yield show
        assert browser.complaints() == []

    def test_sorts_10000_calls(self, show):
        entries = fleet_entries(10_000)
        page = show(entries)
        assert page.text("#found").startswith("10,000 calls")
        page.click("#table th:nth-child(9) button")
        dearest = max(entry.estimated_cost or 0 for entry in entries)
        assert page.text("#table tbody td:nth-child(9)") == f"${dearest:.4f}"
        page.click("[name=text]")
        page.write(entries[7000].task_hash)
        assert page.text("#found").startswith("1 of 10,000 calls")

    def test_escapes_all_text(self, show):
        hostile = [
            "<script>window.hacked = 1</script>",
            "</script><script>window.hacked = 2</script>",
            "</title></style><img src=x onerror='window.hacked = 3'>",
            "\"'><svg onload=window.hacked=4>",
            "<!--<script>",
            "]]>\u2028\ud800\x00$scope",
        ]
        texts = ("agent_name", "model", "run", "request_id", "task_hash", "workflow_name", "stop_reason")
        entries = [
            moment(
                number,
                success=False,
                error_type=text,
                timeline=((0.0, 9.0, 1, text),),
                **dict.fromkeys(texts, text),
            )
            for number, text in enumerate(hostile)
        ]
        page = show(entries, hostile[1])
        assert page.js("window.hacked") is None
        assert page.js("document.scripts.length") == 2 and page.js("document.images.length") == 0
        assert set(page.texts("#table tbody td:nth-child(2)")) >= set(hostile[:5])
        page.click("#table .open")
        assert hostile[0] in page.text(".details")
        page.click(".show")
        assert page.text("#found").startswith("1 of 6 calls")

    def test_agent_with_tools_has_its_turns_and_calls(self, show):
        tools = ((1, "Read", 300.0, 500.0, False), (1, "<b>Grep</b>", 450.0, 600.0, True))
        timeline = ((0.0, 250.0, 4, None), (700.0, 1000.0, 4, None))
        page = show([moment(0, turns=2, tools=tools, timeline=timeline, attempts=2), moment(2)])
        spans = page.js(
            "unpack(document.getElementById('data').textContent).then((calls) => {"
            "  const {state, start, end, first} = spansOf(calls);"
            "  const shown = (one, at) => [STATES[one], start[at], end[at]];"
            "  return JSON.stringify(state.slice(0, first[1]).map(shown));"
            "})"
        )
        assert json.loads(spans) == [
            ["wire", 0, 250],
            ["wait", 250, 300],
            ["cache", 300, 600],
            ["wait", 600, 700],
            ["wire", 700, 1000],
        ]
        page.click("#table .open")
        assert "2 turns, 2 tool calls" in page.text(".details")
        assert page.texts(".details .tools tbody td:nth-child(2)") == ["Read", "<b>Grep</b>"]
        assert page.texts(".details .tools tbody td:last-child") == ["done", "failed"]

    def test_page_without_calls(self, show):
        assert "no executions here yet" in show([]).text("main")

    def test_page_with_only_failures(self, show):
        unknown = dict.fromkeys(("error_type", "estimated_cost", "saved_cost", "prompt_cache_saving"))
        failed = {"cached": False, "shared": False, "success": False, "timeline": (), **unknown}
        page = show([replace(entry, **failed) for entry in fleet_entries(30)])
        assert "No cost is known." in page.text("#money")
        assert page.text("#errors tbody strong") == "unknown"

    def test_starts_with_the_last_run(self, show):
        later = fleet_entries(50, run="b", start=START + timedelta(days=3))
        page = show(fleet_entries(50, run="a") + later)
        assert page.js("document.querySelector('#runs select').selectedOptions[0].text").endswith(
            "b, 50 calls"
        )
        assert page.text("#view").startswith("2026-03-17")
