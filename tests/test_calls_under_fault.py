"""Every kind of server fault over real HTTP: its cost, its end, and its message."""

import asyncio
import contextlib
import random
import threading
from collections import Counter

import pytest
from fleet import MODEL, FakeClock, ended, fleet, write_project

from claude_force import errors
from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.testing import faults
from claude_force.testing.replies import Message
from claude_force.transport.messages import answer_limit


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


# Seconds after which a call ends that should have ended long before: a fault is an assertion, not a hang.
LONGEST = 20


async def one_call(project, plan, clock=None, **limits):
    """The result of one call against a server with this plan of faults, and how many requests it took."""
    limits.setdefault("deadline_seconds", LONGEST)
    async with fleet(project, {"faults": plan}, clock=clock or FakeClock(), **limits) as (
        orchestrator,
        server,
    ):
        result = await orchestrator.execute_agent("python-expert", "x")
        return result, len(server.requests)


FINAL = [
    (faults.status(400), errors.RequestRefusedError, "the same request will fail again"),
    (faults.status(401), errors.AuthenticationError, "ANTHROPIC_API_KEY"),
    (faults.status(402), errors.SpendLimitError, "waiting does not help"),
    (faults.status(403), errors.PermissionDeniedError, "workspace"),
    (faults.status(404), errors.ModelNotFoundError, "Check the model's name"),
    (faults.status(413), errors.RequestTooLargeError, "Shorten the task"),
    (faults.status(422), errors.RequestRefusedError, "the same request will fail again"),
    (
        faults.status(429, error_code="enforced_spend_limit_reached"),
        errors.SpendLimitError,
        "Raise the spend limit",
    ),
    (faults.malformed_json(), errors.BadReplyError, "ANTHROPIC_BASE_URL"),
    (faults.wrong_content_type(), errors.BadReplyError, "ANTHROPIC_BASE_URL"),
]
TRANSIENT = [
    (faults.status(429), errors.RateLimitError, "max_concurrent"),
    (faults.status(500), errors.ServerError, "request id"),
    (faults.status(502), errors.ServerError, "request id"),
    (faults.status(503), errors.OverloadedError, "busy"),
    (faults.status(504), errors.ServerError, "request id"),
    (faults.status(529), errors.OverloadedError, "busy"),
    (faults.reset(), errors.ConnectionFailedError, "Check the network"),
    (faults.truncated_stream(), errors.ConnectionFailedError, "Check the network"),
    (faults.overloaded_in_stream(), errors.OverloadedError, "busy"),
    (faults.silence_before_first_byte(), errors.SilenceError, "timeout_seconds"),
    (faults.silence_in_mid_stream(), errors.SilenceError, "timeout_seconds"),
]


def name_of(case):
    return str(case)[:60] if not isinstance(case, type) else case.__name__


@pytest.mark.parametrize(("fault", "expected", "advice"), FINAL, ids=name_of)
async def test_final_faults_cost_one_request(project, fault, expected, advice):
    result, requests = await one_call(project, [fault] * 3)
    assert (type(result.error), requests, result.attempts) == (expected, 1, 1)
    assert advice in str(result.error)
    assert result.errors == [str(result.error)]


def patience(expected, seconds):
    """A timeout: only a silence is waited for, and a slow machine must not be taken for one."""
    return seconds if expected is errors.SilenceError else 30


@pytest.mark.parametrize(("fault", "expected", "advice"), TRANSIENT, ids=name_of)
async def test_transient_faults_are_retried(project, fault, expected, advice):
    result, requests = await one_call(project, [fault] * 3, timeout_seconds=patience(expected, 0.4))
    assert (type(result.error), requests, result.attempts) == (expected, 3, 3)
    assert advice in str(result.error)


@pytest.mark.parametrize(("fault", "expected", "advice"), TRANSIENT, ids=name_of)
async def test_answer_after_a_fault(project, fault, expected, advice):
    # An answer follows, for which there has to be time.
    result, requests = await one_call(project, [fault], timeout_seconds=patience(expected, 1.5))
    assert (result.success, requests, result.attempts) == (True, 2, 2)


PLAIN = [case for case in FINAL + TRANSIENT if "stream" not in str(case[0])]


@pytest.mark.parametrize(("fault", "expected", "advice"), PLAIN, ids=name_of)
async def test_same_faults_without_streaming(project, fault, expected, advice):
    limits = {"timeout_seconds": patience(expected, 0.15), "stream": False}
    result, _ = await one_call(project, [fault] * 3, **limits)
    assert type(result.error) is expected


@pytest.mark.parametrize("stream", [True, False])
async def test_endless_answer_costs_the_worst(project, stream):
    price = {"input": 3, "output": 15}
    limits = {"stream": stream, "prices": {MODEL: price}, "budget_usd": 1.0, "enable_cache": False}
    async with fleet(project, {"faults": [faults.endless_answer()]}, **limits) as (orchestrator, server):
        result = await orchestrator.execute_agent("python-expert", "x", model=MODEL, max_tokens=16)
        assert isinstance(result.error, errors.AnswerTooLargeError)
        assert "max_tokens=16 had more than 32 MB" in str(result.error)
        assert "keeps to max_tokens" in str(result.error)
        assert (result.attempts, len(server.requests)) == (1, 1)
        most = (server.bills[0].usage["input_tokens"] * 3 + 16 * 15) / 1e6
        # In one piece, nobody will know: a budget then counts the worst.
        assert result.cost == (pytest.approx(most) if stream else None)
        assert most <= orchestrator.spent_usd < 2 * most + 0.01
        assert await ended(lambda: not server.in_flight)


@pytest.mark.parametrize(("max_tokens", "size"), [(1, 2**25 + 2**10), (4096, 2**25 + 2**22), (10**13, 2**28)])
def test_largest_answer(max_tokens, size):
    assert answer_limit(max_tokens) == size


class Raw:
    """A server that answers each request with `head`, and then with `piece` until it is left."""

    def __init__(self, head, piece, pause=0.0):
        self.head, self.piece, self.pause = head, piece, pause
        self.sent = self.serving = 0

    async def __call__(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        self.serving += 1
        writer.write(self.head)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(self.piece)
                await writer.drain()
                self.sent += len(self.piece)
                await asyncio.sleep(self.pause)
        writer.close()
        self.serving -= 1

    async def asked(self, project, times=1, **limits):
        """The last result."""
        gateway = await asyncio.start_server(self, "127.0.0.1", 0)
        async with gateway, fleet(project, enable_cache=False, **limits) as (orchestrator, _):
            host, port = gateway.sockets[0].getsockname()
            orchestrator.base_url = f"http://{host}:{port}"
            for _ in range(times):
                result = await orchestrator.execute_agent("python-expert", "x")
            assert await ended(lambda: not self.serving)
            return result


@pytest.mark.parametrize("times", [1, 2])
async def test_endless_error(project, times):
    raw = Raw(b"HTTP/1.1 400 Bad\r\ncontent-type: text/plain\r\n\r\nIt is full. ", b" " * 2**16)
    result = await asyncio.wait_for(raw.asked(project, times), 10)
    assert isinstance(result.error, errors.RequestRefusedError)
    assert "It is full." in str(result.error)
    # What the sockets hold beside.
    assert raw.sent < times * 2**25


async def test_stream_after_its_end(project):
    blocks = [{"type": "text", "text": "Hello"}]
    message = Message("msg_1", MODEL, blocks, "end_turn", {"input_tokens": 1, "output_tokens": 1})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    raw = Raw(head + b"".join(message.events(8)), b": more\n\n", pause=0.05)
    result = await asyncio.wait_for(raw.asked(project), 10)
    assert (result.success, result.output) == (True, "Hello")


@pytest.mark.parametrize("words", ["It is full.", "It is full"])
async def test_advice_is_a_second_sentence(project, words):
    result, _ = await one_call(project, [faults.status(400, message=words)])
    result.error.request_id = None
    assert "It is full. Correct the request" in str(result.error)


async def test_obeys_retry_after(project):
    clock = FakeClock()
    result, requests = await one_call(project, [faults.status(429, retry_after=3)], clock=clock)
    assert (result.success, requests) == (True, 2)
    assert clock.time >= 3


async def test_obeys_long_retry_after(project):
    clock = FakeClock()
    plan = [faults.status(529, retry_after=7200)]
    result, _ = await one_call(project, plan, clock=clock, deadline_seconds=None)
    assert result.success
    assert clock.time >= 7200


async def test_error_has_request_id(project):
    result, _ = await one_call(project, [faults.status(400)])
    assert result.request_id.startswith("req_")
    assert result.request_id in str(result.error)


async def test_absent_server(project):
    async with AsyncAgentOrchestrator(
        project, api_key="k", base_url="http://127.0.0.1:9", max_retries=2, clock=FakeClock()
    ) as orchestrator:
        result = await orchestrator.execute_agent("python-expert", "x")
    assert (type(result.error), result.attempts) == (errors.ConnectionFailedError, 2)
    assert "127.0.0.1:9" in str(result.error)


async def test_slow_answer_succeeds(project):
    server = {"tokens_per_second": 100, "answer": lambda body: "word " * 200}
    async with fleet(project, server, timeout_seconds=0.2, clock=None) as (orchestrator, _):
        result = await orchestrator.execute_agent("python-expert", "x")
    assert result.success
    assert result.duration > 2.0


async def test_unread_request_is_in_doubt(project):
    limits = {"timeout_seconds": 0.2, "max_retries": 1, "deadline_seconds": LONGEST, "budget_usd": 1.0}
    limits["prices"] = {MODEL: {"input": 3.0, "output": 15.0}}
    released = threading.Event()

    def busy(received):
        released.wait(LONGEST)

    async with fleet(project, {"faults": busy}, **limits) as (orchestrator, server):
        try:
            # The server does nothing else from the first of them on.
            results = [await orchestrator.execute_agent("python-expert", task) for task in "xy"]
            assert [task_of(received) for received in server.requests] == ["x"]
        finally:
            released.set()
        # The client can't know that it was not read: it left its machine.
        assert [(type(one.error), one.attempts, one.cost) for one in results] == [
            (errors.SilenceError, 1, None)
        ] * 2
        assert orchestrator.spent_usd > 0


async def test_silence_closes_its_connection(project):
    plan = [faults.silence_before_first_byte()]
    limits = {"timeout_seconds": 0.1, "max_retries": 1, "deadline_seconds": LONGEST}
    async with fleet(project, {"faults": plan}, **limits) as (orchestrator, server):
        result = await orchestrator.execute_agent("python-expert", "x")
        assert type(result.error) is errors.SilenceError
        assert await ended(lambda: server.in_flight == 0)


def task_of(received):
    return received.body["messages"][0]["content"]


async def test_thousand_rows_with_faults(project):
    chance, silenced = random.Random(20), Counter()
    ends_all = [faults.status(code) for code in (401, 402, 403, 404)]
    survived = [fault for fault in faults.ALL if fault not in ends_all]
    assert len(survived) == len(faults.ALL) - len(ends_all)

    def plan(received):
        fault = chance.choice(survived) if chance.random() < 0.3 else None
        silenced[task_of(received)] += fault is not None and fault.kind.startswith("silence")
        return fault

    tasks = [("python-expert", f"row {number}") for number in range(1000)]
    server = {"faults": plan, "answer": lambda body: body["messages"][0]["content"]}
    limits = {"max_concurrent": 100, "timeout_seconds": 2.0}
    async with fleet(project, server, **limits) as (orchestrator, running):
        results = await orchestrator.execute_multiple(tasks)
        await orchestrator.close()
        assert await ended(lambda: running.open_connections == 0)
        assert running.max_in_flight <= 100
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(results) == 1000
    for result, (_, task) in zip(results, tasks):
        assert result.success == (result.error is None)
        assert result.output == (task if result.success else "")
        assert result.success or isinstance(result.error, errors.CallError)
    seen = Counter(map(task_of, running.requests))
    for result, (_, task) in zip(results, tasks):
        given_up = [attempt.error for attempt in result.timeline].count("SilenceError")
        # What a slow machine's server has not read when the client gives up, it never sees.
        assert 0 <= result.attempts - seen[task] <= given_up - silenced[task]
    assert sum(result.success for result in results) > 700
