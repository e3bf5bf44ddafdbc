"""The package against llama.cpp's server and a small model: what happened is what the server itself tells."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import List

import pytest
from servers import LlamaServer

from claude_force.errors import RequestRefusedError
from claude_force.limits.call_context import CallContext, CallListener

AGENT = "python-expert"
# Long enough that nobody takes the end of the answer for the end of its connection.
ENDLESS = 3000
FREE = {LlamaServer.model: {"input": 0.0, "output": 0.0}}


def tasks(count: int, about: str) -> List[tuple]:
    return [(AGENT, f"{about}, number {number}") for number in range(count)]


def ledger(folder) -> List[dict]:
    files = sorted((folder / ".claude" / "metrics").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def gained(before, after, name: str) -> float:
    return after[name] - before[name]


class Command:
    """`claude-force` as a process of its own."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "claude_force", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self):
        """`(exit code, stdout, stderr)`"""
        out, error = self.process.communicate(timeout=300)
        return self.process.returncode, out, error


class Listener(CallListener):
    """Keeps the pieces, and how busy the server was when the first of them came."""

    def __init__(self, server):
        self.pieces, self.busy_at_first, self._server = [], None, server

    def wrote(self, text):
        if self.busy_at_first is None:
            self.busy_at_first = len(self._server.at_work())
        self.pieces.append(text)


class Peak:
    """`with` watches the server: the most slots that were at work, and the most requests that had to wait."""

    def __init__(self, server):
        self.slots, self.waiting = 0, 0.0
        self._server, self._end = server, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._end.wait(0.02):
            self.slots = max(self.slots, len(self._server.at_work()))
            self.waiting = max(self.waiting, self._server.figures()["requests_deferred"])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()


class TestAnswers:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_carry_the_servers_own_figures(self, llama, fleet_of, stream):
        before, fleet = llama.figures(), fleet_of(stream=stream)
        result = await fleet.execute_agent(AGENT, f"Lists? stream={stream}", max_tokens=12, cache="off")
        after = llama.figures()
        assert result.success and result.output
        usage = result.usage
        assert usage.output_tokens == gained(before, after, "tokens_predicted_total") == 12
        assert usage.input_tokens == gained(before, after, "prompt_tokens_total")
        assert usage.cache_read_input_tokens == gained(before, after, "prompt_tokens_cached_total")
        assert (result.stop_reason, result.truncated) == ("max_tokens", True)
        assert (result.request_id, result.attempts) == (None, 1)

    async def test_have_a_prompt_of_as_many_tokens_as_the_server_counts(self, llama, fleet_of, workplace):
        result = await fleet_of().execute_agent(AGENT, "How many are these?", max_tokens=4, cache="off")
        claude = workplace / ".claude"
        texts = [(claude / "python.md").read_text(), (claude / "contracts" / "python.md").read_text()]
        system = [{"type": "text", "text": text} for text in texts]
        question = {"system": system, "messages": [{"role": "user", "content": "How many are these?"}]}
        count = llama.post("/v1/messages/count_tokens", {"model": llama.model, **question})
        assert result.usage.prompt_tokens == count["input_tokens"]

    async def test_come_in_pieces_while_the_server_still_writes(self, llama, fleet_of):
        listener = Listener(llama)
        result = await fleet_of().execute_agent(
            AGENT, "Pieces?", max_tokens=24, cache="off", terms=CallContext(listener=listener)
        )
        assert "".join(listener.pieces) == result.output
        assert len(listener.pieces) > 10
        assert listener.busy_at_first == 1

    async def test_in_one_piece_and_streamed_are_the_same(self, llama, fleet_of):
        reported = [
            await fleet_of(stream=stream).execute_agent(AGENT, "Same?", max_tokens=12, cache="off")
            for stream in (True, False)
        ]
        assert reported[0].output == reported[1].output
        assert reported[0].usage.prompt_tokens == reported[1].usage.prompt_tokens

    async def test_of_a_model_that_the_server_has_not_are_those_of_the_one_it_has(self, llama, fleet_of):
        result = await fleet_of().execute_agent(
            AGENT, "Who?", model="no-such-model", max_tokens=4, cache="off"
        )
        assert result.success
        assert result.cost is None

    async def test_that_end_at_a_stop_sequence_are_whole(self, llama, fleet_of):
        result = await fleet_of().execute_agent(AGENT, "Stop?", max_tokens=200, stop_sequences=[" ", "\n"])
        assert (result.success, result.stop_reason, result.truncated) == (True, "end_turn", False)

    async def test_cost_an_unknown_amount_or_what_the_caller_says(self, llama, fleet_of, workplace):
        unknown = await fleet_of().execute_agent(AGENT, "Cost?", max_tokens=4)
        free = await fleet_of(prices=FREE, budget_usd=0.01).execute_agent(AGENT, "Cost?!", max_tokens=4)
        assert (unknown.cost, free.cost) == (None, 0.0)

    async def test_stand_in_the_ledger_with_their_tokens(self, llama, fleet_of, workplace):
        fleet = fleet_of()
        results = await fleet.execute_multiple(tasks(3, "Ledger"), max_tokens=6, cache="off")
        await fleet.close()
        lines = ledger(workplace)
        assert Counter((line["input_tokens"], line["output_tokens"]) for line in lines) == Counter(
            (one.usage.prompt_tokens, one.usage.output_tokens) for one in results
        )
        assert {line["estimated_cost"] for line in lines} == {None}


class TestManyAtOnce:
    async def test_all_slots_are_at_work_and_no_request_has_to_wait_for_one(self, llama, fleet_of):
        fleet = fleet_of(max_concurrent=llama.slots)
        with Peak(llama) as peak:
            results = await fleet.execute_multiple(tasks(8, "At once"), max_tokens=12, cache="off")
        assert [one.success for one in results] == [True] * 8
        assert (peak.slots, peak.waiting) == (llama.slots, 0)
        # A kept connection that the server closes just then is a second attempt, and nothing else is.
        assert {trip.error for one in results for trip in one.timeline} <= {None, "ConnectionFailedError"}

    async def test_a_server_that_tells_no_limits_is_paced_by_those_of_the_caller(self, llama, fleet_of):
        fleet = fleet_of(rpm=60)
        results = await fleet.execute_multiple(tasks(4, "Paced"), max_tokens=1, cache="off")
        limits = fleet.load().limits
        assert all(one.success for one in results)
        assert (limits.requests, limits.input_tokens, limits.output_tokens) == (60, None, None)

    async def test_finding_out_how_many_the_server_takes_fails_no_call(self, llama, fleet_of):
        fleet = fleet_of(max_concurrent="auto")
        results = await fleet.execute_multiple(tasks(12, "Auto"), max_tokens=3, cache="off")
        assert [one.success for one in results] == [True] * 12

    async def test_identical_calls_share_one_request(self, llama, fleet_of):
        before, fleet = llama.figures(), fleet_of()
        results = await fleet.execute_multiple([(AGENT, "One for all")] * 5, max_tokens=8)
        written_by_it = gained(before, llama.figures(), "tokens_predicted_total")
        assert len({one.output for one in results}) == 1
        assert sum(one.shared for one in results) == 4
        assert written_by_it == results[0].usage.output_tokens

    async def test_a_kept_answer_sends_nothing(self, llama, fleet_of):
        ways = {"max_tokens": 200, "stop_sequences": [" ", "\n"]}
        first = await fleet_of().execute_agent(AGENT, "Kept?", **ways)
        before = llama.figures()
        second = await fleet_of().execute_agent(AGENT, "Kept?", **ways)
        after = llama.figures()
        assert (first.cached, second.cached) == (False, True)
        assert (second.output, second.usage) == (first.output, first.usage)
        for name in ("prompt_tokens_total", "tokens_predicted_total", "n_decode_total"):
            assert gained(before, after, name) == 0


class TestCancellation:
    """A slot becomes idle long before its answer would have ended."""

    async def under_way(self, llama, count=1):
        return await asyncio.to_thread(llama.until, busy=count, tokens=3)

    async def ended_early(self, llama, pause=0.05):
        return await asyncio.to_thread(llama.until, busy=0, seconds=30, pause=pause) < ENDLESS / 2

    async def test_of_a_task_is_seen_by_the_server(self, llama, fleet_of):
        call = asyncio.ensure_future(fleet_of().execute_agent(AGENT, "Endless", max_tokens=ENDLESS))
        await self.under_way(llama)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await self.ended_early(llama)

    async def test_of_an_answer_in_one_piece_is_seen_by_the_server(self, llama, fleet_of):
        fleet = fleet_of(stream=False)
        call = asyncio.ensure_future(fleet.execute_agent(AGENT, "Endless", max_tokens=ENDLESS))
        await self.under_way(llama)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # It looks at the connection after a second in which it had nothing to tell anybody.
        assert await self.ended_early(llama, pause=3)

    async def test_of_all_by_the_end_of_the_fleet_is_seen_by_the_server(self, llama, fleet_of):
        fleet = fleet_of(max_concurrent=llama.slots)
        calls = asyncio.ensure_future(fleet.execute_multiple(tasks(6, "Endless"), max_tokens=ENDLESS))
        await self.under_way(llama, llama.slots)
        await fleet.close()
        results = await calls
        assert [one.success for one in results] == [False] * 6
        assert await self.ended_early(llama)

    async def test_by_ctrl_c_is_seen_by_the_server(self, llama):
        command = Command("run", "agent", AGENT, "--task", "Endless", "--max-tokens", str(ENDLESS))
        await self.under_way(llama)
        command.process.send_signal(signal.SIGINT)
        code, _, error = command.ended()
        assert (code, "interrupted" in error) == (130, True)
        assert await self.ended_early(llama)

    async def test_by_silence_that_is_too_long_is_seen_by_the_server(self, llama, fleet_of):
        # A prompt that takes longer to read than the caller is ready to wait.
        fleet = fleet_of(timeout_seconds=0.2, max_retries=1)
        result = await fleet.execute_agent(AGENT, "word " * 800, max_tokens=ENDLESS)
        assert type(result.error).__name__ == "SilenceError"
        await asyncio.to_thread(llama.until, busy=0, seconds=60)


class TestRefusals:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_prompt_that_does_not_fit_is_refused_once_in_the_servers_words(
        self, llama, fleet_of, stream
    ):
        fleet = fleet_of(stream=stream)
        result = await fleet.execute_agent(AGENT, "word " * 6000, max_tokens=4)
        error = result.error
        assert type(error) is RequestRefusedError
        assert (error.status, error.kind, result.attempts) == (400, "exceed_context_size_error", 1)
        assert f"exceeds the available context size ({llama.context} tokens)" in str(error)


class TestCommands:
    def test_doctor_has_no_complaint(self, llama):
        code, out, error = Command("doctor", "--send", "--json").ended()
        found = {one["name"]: one for one in json.loads(out)["checks"]}
        assert code == 0, out + error
        assert found["endpoint"]["text"] == f"{llama.base_url} answers for {llama.model}, over aiohttp"
        assert found["request"]["text"].startswith(f"{llama.model} answered, ")
        assert "tells none" in found["limits"]["text"]

    def test_run_agent_prints_the_answer(self, llama):
        arguments = ("run", "agent", AGENT, "--task", "Print it", "--max-tokens", "8", "--cache", "off")
        code, plain, error = Command(*arguments).ended()
        assert code == 0, error
        fields = json.loads(Command(*arguments, "--json").ended()[1])
        assert plain.strip() == fields["output"].strip() != ""
        assert fields["metadata"]["output_tokens"] == 8
        assert f"{llama.model}, " in error and "cost unknown" in error

    def test_metrics_tell_of_the_servers_tokens(self, llama, workplace):
        before = llama.figures()
        arguments = ("--max-tokens", "6", "--price", f"{llama.model}=0,0", "--max-concurrent", "4", "-o", "o")
        (workplace / "tasks.txt").write_text("one\ntwo\nthree\n")
        assert Command("run", "many", "tasks.txt", "--agent", AGENT, *arguments).ended()[0] == 0
        found = json.loads(Command("metrics", "models", "--json").ended()[1])[llama.model]
        assert (found["executions"], found["cost_usd"]) == (3, 0.0)
        assert found["tokens"]["output"] == gained(before, llama.figures(), "tokens_predicted_total") > 0


class TestBulk:
    ROWS = 12

    def command(self):
        limits = ("--max-tokens", "8", "--max-concurrent", "4", "--timeout", "120", "--cache", "off")
        return Command("run", "many", "tasks.jsonl", "-o", "out.jsonl", *limits)

    def rows(self, workplace):
        path = workplace / "out.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def test_a_run_that_was_killed_goes_on_and_has_each_row_once(self, llama, workplace):
        lines = [json.dumps({"agent": AGENT, "task": f"Row {row}"}) for row in range(self.ROWS)]
        (workplace / "tasks.jsonl").write_text("\n".join(lines) + "\n")
        before, first = llama.figures(), self.command()
        while self.rows(workplace) < 3:
            assert first.process.poll() is None, first.ended()
            time.sleep(0.02)
        first.process.kill()
        first.ended()
        kept = self.rows(workplace)
        llama.until(busy=0)
        code, _, error = self.command().ended()
        assert code == 0, error
        assert f"{self.ROWS} succeeded" in error
        results = [json.loads(line) for line in (workplace / "out.jsonl").read_text().splitlines()]
        assert sorted(one["index"] for one in results) == list(range(self.ROWS))
        assert 3 <= kept < self.ROWS
        # Only what was under way at the kill was asked for twice.
        most = 8 * (self.ROWS + llama.slots)
        assert gained(before, llama.figures(), "tokens_predicted_total") <= most


class TestWorkflow:
    STEPS = {
        "steps": [
            {"id": "draft", "agent": AGENT},
            {"id": "check", "agent": "code-reviewer", "dependencies": ["draft"]},
            {
                "id": "sum",
                "agent": AGENT,
                "dependencies": ["draft", "check"],
                "task": "Sum up: ${steps.check}",
            },
        ]
    }

    def test_each_step_is_told_the_answer_before_it(self, llama, workplace):
        path = workplace / ".claude" / "claude.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "workflows": {"three": self.STEPS}}))
        code, out, error = Command(
            *("run", "workflow", "three", "--task", "Name a fruit", "--max-tokens", "10", "--json")
        ).ended()
        assert code == 0, error
        answers = [one["output"] for one in json.loads(out)["results"]]
        assert len(answers) == 3
        prompts = [slot["prompt"] for slot in llama.all_slots() if "prompt" in slot]
        last = next(prompt for prompt in prompts if "Sum up: " in prompt)
        assert answers[1].strip() in last
        assert any(answers[0].strip() in prompt and "code" in prompt for prompt in prompts)
