"""The command over workers: `run many`, `run workflow` and `runs` with a database."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import psycopg
from durable import WorkerProcess, rows, until
from fleet import write_project

from claude_force.cli.durable_runs import WorkerNotices
from claude_force.cli.main import main
from claude_force.durable import Runs
from claude_force.errors import ConfigurationError
from claude_force.testing import MessagesServer, faults

AGENT = "python-expert"


def echo(body):
    return "you said: " + body["messages"][-1]["content"]


def random_graph(nodes, chance):
    """Each step waits for up to three that come before it."""
    return {
        "steps": [
            {
                "id": f"s{number}",
                "agent": AGENT,
                "task": f"${{task}}, step {number}",
                "dependencies": [
                    f"s{one}" for one in chance.sample(range(number), min(number, chance.randrange(4)))
                ],
            }
            for number in range(nodes)
        ]
    }


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project as the working directory, with a graph of 30 steps."""
    path = write_project(tmp_path)
    config = json.loads(path.read_text())
    config["workflows"]["thirty"] = random_graph(30, random.Random(7))
    config["workflows"]["again"] = {"steps": [{"id": "only", "agent": AGENT, "retries": 1}]}
    path.write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    return tmp_path


@pytest.fixture
def start(monkeypatch):
    """Starts the API that workers will find."""
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", "one for all machines")
    servers = []

    def begin(**ways):
        servers.append(MessagesServer(**{"answer": echo, **ways}).start())
        for name, value in servers[-1].environment().items():
            monkeypatch.setenv(name, value)
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture
def api(start):
    return start()


@contextmanager
def worker_of(url, folder, *options):
    """One worker, as a process."""
    process = WorkerProcess(url, "w1", folder, *options)
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def worker(pg_url, tmp_path, api):
    with worker_of(pg_url, tmp_path) as only:
        yield only


def rows_changed(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def write_tasks(folder, count, name="tasks.jsonl"):
    path = folder / name
    lines = [json.dumps({"agent": AGENT, "task": f"Task {number}", "id": number}) for number in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def results(path="out.jsonl"):
    """The whole lines of an output."""
    with Path(path).open("rb") as lines:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]


def many(url, *arguments, database=True):
    given = ["--database", url] if database else []
    return main(["run", "many", *given, *map(str, arguments)])


def fields_of(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def spawn(pg_url):
    """Starts commands as processes that can be killed; they find the database by the environment."""
    with ExitStack() as processes:

        def begin(*words):
            process = subprocess.Popen(
                [sys.executable, "-m", "claude_force", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "CLAUDE_FORCE_DATABASE_URL": pg_url},
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield begin


class TestMany:
    def test_worker_answers_rows_with_their_fields(self, place, pg_url, worker, api, capsys):
        assert many(pg_url, write_tasks(place, 20), "-o", "out.jsonl", "--json") == 0
        fields = fields_of(capsys)
        assert (fields["succeeded"], fields["missing"], len(api.requests)) == (20, 0, 20)
        assert fields["cost"] > 0
        for found in results():
            assert (found["id"], found["output"]) == (found["index"], f"you said: Task {found['index']}")
        assert rows(pg_url, "SELECT DISTINCT run, worker FROM claude_force.cf_calls") == [
            (fields["run_id"], "w1")
        ]

    def test_same_command_resumes_run(self, place, pg_url, worker, api, capsys):
        first, more = write_tasks(place, 8), ("-o", "out.jsonl", "--json", "--cache", "off")
        assert many(pg_url, first, *more, "--limit", 5) == 0
        runs = [fields_of(capsys)["run_id"]]
        assert many(pg_url, first, *more) == 0
        runs.append(fields_of(capsys)["run_id"])
        assert len(api.requests) == 8
        assert many(pg_url, first, *more, "--no-resume") == 0
        runs.append(fields_of(capsys)["run_id"])
        Path("out.jsonl").unlink()
        assert many(pg_url, first, *more) == 0
        runs.append(fields_of(capsys)["run_id"])
        assert runs[0] == runs[1] and len(set(runs)) == 3
        assert len(api.requests) == 24

    def test_retry_failed_repeats_failed_rows(self, place, pg_url, tmp_path, start, capsys):
        api = start(faults=[faults.status(400)] * 3)
        with worker_of(pg_url, tmp_path):
            tasks = write_tasks(place, 10)
            assert many(pg_url, tasks, "-o", "out.jsonl") == 3
            assert many(pg_url, tasks, "-o", "out.jsonl") == 3
            assert len(api.requests) == 10
            assert many(pg_url, tasks, "-o", "out.jsonl", "--retry-failed") == 0
        assert len(api.requests) == 13
        assert sorted(one["index"] for one in results()) == list(range(10))

    def test_killed_driver_resumes_without_repeats(self, place, pg_url, tmp_path, start, spawn):
        api = start(time_to_first_token=0.3)
        tasks = write_tasks(place, 60)
        with worker_of(pg_url, tmp_path):
            driver = spawn("run", "many", tasks, "-o", "out.jsonl", "--durable", "--cache", "off")
            until(lambda: len(api.requests) >= 15, "calls are under way")
            driver.kill()
            driver.communicate()
            assert many(pg_url, tasks, "-o", "out.jsonl", "--cache", "off") == 0
        assert len(api.requests) == 60
        assert sorted(one["index"] for one in results()) == list(range(60))

    def test_ctrl_c_withdraws_queued_calls(self, place, pg_url, tmp_path, start, capsys, spawn):
        api = start(time_to_first_token=0.3)
        tasks = write_tasks(place, 30)
        command = ("run", "many", tasks, "-o", "out.jsonl", "--durable", "--cache", "off", "--grace", 20)
        with worker_of(pg_url, tmp_path, "--concurrency", "2"):
            driver = spawn(*command)
            until(lambda: len(api.requests) >= 4, "calls are under way")
            driver.send_signal(signal.SIGINT)
            _, error = driver.communicate(timeout=90)
            assert driver.returncode == 130, error
            assert "calls that no worker has begun are taken back" in error
            assert len(results()) == len(api.requests) < 20
            assert all(found["success"] for found in results())
            assert many(pg_url, tasks, "-o", "out.jsonl", "--cache", "off") == 0
        assert len(api.requests) == 30

    def test_waits_for_worker_and_says_so(self, place, pg_url, tmp_path, api, spawn):
        driver = spawn("run", "many", write_tasks(place, 3), "-o", "out.jsonl", "--durable")
        # Read to its end by communicate(); here up to the line that matters.
        assert any("no worker is alive; the calls wait for one: start" in line for line in driver.stderr)
        with worker_of(pg_url, tmp_path):
            _, error = driver.communicate(timeout=90)
        assert driver.returncode == 0, error
        assert len(results()) == 3

    def test_environment_alone_enqueues_nothing(self, place, api, monkeypatch):
        monkeypatch.setenv("CLAUDE_FORCE_DATABASE_URL", "postgresql://nobody:secret-1@127.0.0.1:1/none")
        assert main(["run", "many", write_tasks(place, 2), "-o", "out.jsonl"]) == 0

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["--durable"], "CLAUDE_FORCE_DATABASE_URL"),
            (["--database", ""], "--database is empty"),
            (["--database", "mysql://host/name"], "mysql is not supported"),
            (["--database", "postgresql://u:secret-1@127.0.0.1:1/none"], "can't be used"),
            (["--durable", "--database", "sqlite:///a.db"], "not allowed with"),
        ],
    )
    def test_unusable_database_exits_2(self, place, api, capsys, given, said):
        assert main(["run", "many", write_tasks(place, 2), "-o", "out.jsonl", *given]) == 2
        error = capsys.readouterr().err
        assert said in error and "secret-1" not in error
        assert not api.requests

    def test_worker_only_options_exit_2(self, place, pg_url, api, capsys):
        assert many(pg_url, write_tasks(place, 2), "-o", "out.jsonl", "--max-concurrent", 5) == 2
        assert "--max-concurrent has no effect with a database" in capsys.readouterr().err

    def test_refuses_wrong_resume_options(self, place, api, capsys, monkeypatch):
        url, there = f"sqlite:///{place.parent}/runs.db", place / "there"
        there.mkdir()
        monkeypatch.chdir(there)
        assert many(url, write_tasks(there, 2), "-o", "out.jsonl", "--json") == 0
        run_id, asked = fields_of(capsys)["run_id"], len(api.requests)
        assert main(["runs", "resume", run_id, "--database", url, "--fail-fast"]) == 2
        assert "--fail-fast is for workflows" in capsys.readouterr().err
        assert main(["runs", "resume", run_id, "--database", url, "--config", "other.json"]) == 2
        assert "--config is for workflows" in capsys.readouterr().err
        monkeypatch.chdir(place)
        there.rename(place / "moved")
        assert main(["runs", "resume", run_id, "--database", url]) == 2
        assert f"folder {there} can't be used" in capsys.readouterr().err
        assert len(api.requests) == asked

    def test_resume_keeps_configuration(self, place, start, capsys, monkeypatch):
        url, config = f"sqlite:///{place}/runs.db", place / ".claude" / "other.json"
        agents = {"other": {"file": "python.md"}}
        config.write_text(json.dumps({"agents": agents}))
        task = json.dumps({"agent": "other", "task": "Look"}) + "\n"
        (place / "tasks.jsonl").write_text(task)
        api = start(faults=[faults.status(401)])
        given = ("tasks.jsonl", "-o", "out.jsonl", "--json", "--config", ".claude/other.json")
        assert many(url, *given) == 1
        run_id = fields_of(capsys)["run_id"]
        monkeypatch.chdir("/")
        assert main(["runs", "resume", run_id, "--database", url]) == 0
        assert (fields_of(capsys)["succeeded"], len(api.requests)) == (1, 2)

    def test_sqlite_lists_no_workers(self, place, capsys):
        assert main(["runs", "workers", "--database", f"sqlite:///{place}/runs.db"]) == 2
        assert "With SQLite there are no workers" in capsys.readouterr().err

    def test_sqlite_runs_calls_in_process(self, place, api):
        url = f"sqlite:///{place}/runs.db"
        assert many(url, write_tasks(place, 5), "-o", "out.jsonl", "--max-concurrent", 2) == 0
        assert len(api.requests) == 5

    def test_the_budget_holds_over_workers(self, place, pg_url, worker, api, capsys):
        arguments = (write_tasks(place, 50), "-o", "out.jsonl", "--json", "--budget", 0.006)
        assert many(pg_url, *arguments, "--price", "claude-sonnet-5-5=3,15", "--max-tokens", 300) == 4
        fields = fields_of(capsys)
        assert fields["over_budget"] and 0 < fields["cost"] <= 0.006


class TestWorkflow:
    def test_worker_runs_graph_of_30_steps(self, place, pg_url, worker, api, capsys):
        assert main(["run", "workflow", "thirty", "--task", "Go", "--json", "--database", pg_url]) == 0
        fields = fields_of(capsys)
        assert [len(fields["steps"]), len(api.requests)] == [30, 30]
        for step in fields["steps"]:
            assert step["output"] == f"you said: Go, step {step['id'][1:]}"
        call_ids = rows(pg_url, "SELECT id FROM claude_force.cf_calls")
        assert {one.id.rpartition(":")[0] for one in call_ids} == {
            f"{fields['run_id']}:s{number}:0" for number in range(30)
        }

    def test_resume_collects_run_of_killed_driver(self, place, pg_url, tmp_path, start, capsys, spawn):
        api = start(time_to_first_token=0.3)
        more = ("--cache", "off", "--json")
        with worker_of(pg_url, tmp_path):
            driver = spawn("run", "workflow", "thirty", "--task", "Go", "--durable", *more)
            until(lambda: len(api.requests) >= 8, "calls are under way")
            driver.kill()
            driver.communicate()
            assert main(["runs", "list", "--json", "--database", pg_url]) == 0
            (found,) = fields_of(capsys)
            assert (found["kind"], found["workflow"]) == ("workflow", "thirty")
            assert main(["runs", "resume", found["run"], "--database", pg_url, *more]) == 0
        assert fields_of(capsys)["success"]
        assert len(api.requests) == 30

    def test_ctrl_c_then_resume_continues(self, place, pg_url, tmp_path, start, capsys, spawn):
        api = start(time_to_first_token=0.3)
        more = ("--cache", "off", "--json")
        with worker_of(pg_url, tmp_path):
            driver = spawn("run", "workflow", "thirty", "--task", "Go", "--durable", *more)
            until(lambda: len(api.requests) >= 5, "calls are under way")
            driver.send_signal(signal.SIGINT)
            out, _ = driver.communicate(timeout=90)
            fields = json.loads(out)
            assert (driver.returncode, fields["error"]) == (130, "interrupted")
            assert main(["runs", "show", fields["run_id"], "--json", "--database", pg_url]) == 0
            shown = fields_of(capsys)
            assert shown["open"] == 0
            assert main(["runs", "resume", fields["run_id"], "--database", pg_url, *more]) == 0
        assert fields_of(capsys)["success"]
        assert 30 <= len(api.requests) <= 30 + shown["cancelled"]

    def test_retried_call_gets_new_id(self, place, pg_url, tmp_path, start, capsys):
        api = start(faults=[faults.status(500)] * 3)
        with worker_of(pg_url, tmp_path):
            assert main(["run", "workflow", "again", "--task", "Go", "--json", "--database", pg_url]) == 0
        fields = fields_of(capsys)
        assert (fields["steps"][0]["calls"], len(api.requests)) == (2, 4)


class TestRuns:
    def test_lists_both_kinds_with_failures(self, place, pg_url, tmp_path, start, capsys):
        start(faults=[faults.status(400)])
        with worker_of(pg_url, tmp_path):
            assert many(pg_url, write_tasks(place, 4), "-o", "out.jsonl", "--json") == 3
            bulk = fields_of(capsys)["run_id"]
            assert main(["run", "workflow", "review", "--task", "Go", "--json"]) == 0
            workflow = fields_of(capsys)["run_id"]
        assert main(["runs", "list", "--json", "--database", pg_url]) == 0
        newest, oldest = fields_of(capsys)
        assert [newest["run"], newest["kind"]] == [workflow, "workflow"]
        assert [oldest["run"], oldest["kind"], oldest["status"]] == [bulk, "bulk", "done"]
        assert (oldest["succeeded"], oldest["failed"]) == (3, 1)
        assert main(["runs", "list", "--json"]) == 0
        assert [one["run"] for one in fields_of(capsys)] == [workflow]
        assert main(["runs", "show", bulk, "--database", pg_url]) == 0
        shown = capsys.readouterr().out
        assert "3 succeeded, 1 failed, 0 cancelled, 0 open" in shown
        assert str(place / "out.jsonl") in shown and "400" in shown

    def test_a_run_is_cancelled_from_elsewhere(self, place, pg_url, tmp_path, start, capsys, spawn):
        api = start(time_to_first_token=0.5)
        with worker_of(pg_url, tmp_path, "--concurrency", "1"):
            driver = spawn("run", "many", write_tasks(place, 30), "-o", "out.jsonl", "--durable")
            until(lambda: len(api.requests) >= 2, "calls are under way")
            assert main(["runs", "list", "--json", "--database", pg_url]) == 0
            (found,) = fields_of(capsys)
            assert main(["runs", "cancel", found["run"], "--json", "--database", pg_url]) == 0
            assert fields_of(capsys)["cancelled"] > 20
            _, error = driver.communicate(timeout=90)
        assert driver.returncode == 130
        assert f"run {found['run']} was cancelled by another command" in error
        assert len(api.requests) < 10
        assert all(one["success"] for one in results())

    def test_resumes_bulk_run_from_any_folder(self, place, pg_url, tmp_path, start, capsys, monkeypatch):
        api = start(faults=[faults.status(401)])
        command = ("run", "many", "tasks.jsonl", "-o", "out.jsonl", "--json", "--durable")
        monkeypatch.setenv("CLAUDE_FORCE_DATABASE_URL", pg_url)
        write_tasks(place, 5)
        with worker_of(pg_url, tmp_path, "--concurrency", "1"):
            assert main(list(command)) == 1
            run_id = fields_of(capsys)["run_id"]
            monkeypatch.chdir("/")
            assert main(["runs", "resume", run_id]) == 0
        fields = fields_of(capsys)
        assert (fields["run_id"], fields["succeeded"]) == (run_id, 5)
        assert len(api.requests) >= 6
        assert len(results(place / "out.jsonl")) == 5

    def test_no_password_is_noted_down(self, place, pg_url, worker, clean_environment):
        assert many(pg_url, write_tasks(place, 1), "-o", "out.jsonl") == 0
        (note,) = (clean_environment / ".claude" / "runs" / "bulk").iterdir()
        assert "postgresql" not in note.read_text()
        assert note.stat().st_mode & 0o077 == 0

    def test_shows_run_of_other_machine(self, place, pg_url, worker, capsys, monkeypatch, tmp_path_factory):
        assert many(pg_url, write_tasks(place, 2), "-o", "out.jsonl", "--json") == 0
        run_id = fields_of(capsys)["run_id"]
        monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("elsewhere")))
        assert main(["runs", "show", run_id, "--json", "--database", pg_url]) == 0
        assert fields_of(capsys)["succeeded"] == 2
        assert main(["runs", "resume", run_id, "--database", pg_url]) == 2
        assert "its input is kept where it was begun" in capsys.readouterr().err

    @pytest.mark.parametrize("what", ["show", "cancel", "resume"])
    def test_unknown_run_exits_2(self, place, pg_url, capsys, what):
        assert main(["runs", what, "nobody-1", "--database", pg_url]) == 2
        assert "nobody-1" in capsys.readouterr().err

    def test_workers_exits_1_without_live_worker(self, place, pg_url, tmp_path, api, capsys):
        assert main(["runs", "workers", "--database", pg_url]) == 1
        assert "there are no workers" in capsys.readouterr().err
        with worker_of(pg_url, tmp_path, "--concurrency", "3"):
            until(lambda: main(["runs", "workers", "--database", pg_url]) == 0, "the worker is listed")
            capsys.readouterr()
            assert main(["runs", "workers", "--json", "--database", pg_url]) == 0
        (found,) = fields_of(capsys)
        assert (found["name"], found["concurrency"], found["alive"]) == ("w1", 3, True)

    def test_prune_removes_ended_runs_only(self, place, pg_url, worker, api, capsys, spawn):
        assert many(pg_url, write_tasks(place, 2), "-o", "out.jsonl", "--json") == 0
        ended = fields_of(capsys)["run_id"]
        worker.kill()
        spawn(
            "run",
            "many",
            write_tasks(place, 1, "more.jsonl"),
            "-o",
            "more.out",
            "--durable",
            "--cache",
            "off",
        )
        until(lambda: len(rows(pg_url, "SELECT id FROM claude_force.cf_runs")) == 2, "both are there")
        assert main(["runs", "prune", "--days", "1", "--json", "--database", pg_url]) == 0
        assert fields_of(capsys)["removed"] == 0
        rows_changed(pg_url, "UPDATE claude_force.cf_runs SET created = created - 90000")
        assert main(["runs", "prune", "--days", "1", "--json", "--database", pg_url]) == 0
        assert fields_of(capsys)["removed"] == 1
        assert [ended] not in [list(one) for one in rows(pg_url, "SELECT id FROM claude_force.cf_runs")]
        assert main(["runs", "prune", "--days", "-1", "--database", pg_url]) == 2

    @pytest.mark.parametrize("what", ["cancel", "workers"])
    def test_durable_options_need_database(self, place, capsys, what):
        assert main(["runs", what, *(["some-run"] if what == "cancel" else [])]) == 2
        assert "Name the database" in capsys.readouterr().err


def test_reports_missing_workers_each_minute():
    clock = iter((0.0, 2.0, 59.0, 61.0, 100.0, 122.0))
    notes = WorkerNotices(lambda: next(clock))
    said = [notes.next([]) for _ in range(6)]
    assert [bool(text) for text in said] == [True, False, False, True, False, True]
    assert "for 1 min" in said[3] and "for 2 min" in said[5]
    assert notes.next(["w1", "w2"]) == "2 workers at work: w1, w2"
    assert notes.next(["w1"]) is None
    assert notes.next(None) is None


def test_lost_database_error_hides_password(postgres, pg_url):
    runs = Runs(pg_url)
    assert runs.workers() == []
    postgres.drop(pg_url)
    with pytest.raises(ConfigurationError) as caught:
        runs.workers()
    runs.close()
    assert "can't be used" in str(caught.value)
    assert pg_url not in str(caught.value)
