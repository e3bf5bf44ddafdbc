"""Arbitrary bytes in files and answers: they are read, or refused with a typed error."""

import asyncio
import contextlib
import json
import logging
import random
import sqlite3
from pathlib import Path

import pytest
from fleet import fleet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_force import ResponseCache
from claude_force.agents import Registry
from claude_force.agents.definition import read_definition
from claude_force.bulk import TaskFile
from claude_force.bulk.results_file import ResultsFile
from claude_force.cli.main import main
from claude_force.errors import CacheError, CallError, ClaudeForceError, ConfigurationError, InputError
from claude_force.limits.prices import cost
from claude_force.testing import faults
from claude_force.testing.replies import Message
from claude_force.transport.error_mapping import from_status, parsed
from claude_force.transport.messages import BodyReader, StreamReader, read_usage
from claude_force.types import Usage
from claude_force.workflow import check, read_workflow

DEEP = "[" * 100_000
LONG_NUMBER = "9" * 5000
many_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\0", "..", "a", "../x", "/etc/passwd", "x.md", " "]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def fields(*names):
    """An object with any of these fields, each with anything in it."""
    return st.dictionaries(st.sampled_from(names), JSON, max_size=len(names)) | JSON


def damaged(draw, whole):
    """`whole` with bytes of it changed, or cut off, or repeated."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "repeat", "insert"]))
        if kind == "flip" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[: at + 1]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


# -- answers of a server --------------------------------------------------------------------------------

TEXT = 'An answer with "quotes", ünïcödé, \\ and \n lines. ' * 3
BLOCKS = [{"type": "text", "text": TEXT}]
MESSAGE = Message("msg_1", "claude-sonnet-5-5", BLOCKS, "end_turn", {"input_tokens": 9, "output_tokens": 40})
STREAM = b"".join(MESSAGE.events(4))


def read(reader, *chunks):
    for chunk in chunks:
        reader.feed(chunk)
    return reader.reply("req_1")


class TestAnswers:
    def test_byte_by_byte_is_as_in_one_piece(self):
        assert read(StreamReader(), *(bytes([one]) for one in STREAM)).text == TEXT

    def test_cut_stream_is_error_with_known_cost(self):
        billed_from = STREAM.index(b"\n\n") + 2
        for end in range(len(STREAM)):
            reader = StreamReader()
            with contextlib.suppress(CallError):
                reply = read(reader, STREAM[:end])
                # The answer ends with its stop reason.
                assert reply.text == TEXT and reader.stopped
            assert (reader.billed() is not None) == (end >= billed_from)

    @given(st.data())
    def test_damaged_stream_is_typed(self, data):
        reader = StreamReader()
        with contextlib.suppress(CallError):
            read(reader, damaged(data.draw, STREAM))
        usage = reader.billed()
        assert usage is None or min(one for one in usage.__dict__.values() if type(one) is int) >= 0

    @given(st.data())
    def test_damaged_body_is_typed(self, data):
        with contextlib.suppress(CallError):
            assert isinstance(read(BodyReader(), damaged(data.draw, MESSAGE.body())).text, str)

    @pytest.mark.parametrize("what", [DEEP, '{"a":' * 100_000, LONG_NUMBER, '{"a":' + LONG_NUMBER + "}"])
    def test_unreadable_number_is_typed(self, what):
        with pytest.raises(CallError):
            read(StreamReader(), f"data: {what}\n\n".encode())
        with pytest.raises(CallError):
            read(BodyReader(), what.encode())

    @given(
        st.dictionaries(st.sampled_from(sorted(Usage().__dict__)), JSON | st.integers(-(10**400), 10**400))
    )
    def test_counts_of_any_kind_have_a_price(self, counts):
        usage = read_usage(counts)
        known = cost("claude-sonnet-5-5", usage)
        assert known is None or known >= 0

    def test_endlessly_nested_error_is_typed(self):
        assert isinstance(from_status(500, parsed(DEEP), {}, 0.0), CallError)

    async def test_unreadable_answer_fails_its_row(self, project):
        plan = [faults.body(f"data: {DEEP}\n\n", 200, "text/event-stream")]
        async with fleet(project, {"faults": plan}, max_concurrent=1, max_retries=1) as (orchestrator, _):
            tasks = [("python-expert", f"Task {number}") for number in range(3)]
            results = await orchestrator.execute_multiple(tasks)
        assert sorted(result.success for result in results) == [False, True, True]


# -- what a project holds -------------------------------------------------------------------------------

TAGS = [
    "!!int",
    "!!float",
    "!!bool",
    "!!timestamp",
    "!!binary",
    "!!set",
    "!!omap",
    "!!pairs",
    "!!null",
    "!!map",
]


class TestProject:
    @given(st.text(st.sampled_from("-:\n#&*[]{}\"'| >!?%@a1.\t=<,~\u2028\ud800\0"), max_size=60))
    def test_any_front_matter_is_read(self, front):
        self._is_read_or_told(read_definition(f"---\n{front}\n---\nbody"))

    @given(st.sampled_from(TAGS), st.text(max_size=12), st.sampled_from(['"', "'", ""]))
    def test_yaml_tag_with_wrong_value_is_read(self, tag, value, quote):
        self._is_read_or_told(read_definition(f"---\nname: {tag} {quote}{value}{quote}\n---\nbody"))

    def _is_read_or_told(self, found):
        assert all(isinstance(name, str) for name in found.fields)
        assert found.problem or found.body.endswith("body")

    @many_files
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "agents": st.dictionaries(
                    st.text(max_size=5), fields("file", "contract", "domains", "priority"), max_size=4
                )
                | JSON,
                "workflows": st.dictionaries(
                    st.text(max_size=5),
                    st.lists(JSON, max_size=3)
                    | st.fixed_dictionaries(
                        {
                            "steps": st.lists(
                                fields("id", "agent", "task", "dependencies", "foreach", "when", "model"),
                                max_size=4,
                            )
                        }
                    )
                    | JSON,
                    max_size=3,
                )
                | JSON,
            },
        )
        | JSON
    )
    def test_any_claude_json_is_read_or_refused(self, tmp_path_factory, content):
        folder = tmp_path_factory.mktemp("any") / ".claude"
        folder.mkdir()
        (folder / "x.md").write_text("You help.")
        (folder / "claude.json").write_text(json.dumps(content))
        with contextlib.suppress(ConfigurationError, InputError):
            registry = Registry(folder / "claude.json")
            registry.list_agents()
            registry.problems()
            for name in registry.list_workflows():
                with contextlib.suppress(ConfigurationError, InputError):
                    check(read_workflow(name, registry.workflow(name), True), registry.get, {})

    @many_files
    @given(st.data())
    def test_damaged_claude_json_is_read_or_refused(self, tmp_path_factory, data):
        folder = tmp_path_factory.mktemp("any") / ".claude"
        folder.mkdir()
        whole = b'{"agents": {"a": {"file": "x.md", "domains": ["b"]}}, "workflows": {"w": ["a", "a"]}}'
        (folder / "claude.json").write_bytes(damaged(data.draw, whole))
        with contextlib.suppress(ConfigurationError):
            agents = Registry(folder / "claude.json").list_agents()
            assert all(isinstance(agent["name"], str) for agent in agents)


# -- rows in and rows out -------------------------------------------------------------------------------


class TestRows:
    @many_files
    @given(st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".txt"]), st.data())
    def test_any_task_file_is_read_or_refused(self, tmp_path_factory, suffix, data):
        whole = {
            ".jsonl": b'{"task": "one", "agent": "a"}\n{"task": "two", "id": 5}\n',
            ".json": b'[{"task": "one"}, "two"]',
            ".csv": b'task,agent\n"one, and ""two""",a\nthree,b\n',
            ".tsv": b"task\tagent\none\ta\n",
            ".txt": b"one\ntwo\n",
        }[suffix]
        path = tmp_path_factory.mktemp("any") / f"tasks{suffix}"
        path.write_bytes(
            data.draw(st.binary(max_size=60)) if data.draw(st.booleans()) else damaged(data.draw, whole)
        )
        with contextlib.suppress(InputError):
            for index, row in enumerate(TaskFile(path, "agent")):
                assert row.index == index
                assert row.problem or isinstance(row.task, str)
                assert len(row.key("")) == 16

    @many_files
    @given(st.lists(fields("index", "key", "success", "cost", "error_type", "output"), max_size=3), st.data())
    def test_any_output_is_resumed_or_left(self, tmp_path_factory, lines, data):
        path = tmp_path_factory.mktemp("any") / "out.jsonl"
        whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
        path.write_bytes(damaged(data.draw, whole) if whole and data.draw(st.booleans()) else whole)
        before = path.read_bytes()
        try:
            with ResultsFile(path) as output:
                for index, row in output.saved.items():
                    assert index >= 0 and row.cost >= 0 and isinstance(row.success, bool)
        except InputError:
            assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "line",
        [
            DEEP,
            '{"index": 0, "key": "k", "success": true, "cost": "x"}',
            '{"index": 0, "key": "k", "success": true, "cost": NaN}',
            '{"index": -1, "key": "k", "success": true, "cost": 1}',
            '{"index": 0, "key": 7, "success": true, "cost": 1}',
        ],
        ids=["too deep", "a cost of text", "no number", "before the first", "an invalid key"],
    )
    def test_foreign_output_is_reported_and_left(self, project, monkeypatch, capsys, line):
        monkeypatch.chdir(project.parent.parent)
        Path("tasks.txt").write_text("one\n")
        # The last line may be a torn one.
        text = f'{line}\n{{"index": 0, "key": "k", "success": true, "cost": 1}}\n'
        Path("out.jsonl").write_text(text)
        assert main(["run", "many", "tasks.txt", "--agent", "python-expert", "-o", "out.jsonl"]) != 0
        assert "line 1 is not a result of a run" in capsys.readouterr().err
        assert Path("out.jsonl").read_text() == text


# -- what the package itself keeps ----------------------------------------------------------------------


class TestCache:
    def test_any_cache_files_are_misses(self, tmp_path, soak):
        names = ("answers-1.db", "answers-1.db-wal", "answers-1.db-shm", "generation", "lock", "leases")
        chance = random.Random(6)
        for number in range(400 if soak else 40):
            folder = tmp_path / str(number)
            folder.mkdir()
            for name in chance.sample(names, chance.randrange(1, 5)):
                size = chance.choice((0, 1, 7, 100, 4096, 20_000))
                (folder / name).write_bytes(bytes(chance.choices(range(256), k=size)))
            with ResponseCache(cache_dir=folder, cache_secret="a secret of the tests") as cache:
                assert cache.get("agent", "task", "model") is None
                assert cache.set("agent", "task", "model", "fresh")
                assert cache.get("agent", "task", "model")["response"] == "fresh"
            with ResponseCache(cache_dir=folder, cache_secret="a secret of the tests") as cache:
                assert cache.get("agent", "task", "model")["response"] == "fresh"


class TestJournal:
    """Of the runs of workflows. One that is damaged costs the resumption, never the run."""

    @pytest.fixture
    def run_id(self, project):
        return self._once(project, lambda orchestrator: orchestrator.execute_workflow("review", "x")).run_id

    @pytest.fixture
    def path(self, run_id):
        return Path.home() / ".claude" / "runs" / "journal.sqlite"

    def _once(self, project, work, patience=20):
        async def once():
            async with fleet(project) as (orchestrator, _):
                return await asyncio.wait_for(work(orchestrator), patience)

        return asyncio.run(once())

    def _outcomes(self, project, run_id):
        """How a resumption, a list and a new run end; `CacheError` says that there is no journal."""
        for work in (
            lambda orchestrator: orchestrator.execute_workflow("review", resume=run_id),
            lambda orchestrator: orchestrator.runs(),
        ):
            with contextlib.suppress(ClaudeForceError):
                self._once(project, work)
        new = self._once(project, lambda orchestrator: orchestrator.execute_workflow("review", "y"))
        assert new.success
        return new

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE runs SET inputs = '{'",
            "UPDATE runs SET inputs = '5'",
            "UPDATE runs SET spent = 'x'",
            "UPDATE runs SET began = 'x'",
            "UPDATE answers SET signature = 'x'",
            "UPDATE answers SET question = 'x'",
            "UPDATE answers SET result = x'ff'",
            "UPDATE answers SET result = '{}'",
        ],
    )
    def test_changed_row_is_asked_again(self, project, run_id, path, change):
        db = sqlite3.connect(str(path))
        with db:
            db.execute(change)
        db.close()
        assert self._outcomes(project, run_id).run_id

    def test_truncated_journal_is_set_aside(self, project, run_id, path, caplog):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with caplog.at_level(logging.WARNING):
            assert self._outcomes(project, run_id).run_id
        assert "was damaged" in caplog.text
        assert len(list(path.parent.glob("*.damaged-*[0-9]"))) == 1

    def test_journal_damage_costs_no_run(self, project, run_id, path, soak):
        whole, chance = path.read_bytes(), random.Random(7)
        for _ in range(200 if soak else 12):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 30)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data)
            self._outcomes(project, run_id)

    def test_failed_resume_releases_run(self, project, run_id, path):
        whole = path.read_bytes()
        db = sqlite3.connect(str(path))
        with db:
            db.execute("ALTER TABLE answers RENAME TO others")
            db.execute("CREATE TABLE answers (run TEXT)")
        db.close()
        with pytest.raises(CacheError):
            self._once(project, lambda orchestrator: orchestrator.execute_workflow("review", resume=run_id))
        path.write_bytes(whole)
        resumed = self._once(project, lambda one: one.execute_workflow("review", resume=run_id))
        assert [result.cached for result in resumed] == [True, True]
