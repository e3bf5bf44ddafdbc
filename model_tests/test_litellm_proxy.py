"""The package against LiteLLM's proxy, which has ways of its own in headers, errors and streams."""

import asyncio
import json
import subprocess
import sys

import pytest

from claude_force.errors import RateLimitError, RequestRefusedError, ServerError
from claude_force.limits.call_context import CallContext, CallListener

AGENT = "python-expert"
BEHIND = ["passed-on", "translated"]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "claude_force", *arguments], capture_output=True, text=True, timeout=300
    )


class TestItsOwnAnswers:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_carry_its_figures(self, proxy, fleet_of, stream):
        question = {"model": "mocked", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        raw = proxy.post("/v1/messages", question, x_api_key=proxy.key)
        result = await fleet_of(stream=stream).execute_agent(AGENT, "Lists?", cache="off")
        assert (result.success, result.output, result.attempts) == (True, proxy.answer, 1)
        assert result.usage.output_tokens == raw["usage"]["output_tokens"]
        assert result.usage.prompt_tokens == raw["usage"]["input_tokens"]
        assert (result.stop_reason, result.request_id, result.cost) == ("end_turn", None, None)

    async def test_ten_at_once_are_ten_requests(self, proxy, fleet_of):
        before = proxy.requests()
        tasks = [(AGENT, f"Ten, number {number}") for number in range(10)]
        results = await fleet_of(max_concurrent=10).execute_multiple(tasks)
        assert [one.output for one in results] == [proxy.answer] * 10
        assert proxy.requests() - before == 10

    async def test_are_kept_and_a_second_call_sends_nothing(self, proxy, fleet_of):
        await fleet_of().execute_agent(AGENT, "Kept?")
        before = proxy.requests()
        again = await fleet_of().execute_agent(AGENT, "Kept?")
        assert (again.cached, again.output) == (True, proxy.answer)
        assert proxy.requests() == before

    def test_of_many_rows_come_from_the_command(self, proxy, workplace):
        (workplace / "tasks.txt").write_text("".join(f"Row {row}\n" for row in range(10)))
        done = command("run", "many", "tasks.txt", "--agent", AGENT, "-o", "out.jsonl")
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (workplace / "out.jsonl").read_text().splitlines()]
        assert sorted(one["index"] for one in lines) == list(range(10))
        assert {one["output"] for one in lines} == {proxy.answer}

    def test_outweigh_for_doctor_that_it_counts_no_tokens_without_its_provider(self, proxy):
        done = command("doctor", "--send", "--json")
        found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
        assert done.returncode == 0, done.stdout
        assert (found["endpoint"]["state"], found["request"]["state"]) == ("warning", "ok")
        assert "CountTokens" in found["endpoint"]["text"]


class TestItsErrors:
    @pytest.mark.parametrize(
        ("model", "kind", "attempts", "words"),
        [
            ("limited", RateLimitError, 2, "mock rate limit error"),
            ("broken", ServerError, 2, "mock internal server error"),
            ("too-long", RequestRefusedError, 1, "ContextWindowExceededError"),
            ("no-such-model", RequestRefusedError, 1, "Invalid model name passed in model=no-such-model"),
        ],
    )
    async def test_are_typed_and_retried_only_where_that_can_help(
        self, proxy, fleet_of, model, kind, attempts, words
    ):
        before = proxy.requests()
        result = await fleet_of(max_retries=2).execute_agent(AGENT, "Fail", model=model)
        assert type(result.error) is kind
        assert words in str(result.error)
        assert result.attempts == proxy.requests() - before == attempts

    async def test_a_key_that_it_does_not_know_is_sent_once_and_shown_nowhere(self, proxy, fleet_of):
        before = proxy.requests()
        result = await fleet_of(api_key="sk-another-key").execute_agent(AGENT, "Locked out")
        assert not result.success
        assert "sk-another-key" not in repr(result) + str(result.error)
        assert result.attempts == proxy.requests() - before == 1


@pytest.mark.parametrize("model", BEHIND)
class TestAServerBehindIt:
    """The same Messages API over two servers, and Anthropic's events made of another protocol's."""

    async def test_streams_through_it(self, proxy, llama, fleet_of, model, monkeypatch):
        heard = []

        class Listener(CallListener):
            def wrote(self, text):
                heard.append((text, len(llama.at_work())))

        fleet = fleet_of(base_url=proxy.base_url, api_key=proxy.key)
        result = await fleet.execute_agent(
            AGENT,
            f"Stream {model}",
            model=model,
            max_tokens=24,
            cache="off",
            terms=CallContext(listener=Listener()),
        )
        assert result.success, result.error
        assert "".join(text for text, _ in heard) == result.output != ""
        assert heard[0][1] == 1
        assert result.usage.output_tokens == 24

    async def test_answers_in_one_piece_through_it(self, proxy, llama, fleet_of, model):
        fleet = fleet_of(base_url=proxy.base_url, api_key=proxy.key, stream=False)
        # OpenAI's protocol has no answers of fewer tokens than 16.
        result = await fleet.execute_agent(AGENT, f"Plain {model}", model=model, max_tokens=17, cache="off")
        assert (result.success, result.usage.output_tokens) == (True, 17)

    async def test_sees_that_a_call_is_cancelled(self, proxy, llama, fleet_of, model):
        fleet = fleet_of(base_url=proxy.base_url, api_key=proxy.key)
        call = asyncio.ensure_future(fleet.execute_agent(AGENT, "Endless", model=model, max_tokens=3000))
        await asyncio.to_thread(llama.until, busy=1, tokens=3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(llama.until, busy=0, seconds=30) < 1500

    async def test_refuses_a_prompt_that_does_not_fit_once(self, proxy, llama, fleet_of, model):
        fleet = fleet_of(base_url=proxy.base_url, api_key=proxy.key)
        result = await fleet.execute_agent(AGENT, "word " * 6000, model=model, max_tokens=4)
        assert type(result.error) is RequestRefusedError
        assert "context size" in str(result.error)
        assert result.attempts == 1
