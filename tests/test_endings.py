"""Ends of answers, their media types, and bytes around them, over real HTTP."""

import asyncio
import json
import time

import pytest
from fleet import MODEL, fleet, write_project
from raw_server import ANSWER, http, sequence

from claude_force import errors
from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.testing import faults
from claude_force.testing.replies import Message
from claude_force.types import Usage


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


def events(text="Hello", usage=None):
    """A whole stream, as bytes."""
    blocks = [{"type": "text", "text": text}]
    message = Message("msg_1", MODEL, blocks, "end_turn", usage or {"input_tokens": 3, "output_tokens": 2})
    return b"".join(message.events(1))


def raw(body, content_type="text/event-stream", *more):
    head = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *more]
    head += [f"content-type: {content_type}"] if content_type else []
    return "\r\n".join([*head, "", ""]).encode() + body


async def ask(project, *answers, times=None, **limits):
    """The results of one call for each answer."""
    async with sequence(*answers) as (url, _):
        given = {"api_key": "test-key", "max_retries": 1, "enable_cache": False, **limits}
        async with AsyncAgentOrchestrator(project, base_url=url, **given) as orchestrator:
            return [await orchestrator.execute_agent("python-expert", "x") for _ in answers]


class TestStopReason:
    @pytest.mark.parametrize("follows", ["pings", "silence", "garbage", "reset"])
    async def test_ends_the_answer(self, project, follows, route):
        plan = [faults.open_after_stop_reason(follows)] * 2
        async with fleet(project, {"faults": plan}, enable_cache=False, **route, clock=None) as (
            orchestrator,
            server,
        ):
            for _ in plan:
                began = time.monotonic()
                result = await orchestrator.execute_agent("python-expert", "x")
                assert (result.success, result.stop_reason) == (True, "end_turn"), result.error
                assert result.output
                assert time.monotonic() - began < 5
                assert result.usage.output_tokens > 1
            assert len(server.requests) == 2

    async def test_closes_its_connection(self, project):
        plan = [None, faults.open_after_stop_reason("pings"), None]
        async with fleet(project, {"faults": plan}, enable_cache=False) as (orchestrator, server):
            for _ in plan:
                assert (await orchestrator.execute_agent("python-expert", "x")).success
        first, second, third = [one.connection for one in server.requests]
        assert first == second != third

    async def test_then_more_usage(self, project):
        more = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 77}}
        late = b"event: message_delta\ndata: %b\n\n" % json.dumps(more).encode()
        head, _, stop = events().partition(b"event: message_stop")
        body = head + late + b"event: message_stop" + stop
        (result,) = await ask(project, raw(body))
        assert (result.output, result.usage.output_tokens) == ("Hello", 77)

    async def test_without_message_stop(self, project, route):
        body = events().partition(b"event: message_stop")[0]
        assert [one.output for one in await ask(project, raw(body), raw(body), **route)] == ["Hello"] * 2

    async def test_without_last_empty_line(self, project):
        body = events().partition(b"event: message_stop")[0].rstrip()
        assert (await ask(project, raw(body)))[0].output == "Hello"

    async def test_is_waited_for(self, project):
        body = events().partition(b"event: message_delta")[0]
        (result,) = await ask(project, raw(body))
        assert type(result.error) is errors.ConnectionFailedError

    async def test_then_an_error(self, project):
        late = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'
        body = events().partition(b"event: message_stop")[0] + late
        assert (await ask(project, raw(body)))[0].output == "Hello"


class TestQuiet:
    async def test_bounds_pings(self, project):
        plan = [faults.pings(), faults.pings(after_events=5)]
        limits = {"quiet_seconds": 0.4, "timeout_seconds": 30, "max_retries": 2}
        async with fleet(project, {"faults": plan}, **limits) as (orchestrator, server):
            result = await asyncio.wait_for(orchestrator.execute_agent("python-expert", "x"), 20)
        assert type(result.error) is errors.SilenceError
        assert "nothing but pings for 0.4 s" in str(result.error)
        assert "quiet_seconds" in str(result.error)
        assert len(server.requests) == 2

    async def test_pings_outlast_silence(self, project):
        limits = {"quiet_seconds": 1.5, "timeout_seconds": 0.4, "max_retries": 1, "clock": None}
        async with fleet(project, {"faults": [faults.pings()]}, **limits) as (orchestrator, _):
            result = await orchestrator.execute_agent("python-expert", "x")
        assert "nothing but pings" in str(result.error)
        assert result.duration > 1.4

    async def test_bounds_whitespace(self, project):
        limits = {"quiet_seconds": 0.4, "stream": False, "max_retries": 1}
        async with fleet(project, {"faults": [faults.pings()]}, **limits) as (orchestrator, _):
            result = await asyncio.wait_for(orchestrator.execute_agent("python-expert", "x"), 20)
        assert "nothing but pings" in str(result.error)

    async def test_text_is_not_quiet(self, project):
        server = {"tokens_per_second": 60, "answer": lambda body: "word " * 100}
        async with fleet(project, server, quiet_seconds=0.5, clock=None) as (orchestrator, _):
            result = await orchestrator.execute_agent("python-expert", "x")
        assert result.success
        assert result.duration > 1.0

    @pytest.mark.parametrize("seconds", [0, -1, None, "10", True])
    def test_makes_sense_or_is_refused(self, project, seconds):
        with pytest.raises(errors.InvalidOptionError, match="quiet_seconds"):
            AsyncAgentOrchestrator(project, quiet_seconds=seconds)


class TestMediaType:
    LABELS = ["application/json", "text/plain; charset=utf-8", "", "application/octet-stream", "text/html"]

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("label", LABELS)
    async def test_mislabelled_stream(self, project, label, stream, route):
        answer = raw(events("Hello there"), label)
        results = await ask(project, answer, answer, stream=stream, **route)
        assert [one.output for one in results] == ["Hello there"] * 2
        assert results[1].usage == Usage(3, 2)

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("label", ["text/event-stream", "text/plain", "", "application/octet-stream"])
    async def test_mislabelled_json(self, project, label, stream, route):
        answer = raw(b" \n" + json.dumps(ANSWER).encode(), label)
        results = await ask(project, answer, answer, stream=stream, **route)
        assert [one.output for one in results] == ["As it is."] * 2

    @pytest.mark.parametrize("label", ["text/html", "text/event-stream", "text/plain"])
    async def test_quotes_title_of_page(self, project, label):
        page = b"<!DOCTYPE html><html><head><title>Sign in &amp; go on</title></head>" + b"x" * 9000
        (result,) = await ask(project, raw(page, label))
        assert type(result.error) is errors.BadReplyError
        assert "Sign in & go on" in str(result.error)
        assert len(str(result.error)) < 400

    async def test_quotes_text(self, project):
        (result,) = await ask(project, raw(b"no healthy upstream", "text/plain"))
        assert type(result.error) is errors.BadReplyError
        assert "text/plain" in str(result.error)
        assert "no healthy upstream" in str(result.error)


class Ear(CallListener):
    """Hears an answer piece by piece."""

    def __init__(self):
        self.heard = []

    def wrote(self, text):
        self.heard.append(text)


class TestEvents:
    """Forms of a stream that the HTML standard allows."""

    async def outputs(self, project, body, cut=None):
        (result,) = await ask(project, raw(body))
        return result.output

    @pytest.mark.parametrize("newline", [b"\r\n", b"\r"])
    async def test_line_ends(self, project, newline):
        assert await self.outputs(project, events().replace(b"\n", newline)) == "Hello"

    async def test_byte_order_mark(self, project):
        assert await self.outputs(project, b"\xef\xbb\xbf" + events()) == "Hello"

    async def test_comments_and_unknown_events(self, project):
        body = b": hello\n\n" + events().replace(
            b"event: ping", b"id: 7\nretry: 10\n: c\nevent: new\ndata: {}\n\nevent: ping"
        )
        assert await self.outputs(project, body) == "Hello"

    async def test_data_has_several_lines(self, project):
        assert await self.outputs(project, events().replace(b'{"type":', b'{\ndata: "type":')) == "Hello"

    async def test_end_mark_of_openai(self, project):
        body = events().partition(b"event: message_stop")[0] + b"data: [DONE]\n\n"
        assert await self.outputs(project, body) == "Hello"

    async def test_joins_split_characters(self, project):
        delta = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            b'"delta":{"type":"text_delta","text":%b}}\n\n'
        )
        two = delta % b'"Well \\ud83d"' + delta % b'"\\ude00 done"'
        body = events("").replace(b"event: content_block_stop", two + b"event: content_block_stop")
        async with sequence(raw(body)) as (url, _):
            async with AsyncAgentOrchestrator(project, api_key="k", base_url=url) as orchestrator:
                ear = Ear()
                result = await orchestrator._calls.execute(CallContext(listener=ear), "python-expert", "x")
        assert result.output == "Well 😀 done" == "".join(ear.heard)
        assert all(piece.encode() for piece in ear.heard)

    async def test_wrong_byte(self, project):
        body = events().replace(b"Hell", b"He\xffl")
        assert await self.outputs(project, body) == "He�lo"


class TestHeaders:
    async def test_of_twenty_kilobytes(self, project, route):
        plan = [faults.large_headers(20_000), faults.large_headers(60_000)]
        async with fleet(project, {"faults": plan}, enable_cache=False, **route, max_retries=1) as (
            orchestrator,
            _,
        ):
            results = [await orchestrator.execute_agent("python-expert", "x") for _ in plan]
        assert [one.error for one in results] == [None, None]

    async def test_of_great_number(self, project, route):
        more = [f"x-trace-{number}: {'y' * 100}" for number in range(200)]
        answer = raw(events(), "text/event-stream", *more)
        results = await ask(project, answer, answer, **route)
        assert [one.output for one in results] == ["Hello"] * 2

    async def test_of_an_error_are_taken(self, project, route):
        plan = [faults.status(429, headers={"x-policy": "x" * 20_000})] * 2
        async with fleet(project, {"faults": plan}, enable_cache=False, **route, max_retries=1) as (
            orchestrator,
            _,
        ):
            results = [await orchestrator.execute_agent("python-expert", "x") for _ in plan]
        assert [type(one.error) for one in results] == [errors.RateLimitError] * 2


ENVELOPES = {
    "Anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "Too busy here"}},
    "llama-server": {"error": {"code": 503, "message": "Too busy here", "type": "unavailable_error"}},
    "LiteLLM": {"error": {"message": "Too busy here", "type": "None", "param": "None", "code": "503"}},
    "Google": {"error": {"code": 503, "message": "Too busy here", "status": "UNAVAILABLE"}},
}


class TestErrorInsideA200:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("form", ENVELOPES)
    async def test_retries_named_error(self, project, form, stream):
        plan = [faults.body(ENVELOPES[form])]
        async with fleet(project, {"faults": plan * 4}, stream=stream) as (orchestrator, server):
            error = (await orchestrator.execute_agent("python-expert", "x")).error
        assert (type(error), len(server.requests)) == (errors.OverloadedError, 3)
        assert "Too busy here" in str(error)
        assert error.request_id

    @pytest.mark.parametrize("label", ["text/event-stream", "text/plain"])
    async def test_under_any_label(self, project, label):
        plan = [faults.body(ENVELOPES["Anthropic"], content_type=label)]
        async with fleet(project, {"faults": plan}) as (orchestrator, server):
            assert (await orchestrator.execute_agent("python-expert", "x")).success
        assert len(server.requests) == 2

    async def test_obeys_its_headers(self, project):
        reported = {"x-should-retry": "false"}
        plan = [faults.body(ENVELOPES["Anthropic"], headers=reported)]
        async with fleet(project, {"faults": plan}) as (orchestrator, server):
            error = (await orchestrator.execute_agent("python-expert", "x")).error
        assert (type(error), len(server.requests)) == (errors.OverloadedError, 1)

    async def test_is_not_billed(self, project):
        plan = [faults.body(ENVELOPES["Anthropic"])] * 3
        price = {MODEL: {"input": 3.0, "output": 15.0}}
        async with fleet(project, {"faults": plan}, budget_usd=5.0, prices=price, stream=False) as (o, _):
            await o.execute_agent("python-expert", "x")
            assert o.spent_usd == 0.0

    async def test_wrong_key_is_final(self, project):
        body = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
        async with fleet(project, {"faults": [faults.body(body)] * 3}) as (orchestrator, server):
            error = (await orchestrator.execute_agent("python-expert", "x")).error
        assert (type(error), error.status, len(server.requests)) == (errors.AuthenticationError, 401, 1)

    async def test_a_text_alone_is_told(self, project):
        async with fleet(project, {"faults": [faults.body({"error": "out of memory"})] * 3}) as (o, _):
            error = (await o.execute_agent("python-expert", "x")).error
        assert type(error) is errors.ServerError
        assert "out of memory" in str(error)


class TestStatus:
    @pytest.mark.parametrize("code", [501, 505, 507, 520, 521, 524, 526, 530, 599, 408, 409, 425])
    async def test_is_retried(self, project, code):
        page = "<html><head><title>something went wrong</title></head></html>"
        async with fleet(project, {"faults": [faults.body(page, code, "text/html")]}) as (o, server):
            result = await o.execute_agent("python-expert", "x")
        assert (result.success, len(server.requests)) == (True, 2)

    async def test_gateway_page(self, project):
        page = "<html><head><title>\n  example.com | 524: A timeout\n occurred</title></head>" + "y" * 20_000
        async with fleet(project, {"faults": [faults.body(page, 524, "text/html")] * 3}) as (o, _):
            error = (await o.execute_agent("python-expert", "x")).error
        assert "The API answered 524: example.com | 524: A timeout occurred (request" in str(error)

    @pytest.mark.parametrize("tag", ["<h1", "<h1>", "<title>", "<title "])
    async def test_unclosed_tags_take_no_time(self, project, tag):
        page = f"<html>{tag * (60_000 // len(tag))}"
        async with fleet(project, {"faults": [faults.body(page, 524, "text/html")]}) as (o, _):
            await o.execute_agent("python-expert", "warm up")
            began = time.process_time()
            assert (await o.execute_agent("python-expert", "x")).success
        assert time.process_time() - began < 1.0

    async def test_without_body(self, project):
        async with fleet(project, {"faults": [faults.body("", 522)] * 3}) as (o, _):
            error = (await o.execute_agent("python-expert", "x")).error
        assert "522: the connection from Cloudflare to the server timed out" in str(error)

    @pytest.mark.parametrize(
        ("code", "reported", "requests"),
        [(500, "false", 1), (400, "true", 2), (529, "FALSE", 1), (404, "true", 2)],
    )
    async def test_obeys_x_should_retry(self, project, code, reported, requests):
        plan = [faults.status(code, headers={"x-should-retry": reported})]
        async with fleet(project, {"faults": plan}) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", "x")
        assert len(server.requests) == requests

    @pytest.mark.parametrize("status", ["999 Request denied", "000 Nothing", "600 Odd"])
    async def test_invalid_status(self, project, status, route):
        odd = raw(b"").replace(b"200 OK", status.encode())
        results = await ask(project, odd, odd, **route)
        assert all(isinstance(one.error, errors.TransientError) for one in results), results

    @pytest.mark.parametrize("status", ["302 Found", "304 Not Modified", "300 Multiple Choices"])
    async def test_redirect_to_nowhere(self, project, status, route):
        odd = raw(b"").replace(b"200 OK", status.encode())
        results = await ask(project, odd, odd, **route)
        assert [type(one.error) for one in results] == [errors.BadReplyError] * 2
        assert status[:3] in str(results[0].error)

    @pytest.mark.parametrize("status", ["201 Created", "202 Accepted"])
    async def test_other_success(self, project, status):
        odd = http(json.dumps(ANSWER).encode(), status)
        assert [one.output for one in await ask(project, odd, odd)] == ["As it is."] * 2

    @pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
    async def test_success_without_answer(self, project, status, route):
        odd = http(b"", status)
        results = await ask(project, odd, odd, **route)
        assert all(isinstance(one.error, errors.CallError) for one in results)
