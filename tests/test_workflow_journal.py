"""The checkpoint store when it is forged, damaged, full, shared or old: it fails no run."""

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from fleet import write_project
from test_workflow_runs import DIAMOND, SECRET, answer, engine, rows, shown, steps_asked

from claude_force.errors import InvalidWorkflowError, RunBusyError, RunNotFoundError
from claude_force.testing import MessagesServer, faults
from claude_force.workflow import Step, Workflow
from claude_force.workflow.checkpoints import CheckpointStore, RunRecord, SavedAnswer

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes, forks and signals as POSIX has them")


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "journal"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def server():
    with MessagesServer(answer=answer) as running:
        yield running


def change(folder, statement, *values):
    with closing(sqlite3.connect(str(folder / "journal.sqlite"))) as db, db:
        db.execute(statement, values)


async def ran(project, server, folder, task="x", **more):
    server.requests.clear()
    async with engine(project, server, folder) as orchestrator:
        return await orchestrator.execute_workflow(DIAMOND, task, cache="off", **more)


FORGERIES = {
    "another answer": "UPDATE answers SET result = replace(result, 'word', 'lies') WHERE step = 'left'",
    "another time": "UPDATE answers SET at = at + 1 WHERE step = 'left'",
    "another part": "UPDATE answers SET part = 7 WHERE step = 'left'",
    "another step": "UPDATE answers SET step = 'other' WHERE step = 'left'",
    "another question": "UPDATE answers SET question = zeroblob(32) WHERE step = 'left'",
    "the answer of another step": "UPDATE answers SET "
    "result = (SELECT result FROM answers WHERE step = 'right'), "
    "signature = (SELECT signature FROM answers WHERE step = 'right') WHERE step = 'left'",
    "a signature of another length": "UPDATE answers SET signature = x'00' WHERE step = 'left'",
    "an answer cut off": "UPDATE answers SET result = substr(result, 1, 20) WHERE step = 'left'",
    "no text": "UPDATE answers SET result = CAST(x'fffe00' AS TEXT) WHERE step = 'left'",
    "bytes for text": "UPDATE answers SET result = CAST(result AS BLOB) WHERE step = 'left'",
    "text for bytes": "UPDATE answers SET signature = 'text', question = 'text' WHERE step = 'left'",
    "text for a number": "UPDATE answers SET part = 'text' WHERE step = 'left'",
    "text for a time": "UPDATE answers SET at = 'text' WHERE step = 'left'",
    "numbers for bytes": "UPDATE answers SET signature = 5, question = 6 WHERE step = 'left'",
    "bytes for a name": "UPDATE answers SET step = x'6c656674' WHERE step = 'left'",
}


class TestForgeries:
    @pytest.mark.parametrize("statement", FORGERIES.values(), ids=FORGERIES)
    async def test_reruns_forged_answer(self, project, server, folder, statement):
        first = await ran(project, server, folder)
        change(folder, statement)
        again = await ran(project, server, folder, resume=first.run_id)
        assert steps_asked(server) == {"left": 1}
        assert shown(again) == shown(first)

    async def test_ignores_answers_of_other_runs(self, project, server, folder):
        first, other = await ran(project, server, folder), await ran(project, server, folder)
        change(folder, "DELETE FROM answers WHERE run = ?", first.run_id)
        change(folder, "UPDATE answers SET run = ? WHERE run = ?", first.run_id, other.run_id)
        await ran(project, server, folder, resume=first.run_id)
        assert len(server.requests) == 4

    async def test_reruns_answers_of_other_secret(self, project, server, folder):
        first = await ran(project, server, folder)

        def make(folder, _):
            return CheckpointStore(folder, b"another secret altogether")

        server.requests.clear()
        async with engine(project, server, folder, make) as orchestrator:
            await orchestrator.execute_workflow(DIAMOND, resume=first.run_id, cache="off")
        assert len(server.requests) == 4

    async def test_reruns_answer_of_later_version(self, project, server, folder, caplog):
        first = await ran(project, server, folder)
        with closing(CheckpointStore(folder, SECRET)) as journal:
            (one, *_) = [one for one in journal.answers(first.run_id) if one.step == "left"]
            change(folder, "DELETE FROM answers WHERE step = 'left'")
            journal.save([(first.run_id, one._replace(result='{"of": "a later version"}'), 0.0)])
        for left in ({"left": 1}, {}):
            await ran(project, server, folder, resume=first.run_id)
            assert steps_asked(server) == left
        assert "is of another version" in caplog.text

    @pytest.mark.parametrize("inputs", ["{", "[]", "", "3", b"\xff", "[" * 100_000])
    async def test_damaged_run_hides_no_other(self, project, server, folder, inputs):
        first, other = await ran(project, server, folder), await ran(project, server, folder)
        change(folder, "UPDATE runs SET inputs = ? WHERE id = ?", inputs, first.run_id)
        async with engine(project, server, folder) as orchestrator:
            assert [one.id for one in await orchestrator.runs()] == [other.run_id]
            with pytest.raises(RunNotFoundError):
                await orchestrator.execute_workflow(DIAMOND, resume=first.run_id)


class Full(CheckpointStore):
    """A store whose file can't grow once it has a run."""

    def begin(self, run):
        super().begin(run)
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        self._db.execute(f"PRAGMA max_page_count = {pages}")


class ReadOnly(CheckpointStore):
    def __init__(self, folder, secret):
        super().__init__(folder, secret)
        self._db.execute("PRAGMA query_only = ON")


class TestTrouble:
    """A store that fails is logged, and the run goes on."""

    async def goes_on(self, project, server, caplog, folder=None, make=CheckpointStore):
        with caplog.at_level(logging.WARNING):
            async with engine(project, server, folder, make) as orchestrator:
                result = await orchestrator.execute_workflow(DIAMOND, "x")
        assert result.success
        assert len(server.requests) == 4
        return result, [one.getMessage() for one in caplog.records]

    async def test_store_folder_is_a_file(self, project, server, caplog, clean_environment):
        (clean_environment / ".claude").mkdir()
        (clean_environment / ".claude" / "runs").write_text("mine", encoding="utf-8")
        result, (warning,) = await self.goes_on(project, server, caplog)
        assert warning.startswith("the run is not saved and can't be resumed: The cache folder")
        assert result.run_id is None
        assert (clean_environment / ".claude" / "runs").read_text(encoding="utf-8") == "mine"

    async def test_unwritable_store(self, project, server, caplog, folder):
        CheckpointStore(folder, SECRET).close()
        result, (warning,) = await self.goes_on(project, server, caplog, folder, ReadOnly)
        assert warning == "the run is not saved and can't be resumed: attempt to write a readonly database"
        assert result.run_id is None

    async def test_moves_foreign_file_aside(self, project, server, caplog, folder):
        (folder / "journal.sqlite").write_text("My notes, long enough to be a page. " * 30, encoding="utf-8")
        result, (warning,) = await self.goes_on(project, server, caplog, folder)
        assert "journal.sqlite was damaged" in warning
        (aside,) = folder.glob("journal.sqlite.damaged-*")
        assert aside.read_text(encoding="utf-8").startswith("My notes")
        async with engine(project, server, folder) as orchestrator:
            assert [run.id for run in await orchestrator.runs()] == [result.run_id]

    async def test_full_disk_fails_no_run(self, project, folder, caplog):
        def long_answer(body):
            return answer(body) + "long " * 2_000

        with MessagesServer(answer=long_answer) as server:
            first, warnings = await self.goes_on(project, server, caplog, folder, Full)
            assert (
                warnings
                == [
                    f"an answer of run {first.run_id} is not saved for a resumption: database or disk is full"
                ]
                * 4
            )
            again = await ran(project, server, folder, resume=first.run_id)
            assert len(server.requests) == 4
            assert shown(again) == shown(first)
            await ran(project, server, folder, resume=first.run_id)
            assert server.requests == []

    async def test_refuses_inputs_not_in_json(self, project, server):
        workflow = Workflow("w", (Step("a", "python-expert", "${inputs.x}"),))
        async with engine(project, server) as orchestrator:
            with pytest.raises(InvalidWorkflowError, match="input 'x' is not a text, number, list"):
                await asyncio.wait_for(orchestrator.execute_workflow(workflow, "x", inputs={"x": {1}}), 30)

    async def test_unsaveable_name_fails_no_run(self, project, server, caplog):
        workflow = Workflow("half \ud800", (Step("a", "python-expert"),))
        async with engine(project, server) as orchestrator:
            result = await asyncio.wait_for(orchestrator.execute_workflow(workflow, "x"), 30)
            assert result.success
            assert result.run_id is None
            assert (await orchestrator.execute_workflow(DIAMOND, "x")).run_id
        assert "can't be resumed" in caplog.text


class TestPrivacy:
    @POSIX
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
    async def test_store_is_private(self, project, server, clean_environment, umask):
        (clean_environment / ".claude").mkdir()
        before = os.umask(umask)
        try:
            async with engine(project, server) as orchestrator:
                assert (await orchestrator.execute_workflow(DIAMOND, "x")).run_id
                runs = clean_environment / ".claude" / "runs"
                files = {path.name: path.stat().st_mode & 0o777 for path in runs.iterdir()}
        finally:
            os.umask(before)
        assert runs.stat().st_mode & 0o777 == 0o700
        assert {"journal.sqlite", "leases"} <= set(files)
        assert set(files.values()) == {0o600}

    async def test_no_secret_is_in_it(self, project, server, clean_environment):
        async with engine(project, server) as orchestrator:
            await orchestrator.execute_workflow(DIAMOND, "the task")
        secret = (clean_environment / ".claude" / "cache" / "secret").read_bytes()
        kept = b"".join(path.read_bytes() for path in (clean_environment / ".claude" / "runs").iterdir())
        assert b"the task" in kept
        assert b"sk-ant" not in kept
        assert secret not in kept

    async def test_saves_no_error_text(self, project, folder):
        with MessagesServer(faults=[faults.status(400, message="echo of a secret")]) as server:
            result = await ran(project, server, folder)
        assert "echo of a secret" in result.step("scan").reason
        assert b"echo of a secret" not in (folder / "journal.sqlite").read_bytes()


class TestAge:
    DAY = 86400.0

    def kept(self, folder, **ages):
        """Returns the runs that remain after another began; `ages` are (began, ended) in days before now."""
        now = time.time()
        with closing(CheckpointStore(folder, SECRET)) as journal:
            for name, (began, ended) in ages.items():
                journal.begin(RunRecord(name, "w", "x"))
                journal.save([(name, SavedAnswer("a", 0, b"q", now, "{}"), 0.5)])
                ended = None if ended is None else now - ended * self.DAY
                change(
                    folder,
                    "UPDATE runs SET began = ?, ended = ? WHERE id = ?",
                    now - began * self.DAY,
                    ended,
                    name,
                )
            journal.begin(RunRecord("new", "w", "x", began=now))
            found = {one.id for one in journal.recent(20)} - {"new"}
        assert set(rows(folder / "journal.sqlite", "run")) == {(one,) for one in found}
        return found

    def test_deletes_runs_after_30_days(self, folder):
        assert self.kept(folder, old=(31, 30.9), young=(29, 28)) == {"young"}

    def test_keeps_resumed_run(self, folder):
        assert self.kept(folder, resumed=(60, 1)) == {"resumed"}

    def test_deletes_run_killed_30_days_ago(self, folder):
        assert self.kept(folder, killed=(31, None)) == set()

    def test_the_last_runs_come_first(self, folder):
        with closing(CheckpointStore(folder, SECRET)) as journal:
            for number in range(5):
                journal.begin(RunRecord(f"r{number}", "w", "x", began=time.time() + number))
            assert [one.id for one in journal.recent(3)] == ["r4", "r3", "r2"]


def process(config, *more):
    """Runs the diamond by the command, in a process."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["workflows"]["diamond"] = {
        "steps": [
            {"id": one.id, "agent": one.agent, "task": one.task, "dependencies": one.dependencies}
            for one in DIAMOND.steps
        ]
    }
    config.write_text(json.dumps(content), encoding="utf-8")
    arguments = [
        "run",
        "workflow",
        "diamond",
        "--task",
        "x",
        "--cache",
        "off",
        "--config",
        str(config),
        *more,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "claude_force", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def point_to(server, monkeypatch):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


class TestProcesses:
    @POSIX
    async def test_refuses_run_of_live_process(self, project, monkeypatch):
        silent = [True]
        with MessagesServer(
            answer=answer, faults=lambda one: faults.silence_before_first_byte() if silent[0] else None
        ) as server:
            point_to(server, monkeypatch)
            other = process(project)
            end = time.monotonic() + 60
            while not server.requests and other.poll() is None and time.monotonic() < end:
                await asyncio.sleep(0.005)
            async with engine(project, server) as orchestrator:
                (run,) = await orchestrator.runs()
                with pytest.raises(RunBusyError, match="running in another process: wait for its end"):
                    await orchestrator.execute_workflow(DIAMOND, resume=run.id)
                assert len(server.requests) == 1
                other.kill()
                other.communicate(timeout=60)
                silent[0] = False
                assert (await orchestrator.execute_workflow(DIAMOND, resume=run.id)).success
        assert len(server.requests) == 5

    async def test_other_process_refuses_our_run(self, project, monkeypatch):
        refused = []

        def plan(received):
            if not refused:
                refused.append(process(project, "--resume", run_id[0]).communicate(timeout=60)[1])

        run_id = []
        with MessagesServer(answer=answer, faults=plan) as server:
            point_to(server, monkeypatch)
            async with engine(project, server) as orchestrator:
                first = asyncio.ensure_future(orchestrator.execute_workflow(DIAMOND, "x"))
                while not run_id:
                    await asyncio.sleep(0)
                    run_id.extend(one.id for one in await orchestrator.runs())
                assert (await first).success
        assert "is running in another process: wait for its end" in refused[0]
        assert len(server.requests) == 4

    @POSIX
    def test_fork_separates_runs(self, project, server, monkeypatch):
        point_to(server, monkeypatch)
        ended = subprocess.run(
            [sys.executable, "-c", FORK, str(project)], stdout=subprocess.PIPE, timeout=60, text=True
        )
        assert ended.returncode == 0
        ids = ended.stdout.split()
        assert len(set(ids)) == 3

        async def statuses():
            async with engine(project, server) as orchestrator:
                return {one.id: (one.status, one.answers) for one in await orchestrator.runs()}

        assert asyncio.run(statuses()) == dict.fromkeys(ids, ("succeeded", 2))


FORK = """
import asyncio, os, sys
from claude_force.async_orchestrator import AsyncAgentOrchestrator

orchestrator = AsyncAgentOrchestrator(sys.argv[1], enable_tracking=False)

def run():
    result = asyncio.run(orchestrator.execute_workflow("review", "x", cache="off"))
    print(result.run_id, flush=True)
    return result.success

good = run()
child = os.fork()
if child == 0:
    os._exit(0 if run() else 1)
good = os.waitpid(child, 0)[1] == 0 and run() and good
asyncio.run(orchestrator.close())
sys.exit(0 if good else 1)
"""


def test_lists_while_writing(folder):
    with closing(CheckpointStore(folder, SECRET)) as writing, closing(
        CheckpointStore(folder, SECRET)
    ) as reading:
        writing.begin(RunRecord("r", "w", "x"))
        for number in range(50):
            writing.save([("r", SavedAnswer("a", number, str(number).encode(), float(number), "{}"), 0.01)])
            assert len(reading.recent(20)) == 1
        (run,) = reading.recent(1)
        assert (run.answers, run.spent) == (50, pytest.approx(0.5))
        assert [one.part for one in reading.answers("r")] == list(range(50))


def test_opening_keeps_locks(folder):
    attempt = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    path = str(folder / "journal.sqlite")
    CheckpointStore(folder, SECRET).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        CheckpointStore(folder, SECRET).close()
        refused = subprocess.run([sys.executable, "-c", attempt, path], stderr=subprocess.PIPE, text=True)
        db.execute("ROLLBACK")
    assert "database is locked" in refused.stderr


async def test_resume_saves_new_task(project, server, folder):
    first = await ran(project, server, folder)
    other = await ran(project, server, folder, resume=first.run_id, task="another task")
    again = await ran(project, server, folder, None, resume=first.run_id)
    assert (first.task, other.task, again.task) == ("x", "another task", "another task")
    assert [step.resumed for step in again.steps] == [1, 1, 1, 1]


async def test_cost_before_may_be_unknown(project, server, folder):
    first = await ran(project, server, folder, model="a-model-without-a-price")
    again = await ran(project, server, folder, resume=first.run_id, model="a-model-without-a-price")
    assert (first.cost, again.cost, again.cost_before) == (None, 0.0, None)
