"""Cached answers in the engine: paid for once, never stale, and no fault of the cache fails a call."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pydantic
import pytest
from fleet import MODEL, FakeClock, ended, fleet, settled, until, write_project

from claude_force import AgentOrchestrator, ResponseCache
from claude_force.cache.request_key import RequestKey, reply_from_hit, request_key
from claude_force.errors import InvalidOptionError
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.storage.batch_worker import BatchWorker
from claude_force.testing import MessagesServer, faults
from claude_force.types import Call, Reply, Usage

ROOT = Path(__file__).parent.parent
ASK = ("python-expert", "Explain decorators")


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


class Metadata(pydantic.BaseModel):
    """As the SDK takes it, and JSON does not."""

    user_id: str


class Pieces(CallListener):
    """Counts the pieces of text that the last attempt has had."""

    attempt = pieces = 0

    def started(self, attempt):
        self.attempt, self.pieces = attempt, 0

    def wrote(self, text):
        self.pieces += 1


async def twice(project, server=None, second=None, **limits):
    """Two results of the same call, and the number of requests; `second` changes the second call."""
    async with fleet(project, server, **limits) as (orchestrator, running):
        one = await orchestrator.execute_agent(*ASK)
        other = await orchestrator.execute_agent(*ASK, **(second or {}))
        return one, other, len(running.requests)


class TestAsked:
    """Pure: what is compared. Other texts or names here would make every kept answer a miss."""

    def test_key_fields(self):
        call = Call("a", ("You are a.", "Contract", "Skill"), "task", "m", 5, {"top_p": 1, "top_k": 2})
        found = request_key(call, (("endpoint", "e"),))
        assert found[:3] == ("a", "task", "m")
        assert found.fingerprint == {
            "definition": "You are a.",
            "contract": "Contract\nSkill",
            "max_tokens": "5",
            "options": '{"top_k": 2, "top_p": 1}',
            "endpoint": "e",
        }

    def test_call_without_a_system_prompt(self):
        found = request_key(Call("command", (), "task", "m", 5), ())
        assert (found.fingerprint["definition"], found.fingerprint["contract"]) == ("", "")

    def test_reply_has_all_stored_fields(self):
        usage = Usage(1, 2, cache_read_input_tokens=3, web_search_requests=4)
        plain = {"response": "Hi", "input_tokens": 5, "output_tokens": 6}
        hit = {**plain, "estimated_cost": 0.5, "cache_age_seconds": 7.0}
        more = {"model": "m-1", "stop_reason": "end_turn", "request_id": "r", "usage": usage.__dict__}
        key = RequestKey("a", "task", "m", {})
        same = {"attempts": 0, "cost": 0.0, "saved_cost": 0.5, "cached": True, "cache_age": 7.0}
        assert reply_from_hit({**hit, **more}, key) == Reply("Hi", "m-1", usage, "end_turn", "r", **same)
        assert reply_from_hit(hit, key) == Reply("Hi", "m", Usage(5, 6), **same)
        assert reply_from_hit(None, key) is None

    def test_option_without_a_written_form(self):
        assert request_key(Call("a", (), "task", "m", 5, {"metadata": object()}), ()) is None

    async def test_policies_by_their_names(self, project):
        one, other, requests = await twice(project, second={"cache": "use"})
        assert (one.cached, other.cached, requests) == (False, True, 1)
        with pytest.raises(InvalidOptionError, match="cache is 'on'; choose one of use, refresh, off"):
            await twice(project, second={"cache": "on"})


class TestHit:
    async def test_hit_costs_nothing(self, project):
        fresh, hit, requests = await twice(project)
        assert requests == 1
        assert (fresh.cached, fresh.metadata["cached"]) == (False, False)
        assert (hit.success, hit.cached, hit.attempts, hit.cost) == (True, True, 0, 0.0)
        assert hit.saved_cost == fresh.cost
        for field in ("output", "usage", "model", "stop_reason", "request_id"):
            assert getattr(hit, field) == getattr(fresh, field)

    async def test_hit_has_old_metadata(self, project):
        fresh, hit, _ = await twice(project)
        assert hit.metadata["cached"] is True
        assert hit.metadata["cache_age_seconds"] >= 0
        assert hit.metadata["estimated_cost"] == 0.0
        assert hit.metadata["tokens_used"] == fresh.metadata["tokens_used"]
        assert "cache_age_seconds" not in fresh.metadata
        json.dumps(hit.to_dict())

    async def test_is_found_by_the_next_process(self, project):
        async with fleet(project) as (first, _):
            await first.execute_agent(*ASK)
            await first.close()
            # While the first server has its port, the second one has another.
            async with fleet(project) as (orchestrator, server):
                # Another endpoint: an answer of one is not an answer of the other.
                assert not (await orchestrator.execute_agent(*ASK)).cached
                orchestrator.base_url = server.base_url + "/"
                assert (await orchestrator.execute_agent(*ASK)).cached
                await orchestrator.close()
                assert (await orchestrator.execute_agent(*ASK)).cached
                assert len(server.requests) == 1

    async def test_hit_needs_no_slot(self, project):
        with MessagesServer() as server:
            async with fleet(project) as (orchestrator, _):
                orchestrator.base_url = server.base_url
                await orchestrator.execute_agent(*ASK)
        async with fleet(project, {"faults": [faults.silence_before_first_byte()]}, max_concurrent=1) as (
            orchestrator,
            running,
        ):
            blocked = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "Something else"))
            assert await ended(lambda: running.in_flight)
            orchestrator.base_url = server.base_url
            assert (await orchestrator.execute_agent(*ASK)).cached
            blocked.cancel()
            await asyncio.gather(blocked, return_exceptions=True)


class TestMiss:
    @pytest.mark.parametrize(
        "second",
        [
            {"model": "claude-opus-5-5"},
            {"max_tokens": 100},
            {"stop_sequences": ["x"]},
            {"cache": "refresh"},
            {"cache": "off"},
        ],
    )
    async def test_changes_make_another_key(self, project, second):
        _, other, requests = await twice(project, second=second)
        assert (other.cached, requests) == (False, 2)

    @pytest.mark.parametrize("file", ["python.md", "contracts/python.md"])
    async def test_an_edited_agent_file_is_a_miss(self, project, file):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent(*ASK)
            (project.parent / file).write_text("You know better now.\n", encoding="utf-8")
            assert not (await orchestrator.execute_agent(*ASK)).cached
            assert len(server.requests) == 2

    async def test_refresh_replaces_answer(self, project):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent(*ASK)
            refreshed = await orchestrator.execute_agent(*ASK, cache="refresh")
            hit = await orchestrator.execute_agent(*ASK)
            assert len(server.requests) == 2
            assert hit.request_id == refreshed.request_id

    async def test_off_bypasses_cache_and_sharing(self, project):
        async with fleet(project) as (orchestrator, server):
            results = await orchestrator.execute_multiple([ASK] * 3, cache="off")
            assert [one.shared for one in results] == [False] * 3
            assert not (await orchestrator.execute_agent(*ASK)).cached
            assert len(server.requests) == 4

    async def test_a_truncated_answer_is_not_kept(self, project):
        async with fleet(project) as (orchestrator, server):
            for _ in range(2):
                assert (await orchestrator.execute_agent(*ASK, max_tokens=3)).truncated
            assert len(server.requests) == 2

    async def test_a_failure_is_not_kept(self, project):
        one, other, requests = await twice(project, {"faults": [faults.status(400)]})
        assert (one.success, other.success, requests) == (False, True, 2)

    async def test_refuses_unknown_policy(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match="refresh"):
                await orchestrator.execute_agent(*ASK, cache="maybe")
            assert not server.requests

    async def test_expired_answer_is_a_miss(self, project, tmp_path):
        now = [1000.0]
        with ResponseCache(1, cache_dir=tmp_path / "own", clock=lambda: now[0]) as cache:
            async with fleet(project, response_cache=cache) as (orchestrator, server):
                await orchestrator.execute_agent(*ASK)
                now[0] += 3600
                assert not (await orchestrator.execute_agent(*ASK)).cached
                assert len(server.requests) == 2


class TestSettings:
    async def test_switched_off_it_writes_nothing(self, project, clean_environment):
        _, other, requests = await twice(project, enable_cache=False)
        assert (other.cached, requests) == (False, 2)
        assert not (clean_environment / ".claude").exists()

    async def test_switch_holds_from_next_call(self, project):
        async with fleet(project, enable_cache=False) as (orchestrator, server):
            await orchestrator.execute_agent(*ASK)
            orchestrator.enable_cache = True
            await orchestrator.execute_agent(*ASK)
            assert (await orchestrator.execute_agent(*ASK)).cached
            assert len(server.requests) == 2

    async def test_own_cache_stays_open(self, project, tmp_path):
        cache = ResponseCache(cache_dir=tmp_path / "own", exclude_agents=["code-reviewer"])
        async with fleet(project, response_cache=cache) as (orchestrator, server):
            await orchestrator.execute_multiple([ASK, ASK, ("code-reviewer", "x"), ("code-reviewer", "x")])
            assert len(server.requests) == 3
        assert cache.get_stats()["entries"] == 1
        cache.close()

    async def test_unusable_folder_fails_no_call(self, project, clean_environment, caplog):
        (clean_environment / ".claude").write_text("a file where the folder should be", encoding="utf-8")
        with caplog.at_level(logging.WARNING):
            one, other, requests = await twice(project)
        assert (one.success, other.success, requests) == (True, True, 2)
        assert caplog.text.count("answers are not cached") == 1

    async def test_cancelled_leader_counts_once(self, project):
        prices = {MODEL: {"input": 3, "output": 15}}

        async def paid_for(calls, cancel):
            seen = []
            server = {"faults": [faults.truncated_stream()], "time_to_first_token": 0.3}
            limits = {"prices": prices, "observers": [seen.append], "enable_cache": False}
            async with fleet(project, server, **limits) as (orchestrator, running):
                pending = [asyncio.ensure_future(orchestrator.execute_agent(*ASK)) for _ in range(calls)]
                assert await ended(lambda: len(running.requests) >= 2)
                for one in pending[:cancel]:
                    one.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
            results = [one.result for one in seen]
            return sum(one.cost or 0.0 for one in results), sum(one.attempts for one in results)

        cost, attempts = await paid_for(1, cancel=0)
        assert attempts == 2
        assert await paid_for(2, cancel=1) == (pytest.approx(cost), 2)

    @pytest.mark.parametrize(
        ("broken", "callers", "requests"),
        [
            pytest.param([faults.truncated_stream()] * 2, 2, 3, id="it fails, the other asks again"),
            pytest.param([faults.truncated_stream()] * 4, 4, 4, id="it fails, so does the other"),
            pytest.param([faults.truncated_stream(), faults.silence_in_mid_stream(6)], 2, 2, id="both leave"),
        ],
    )
    async def test_spent_after_leader_left_counts_once(self, project, broken, callers, requests):
        seen, both_leave = [], requests == 2
        limits = {
            "prices": {MODEL: {"input": 3, "output": 15}},
            "observers": [seen.append],
            "enable_cache": False,
            "max_retries": 2,
            "budget_usd": 10.0,
        }
        server = {"faults": broken, "time_to_first_token": 0.2}
        async with fleet(project, server, **limits) as (orchestrator, running):
            listener = Pieces()
            pending = [
                asyncio.ensure_future(orchestrator._calls.execute(CallContext(listener=listener), *ASK))
                for _ in range(callers)
            ]
            assert await ended(lambda: listener.attempt == 2)
            pending[0].cancel()
            if both_leave:
                assert await ended(lambda: listener.pieces)
                pending[1].cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            results = [one.result for one in seen]
            assert len(running.requests) == sum(one.attempts for one in results) == requests
            assert sum(one.cost or 0.0 for one in results) == pytest.approx(orchestrator.spent_usd)
            assert len(results) == callers

    async def test_close_retries_folder(self, project, clean_environment):
        (clean_environment / ".claude").write_text("a file where the folder should be", encoding="utf-8")
        async with fleet(project) as (orchestrator, _):
            await orchestrator.execute_agent(*ASK)
            await orchestrator.close()
            (clean_environment / ".claude").unlink()
            await orchestrator.execute_agent(*ASK)
            assert (await orchestrator.execute_agent(*ASK)).cached

    async def test_failing_database_fails_no_call(self, project, clean_environment):
        folder = clean_environment / ".claude" / "cache"
        (folder / "answers-1.db").mkdir(parents=True)
        one, other, requests = await twice(project)
        assert (one.success, other.success, requests) == (True, True, 2)

    async def test_cache_bug_fails_no_call(self, project, tmp_path, caplog):
        with ResponseCache(cache_dir=tmp_path / "own") as cache:
            cache.get = cache.set_many = lambda *_: 1 / 0
            one, other, requests = await twice(project, response_cache=cache)
        assert (one.success, other.success, requests) == (True, True, 2)
        assert "the cache failed" in caplog.text

    async def test_cancellation_keeps_answer(self, project, tmp_path):
        cache = ResponseCache(cache_dir=tmp_path / "own")
        storing, go = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        original = cache.set_many

        def slow(*arguments):
            loop.call_soon_threadsafe(storing.set)
            assert go.wait(60)
            return original(*arguments)

        cache.set_many = slow
        async with fleet(project, response_cache=cache) as (orchestrator, _):
            call = asyncio.ensure_future(orchestrator.execute_agent(*ASK))
            await storing.wait()
            call.cancel()
            await settled()
            go.set()
            await asyncio.gather(call, return_exceptions=True)
        assert cache.get_stats()["entries"] == 1
        cache.close()

    async def test_unserializable_option_is_not_cached(self, project):
        option = {"metadata": Metadata(user_id="somebody")}
        async with fleet(project) as (orchestrator, server):
            for _ in range(2):
                assert not (await orchestrator.execute_agent(*ASK, **option)).cached
            why = await orchestrator.explain_miss(*ASK, **option)
        assert [one.body["metadata"] for one in server.requests] == [{"user_id": "somebody"}] * 2
        assert (why["hit"], "written as JSON" in why["reason"]) == (False, True)

    def test_the_sync_face_has_it_too(self, project, messages_server):
        with AgentOrchestrator(project) as orchestrator:
            assert not orchestrator.run_agent(*ASK).cached
            assert orchestrator.run_agent(*ASK).cached
            assert not orchestrator.run_agent(*ASK, cache="refresh").cached
        assert len(messages_server.requests) == 2

    async def test_why_a_call_is_a_miss(self, project):
        async with fleet(project) as (orchestrator, _):
            await orchestrator.execute_agent(*ASK)
            assert (await orchestrator.explain_miss(*ASK))["hit"] is True
            assert (await orchestrator.explain_miss(*ASK, max_tokens=5))["differs"] == ["max_tokens"]
            (project.parent / "python.md").write_text("You know better now.\n", encoding="utf-8")
            assert (await orchestrator.explain_miss(*ASK))["differs"] == ["definition"]


def test_cli_hit_imports_no_sdk(project, tmp_path, clean_environment):
    command = [sys.executable, "-X", "importtime", "-m", "claude_force", "run", "agent", *ASK[:1]]
    command += ["--task", "x", "--config", str(project)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": "none"}
    with MessagesServer() as server:
        environment["ANTHROPIC_BASE_URL"] = server.base_url
        fresh = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    hit = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (hit.returncode, hit.stdout) == (0, fresh.stdout)
    imported = {line.rpartition("|")[2].strip() for line in hit.stderr.splitlines() if "|" in line}
    assert "claude_force.response_cache" in imported
    assert not imported & {"anthropic", "pydantic", "aiohttp", "rich", "genai_prices"}


class TestSharing:
    @pytest.mark.parametrize("enabled", [True, False])
    async def test_50_callers_make_one_request(self, project, enabled):
        async with fleet(project, {"time_to_first_token": 0.05}, enable_cache=enabled) as (
            orchestrator,
            server,
        ):
            results = await asyncio.gather(*(orchestrator.execute_agent(*ASK) for _ in range(50)))
            assert len(server.requests) == 1
            assert all(one.success for one in results)
            assert [one.shared for one in results].count(False) == 1
            (paid,) = (one for one in results if not one.shared)
            assert {one.cost for one in results if one.shared} == {0.0}
            assert {one.saved_cost for one in results if one.shared} == {paid.cost}
            assert sum(one.attempts for one in results) == 1

    async def test_failed_leader_is_replaced(self, project):
        async with fleet(project, {"faults": [faults.status(529)]}, max_retries=1) as (orchestrator, server):
            results = await orchestrator.execute_multiple([ASK] * 5)
            assert [one.success for one in results].count(False) == 1
            assert len(server.requests) == 2

    async def test_refused_key_costs_one_request(self, project):
        async with fleet(project, {"faults": [faults.status(401)]}) as (orchestrator, server):
            results = await orchestrator.execute_multiple([ASK] * 5)
            assert not any(one.success for one in results)
            assert len(server.requests) == 1
            assert sum(one.attempts for one in results) == 1


ASKER = """
import asyncio, json, sys
from claude_force import AsyncAgentOrchestrator, ResponseCache

acquire, told = ResponseCache.acquire_lease, []

def acquire_and_tell(*asked):
    acquired = acquire(*asked)
    if not acquired and not told:
        told.append(print("waits", flush=True))
    return acquired

ResponseCache.acquire_lease = acquire_and_tell

async def main():
    async with AsyncAgentOrchestrator(sys.argv[1], api_key="x", max_concurrent=50) as orchestrator:
        print("ready", flush=True)
        sys.stdin.readline()
        results = await orchestrator.execute_multiple([("python-expert", "Explain decorators")] * 50)
        print(json.dumps([result.success for result in results]), flush=True)

asyncio.run(main())
"""


class TestProcesses:
    @pytest.fixture
    def askers(self, project):
        """Starts processes that wait for a word before they ask."""
        running = []

        def start(server, count):
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "ANTHROPIC_BASE_URL": server.base_url}
            for _ in range(count):
                process = subprocess.Popen(
                    [sys.executable, "-c", ASKER, str(project)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                )
                running.append(process)
            for process in running:
                assert process.stdout.readline() == b"ready\n"
            return running

        yield start
        for process in running:
            process.kill()
            process.communicate()

    def go(self, processes):
        for process in processes:
            process.stdin.write(b"\n")
            process.stdin.flush()

    def test_four_processes_make_one_request(self, askers):
        with MessagesServer(time_to_first_token=0.3) as server:
            processes = askers(server, 4)
            self.go(processes)
            for process in processes:
                out, _ = process.communicate(timeout=60)
                assert json.loads(out.splitlines()[-1]) == [True] * 50
            assert len(server.requests) == 1

    def test_killed_process_is_replaced(self, askers):
        with MessagesServer(faults=[faults.silence_before_first_byte()]) as server:
            processes = askers(server, 3)
            self.go(processes[:1])
            until(lambda: server.in_flight)
            self.go(processes[1:])
            for process in processes[1:]:
                assert process.stdout.readline() == b"waits\n"
            processes[0].send_signal(signal.SIGKILL)
            for process in processes[1:]:
                out, _ = process.communicate(timeout=60)
                assert json.loads(out.splitlines()[-1]) == [True] * 50
            assert len(server.requests) == 2

    async def test_stopped_process_blocks_no_other(self, project, tmp_path):
        clock = FakeClock()
        with ResponseCache(cache_dir=tmp_path / "own") as cache:
            async with fleet(project, response_cache=cache, clock=clock) as (orchestrator, server):
                await orchestrator.execute_agent(*ASK)
                cache.clear()
                held = []
                cache.acquire_lease = lambda *asked: held.append(asked) or False
                assert (await orchestrator.execute_agent(*ASK)).success
                assert 290 < clock.time < 310
                assert len(server.requests) == 2


class TestClerk:
    async def test_jobs_are_batched(self):
        batches, go = [], threading.Event()

        def work(jobs):
            batches.append(len(jobs))
            go.wait(5)
            return [job * 2 for job in jobs]

        worker = BatchWorker(work, "worker")
        results = [asyncio.ensure_future(worker.submit(number)) for number in range(50)]
        assert await ended(lambda: batches)
        go.set()
        assert await asyncio.gather(*results) == [2 * number for number in range(50)]
        assert sum(batches) == 50
        assert len(batches) <= 2
        worker.close()

    async def test_close_finishes_queue(self):
        done = []
        worker = BatchWorker(lambda jobs: [done.append(job) for job in jobs], "worker")
        for number in range(100):
            worker.submit_nowait(number)
        await asyncio.get_running_loop().run_in_executor(None, worker.close)
        assert done == list(range(100))
        await worker.submit("again")
        assert done[-1] == "again"
        worker.close()

    async def test_cancelled_job_is_done(self):
        done = []
        worker = BatchWorker(lambda jobs: [done.append(job) for job in jobs], "worker")
        job = asyncio.ensure_future(worker.submit("cancelled"))
        await asyncio.sleep(0)
        job.cancel()
        await worker.submit("next")
        assert done == ["cancelled", "next"]
        worker.close()

    async def test_closed_loop_harms_nobody(self):
        go, other, left = threading.Event(), asyncio.new_event_loop(), []
        worker = BatchWorker(lambda jobs: [go.wait(5) for _ in jobs], "worker")

        async def ask_and_leave():
            left.append(asyncio.ensure_future(worker.submit("left alone")))
            await asyncio.sleep(0)

        await asyncio.get_running_loop().run_in_executor(None, other.run_until_complete, ask_and_leave())
        left[0].cancel()
        await asyncio.get_running_loop().run_in_executor(None, other.run_until_complete, asyncio.sleep(0))
        other.close()
        go.set()
        assert await worker.submit("next")
        worker.close()

    async def test_cancelled_look_up_leaves_no_lease(self, project, tmp_path):
        with ResponseCache(cache_dir=tmp_path / "own") as cache:
            async with fleet(project, response_cache=cache) as (orchestrator, _):
                for _ in range(20):
                    call = asyncio.ensure_future(orchestrator.execute_agent(*ASK))
                    await asyncio.sleep(0.001)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                result = await asyncio.wait_for(orchestrator.execute_agent(*ASK), 5)
                assert result.success
