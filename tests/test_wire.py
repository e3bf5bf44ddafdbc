"""What goes onto the wire: the first request by the SDK, those after it the same in all but the body."""

import asyncio
import gc
import gzip
import inspect
import json
import resource
import zlib
from contextlib import asynccontextmanager
from typing import List

import anthropic
import pytest
from claude_force.transport.direct import Direct
from fleet import MODEL, ended, fleet, write_project

from claude_force import AsyncAgentOrchestrator
from claude_force.errors import (
    AuthenticationError,
    BadReplyError,
    ConnectionFailedError,
    InvalidOptionError,
    OverloadedError,
    SilenceError,
)
from claude_force.testing import MessagesServer, faults


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.mark.parametrize("stream", [True, False])
async def test_later_requests_carry_the_headers_of_the_first(project, stream, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-team: blue")
    async with fleet(project, stream=stream) as (orchestrator, server):
        for number in range(3):
            assert (await orchestrator.execute_agent("python-expert", f"Task {number}")).success
        first, *later = [dict(request.headers) for request in server.requests]
        length = first.pop("content-length")
        assert int(length) > 0
        for headers in later:
            assert int(headers.pop("content-length")) > 0
            assert headers == first
        assert "test-key" in first.get("x-api-key", "") + first.get("authorization", "")


async def test_options_that_are_the_sdks_own_hold_for_their_call_alone(project):
    async with fleet(project) as (orchestrator, server):
        for number, options in enumerate(
            [{}, {"extra_headers": {"x-once": "1"}, "extra_body": {"metadata": {"user_id": "u"}}}, {}]
        ):
            result = await orchestrator.execute_agent(
                "python-expert", f"Task {number}", cache="off", **options
            )
            assert result.success
        assert ["x-once" in request.headers for request in server.requests] == [False, True, False]
        assert ["metadata" in request.body for request in server.requests] == [False, True, False]


async def test_options_of_the_first_call_are_not_remembered(project):
    async with fleet(project) as (orchestrator, server):
        await orchestrator.execute_agent("python-expert", "a", extra_headers={"x-once": "1"})
        await orchestrator.execute_agent("python-expert", "b")
        assert ["x-once" in request.headers for request in server.requests] == [True, False]


TAKEN = set(inspect.signature(anthropic.AsyncAnthropic(api_key="k").messages.create).parameters)
CHOSEN = {"model", "max_tokens", "messages", "system", "stream", "timeout", "temperature"}


@pytest.mark.parametrize("option", sorted(TAKEN - CHOSEN))
async def test_an_option_goes_the_second_time_as_the_sdk_sent_it_the_first(project, option):
    value = [] if option in ("tools", "stop_sequences") else "x" if option.endswith("_id") else {"type": "x"}
    async with fleet(project) as (orchestrator, server):
        for _ in range(2):
            await orchestrator.execute_agent("python-expert", "a", cache="off", **{option: value})
        first, second = server.requests
        assert first.body == second.body
        headers = [dict(request.headers, **{"content-length": ""}) for request in (first, second)]
        assert headers[0] == headers[1]


@pytest.mark.parametrize("option", ["user_profile_id", "workspace_id"])
async def test_an_option_that_the_sdk_sends_as_a_header_is_one_of_its_call_alone(project, option):
    if option not in TAKEN:
        pytest.skip(f"anthropic {anthropic.__version__} does not take it")
    name = f"anthropic-{option.replace('_', '-')}"
    async with fleet(project) as (orchestrator, server):
        for number, value in enumerate(["one", None, "other", None]):
            options = {} if value is None else {option: value}
            assert (await orchestrator.execute_agent("python-expert", f"Task {number}", **options)).success
        assert [request.headers.get(name) for request in server.requests] == ["one", None, "other", None]
        assert not any(option in request.body for request in server.requests)


@pytest.mark.parametrize(("code", "kind"), [(401, AuthenticationError), (529, OverloadedError)])
async def test_an_error_status_of_a_later_request_is_as_typed_as_that_of_the_first(project, code, kind):
    async with fleet(project, {"faults": [None, *[faults.status(code)] * 3]}) as (orchestrator, _):
        assert (await orchestrator.execute_agent("python-expert", "a")).success
        error = (await orchestrator.execute_agent("python-expert", "b")).error
        assert type(error) is kind
        assert error.status == code
        assert error.kind
        assert error.request_id


async def test_an_answer_in_one_piece_is_taken_where_a_stream_was_asked_for(project):
    server = {"faults": [faults.in_one_piece()], "answer": lambda body: "All at once."}
    async with fleet(project, server) as (orchestrator, running):
        result = await orchestrator.execute_agent("python-expert", "a")
        assert running.requests[0].body["stream"] is True
        assert (result.success, result.output, result.attempts) == (True, "All at once.", 1)
        assert result.usage.output_tokens == running.bills[0].usage["output_tokens"]
        assert (await orchestrator.execute_agent("python-expert", "a")).cached


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ftp://127.0.0.1:9"])
async def test_an_address_that_is_none_of_http_is_refused_before_anything_is_tried(project, address):
    async with AsyncAgentOrchestrator(project, api_key="test-key", base_url=address) as orchestrator:
        with pytest.raises(InvalidOptionError, match="write https://HOST"):
            await orchestrator.execute_agent("python-expert", "a")


@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
async def test_a_key_with_a_line_break_is_named_and_not_tried(project, variable, monkeypatch):
    monkeypatch.setenv(variable, "key-that-came\nfrom-a-file\n")
    with MessagesServer() as server:
        async with AsyncAgentOrchestrator(project, base_url=server.base_url) as orchestrator:
            error = (await orchestrator.execute_agent("python-expert", "a")).error
        assert type(error) is AuthenticationError
        assert variable in str(error)
        assert "key-that-came" not in str(error)
        assert server.requests == []


async def test_an_address_that_has_the_version_too_is_told_from_an_unknown_model(project):
    with MessagesServer() as server:
        address = f"{server.base_url}/v1"
        async with AsyncAgentOrchestrator(project, api_key="test-key", base_url=address) as orchestrator:
            results = await orchestrator.execute_multiple([("python-expert", "a"), ("python-expert", "b")])
    assert all("Leave the /v1 out" in str(result.error) for result in results)


ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": "As it is."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}


def http(body, status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Paths(List[str]):
    """Of the requests, in their order; `connected` counts the connections that are open."""

    connected = 0


@asynccontextmanager
async def sequence(*answers):
    """A server that gives these answers in turn, None closes the connection; yields its address and the paths
    that were asked for."""
    paths, left = Paths(), list(answers)

    async def serve(reader, writer):
        paths.connected += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                paths.append(head.split(b" ")[1].decode())
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                answer = left.pop(0)
                if answer is None:
                    return
                writer.write(answer)
        except asyncio.IncompleteReadError:
            return
        finally:
            paths.connected -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", paths
    finally:
        server.close()


@pytest.fixture
def direct(monkeypatch):
    """The bodies that went by aiohttp's own session."""
    bodies, send = [], Direct.send

    async def noted(self, body):
        bodies.append(body)
        return await send(self, body)

    monkeypatch.setattr(Direct, "send", noted)
    return bodies


def asking(project, url, **limits):
    return AsyncAgentOrchestrator(
        project, api_key="test-key", base_url=url, stream=False, max_retries=1, **limits
    )


async def ask(project, url, tasks):
    async with asking(project, url) as orchestrator:
        return [await orchestrator.execute_agent("python-expert", task) for task in tasks]


async def ask_twice(project, url):
    return await ask(project, url, "ab")


PLAIN = json.dumps(ANSWER).encode()


async def test_an_address_may_have_a_name_and_a_password(project):
    async with sequence(http(PLAIN), http(PLAIN)) as (url, _):
        results = await ask_twice(project, url.replace("//", "//name:pass@"))
    assert [one.output for one in results] == ["As it is."] * 2


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fast", [True, False])
class TestABudgetWhereTheConnectionFails:
    @pytest.fixture(autouse=True)
    def by_either_client(self, fast, monkeypatch):
        if not fast:
            monkeypatch.setattr("claude_force.transport.transport.make_http", lambda *_: None)

    async def spent_by_the_last(self, project, times, answers, address=None):
        async with sequence(*[http(PLAIN)] * (times - 1), *answers) as (url, _):
            price = {MODEL: {"input": 3.0, "output": 15.0}}
            async with asking(project, address or url, budget_usd=5.0, prices=price) as orchestrator:
                before = 0.0
                for number in range(times):
                    before = orchestrator.spent_usd
                    result = await orchestrator.execute_agent("python-expert", f"Task {number}")
                assert isinstance(result.error, ConnectionFailedError)
                return orchestrator.spent_usd - before

    async def test_counts_the_worst_of_a_request_that_was_sent(self, project, times):
        # Of an answer in one piece that did not come nobody knows whether it is billed: 4,096 tokens of it.
        assert await self.spent_by_the_last(project, times, [None]) > 0.05

    async def test_counts_nothing_where_there_was_none_to_send_it_over(self, project, times):
        nobody = "http://127.0.0.1:9"
        assert await self.spent_by_the_last(project, times, [], nobody) == 0.0


class TestAioHttpsOwnSession:
    async def test_all_but_the_first_request_go_by_it(self, project, direct):
        async with sequence(http(PLAIN), http(PLAIN)) as (url, _):
            assert [one.output for one in await ask_twice(project, url)] == ["As it is."] * 2
        assert [json.loads(body)["messages"][0]["content"] for body in direct] == ["b"]

    async def test_an_answer_that_is_compressed_is_read(self, project, direct):
        packed = http(gzip.compress(PLAIN), content_encoding="gzip")
        async with sequence(http(PLAIN), packed) as (url, _):
            assert [one.output for one in await ask_twice(project, url)] == ["As it is."] * 2
        assert len(direct) == 1

    @pytest.mark.parametrize("times", [1, 2])
    async def test_an_error_that_is_a_compressed_bomb_fills_no_memory(self, project, direct, times):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        inner = b"".join([packer.compress(bytes(2**20)) for _ in range(300)]) + packer.flush()
        bomb = http(gzip.compress(inner), "500 Oops", content_encoding="gzip, gzip")
        assert len(bomb) < 5_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with sequence(*[http(PLAIN)] * (times - 1), bomb) as (url, _):
            result = (await ask(project, url, "ab"[:times]))[-1]
        assert result.error.status == 500
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100

    @pytest.mark.parametrize("times", [1, 2])
    async def test_an_answer_that_is_compressed_twice_is_not_read(self, project, direct, times):
        packed = http(gzip.compress(gzip.compress(PLAIN)), content_encoding="gzip, gzip")
        async with sequence(*[http(PLAIN)] * (times - 1), packed) as (url, _):
            result = (await ask(project, url, "ab"[:times]))[-1]
        assert type(result.error) is BadReplyError

    async def test_an_error_that_is_no_compressed_text_is_the_status_that_it_has(self, project, direct):
        broken = http(b"no gzip", "400 Bad Request", content_encoding="gzip")
        async with sequence(broken) as (url, _):
            (result,) = await ask(project, url, "a")
        assert result.error.status == 400

    async def test_a_redirection_is_followed_as_the_sdk_follows_it(self, project, direct):
        moved = http(b"", "307 Temporary Redirect", location="/elsewhere")
        async with sequence(http(PLAIN), moved, moved, http(PLAIN)) as (url, paths):
            assert (await ask_twice(project, url))[1].output == "As it is."
        assert (paths[-1], len(direct)) == ("/elsewhere", 1)

    async def test_one_that_is_redirected_is_the_last_that_tries_it(self, project, direct):
        moved = http(b"", "307 Temporary Redirect", location="/elsewhere")
        answers = [http(PLAIN), moved, moved, http(PLAIN), moved, http(PLAIN)]
        async with sequence(*answers) as (url, paths):
            results = await ask(project, url, "abc")
        assert [one.output for one in results] == ["As it is."] * 3
        assert ([path == "/elsewhere" for path in paths].count(True), len(direct)) == (2, 1)

    @pytest.mark.parametrize("times", [1, 2])
    async def test_an_error_that_falls_silent_leaves_no_connection(self, project, direct, times):
        begun = http(b"{", "500 Oops").replace(b"content-length: 1", b"content-length: 1000")
        async with sequence(*[http(PLAIN)] * (times - 1), begun) as (url, paths):
            async with asking(project, url, timeout_seconds=0.5) as orchestrator:
                for number in range(times):
                    error = (await orchestrator.execute_agent("python-expert", f"Task {number}")).error
                # It would be closed by whoever finds that nobody refers to it any more.
                gc.disable()
                try:
                    assert await ended(lambda: not paths.connected, 5)
                finally:
                    gc.enable()
        assert (type(error), len(direct)) == (SilenceError, times - 1)

    async def test_a_connection_that_is_lost_is_as_typed_and_as_doubtful_as_by_the_sdk(
        self, project, direct, monkeypatch
    ):
        async with sequence(http(PLAIN), None) as (url, _):
            ours = (await ask_twice(project, url))[1].error
        assert len(direct) == 1
        monkeypatch.setattr("claude_force.transport.wire.direct", lambda *_: None)
        async with sequence(http(PLAIN), None) as (other, _):
            theirs = (await ask_twice(project, other))[1].error
        assert len(direct) == 1
        assert type(ours) is type(theirs)
        assert str(ours).replace(url, "") == str(theirs).replace(other, "")

    async def test_of_an_error_without_end_only_its_beginning_is_read(self, project, direct):
        endless = http(b"x" * 2**17, "400 Bad Request").replace(
            b"content-length: 131072", b"content-length: 9999999"
        )
        async with sequence(http(PLAIN), endless) as (url, _):
            error = (await ask_twice(project, url))[1].error
        assert (error.status, len(direct)) == (400, 1)

    async def test_it_is_left_alone_where_a_proxy_is_set(self, project, direct, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        async with sequence() as (url, _):
            result = (await ask_twice(project, url))[1]
        assert not result.success
        assert direct == []
