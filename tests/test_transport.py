"""The two transports, over aiohttp alone and through the SDK: the same behaviour, the same requests."""

import ast
import asyncio
import base64
import gc
import gzip
import json
import os
import re
import resource
import subprocess
import sys
import traceback
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from fleet import MODEL, ended, fleet, write_project
from raw_server import ANSWER, PLAIN, http, sequence

from claude_force import AsyncAgentOrchestrator, settings, transport
from claude_force.conversation import ContentBlock, Conversation, ToolResult, tool_uses
from claude_force.errors import (
    AuthenticationError,
    BadReplyError,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidOptionError,
    MissingCredentialsError,
    OverloadedError,
    SilenceError,
    UnknownPriceError,
)
from claude_force.testing import MessagesServer, faults
from claude_force.testing.scripts import signature_of
from claude_force.transport.http import HttpSender
from claude_force.transport.protocol import AttemptRecord
from claude_force.transport.request import BODY_FIELDS
from claude_force.transport.sdk import SdkSender
from claude_force.transport.services import API
from claude_force.transport.transport import Transport
from claude_force.types import Call

REDIRECT = http(b"", "307 Temporary Redirect", location="/elsewhere")


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def ask(project, url, tasks="a", **given):
    """One result for each letter of `tasks`."""
    given = {"api_key": "test-key", "stream": False, "max_retries": 1, **given}
    async with AsyncAgentOrchestrator(project, base_url=url, **given) as orchestrator:
        return [await orchestrator.execute_agent("python-expert", task) for task in tasks]


class TestRequest:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_same_headers_each_time(self, project, route, stream, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-team: blue")
        async with fleet(project, stream=stream, **route) as (orchestrator, server):
            for number in range(3):
                assert (await orchestrator.execute_agent("python-expert", f"Task {number}")).success
        first, *later = [dict(one.headers, **{"content-length": ""}) for one in server.requests]
        assert later == [first, first]
        assert first["x-team"] == "blue"
        assert first["anthropic-version"] == settings.API_VERSION

    async def test_extras_hold_for_one_call(self, project, route):
        once = {"extra_headers": {"X-Once": "1"}, "extra_body": {"metadata": {"user_id": "u"}}}
        async with fleet(project, enable_cache=False, **route) as (orchestrator, server):
            for options in (once, {}, once):
                await orchestrator.execute_agent("python-expert", "x", **options)
        assert ["x-once" in one.headers for one in server.requests] == [True, False, True]
        assert ["metadata" in one.body for one in server.requests] == [True, False, True]

    async def test_sends_a_query(self, project, route):
        query = {"beta": True, "page": 2, "tags": ["a", "b"], "deep": {"x": "y z"}}
        async with sequence(http(PLAIN), http(PLAIN)) as (url, paths):
            given = {"stream": False, **route}
            async with AsyncAgentOrchestrator(project, base_url=url, **given) as orchestrator:
                await orchestrator.execute_agent("python-expert", "a", extra_query=query)
                await orchestrator.execute_agent("python-expert", "b")
        first, second = paths
        assert unquote_plus(first) == "/v1/messages?beta=true&page=2&tags[]=a&tags[]=b&deep[x]=y z"
        assert second == "/v1/messages"

    @pytest.mark.parametrize(
        "name", sorted(BODY_FIELDS - {"model", "max_tokens", "messages", "system", "stream"})
    )
    async def test_sends_each_field(self, project, route, name):
        value = 0.5 if name in settings.SAMPLING else [{"type": "x"}] if name == "tools" else {"type": "x"}
        async with fleet(project, **route) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", "a", **{name: value})
        assert server.requests[0].body[name] == value
        sampling = name in settings.SAMPLING
        version = settings.API_VERSION_WITH_SAMPLING if sampling else settings.API_VERSION
        assert server.requests[0].headers["anthropic-version"] == version

    @pytest.mark.parametrize("name", ["user_profile_id", "workspace_id"])
    async def test_sends_ids_as_headers(self, project, route, name):
        header = f"anthropic-{name.replace('_', '-')}"
        async with fleet(project, **route) as (orchestrator, server):
            for number, options in enumerate([{name: "one"}, {}, {name: "two"}]):
                assert (await orchestrator.execute_agent("python-expert", f"{number}", **options)).success
        assert [one.headers.get(header) for one in server.requests] == ["one", None, "two"]
        assert not any(name in one.body for one in server.requests)

    async def test_sends_betas_as_header(self, project, route):
        async with fleet(project, **route) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", "a", betas=["one-2026", "two-2026"])
        sent = server.requests[0].headers["anthropic-beta"].replace(" ", "")
        # The SDK adds one for a profile.
        assert sent.startswith("one-2026,two-2026")
        assert "betas" not in server.requests[0].body

    async def test_custom_version_wins(self, project, route, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "Anthropic-Version: 2024-02-02")
        async with fleet(project, **route) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", "a", temperature=0.5)
            await orchestrator.execute_agent("python-expert", "b")
        assert [one.headers["anthropic-version"] for one in server.requests] == ["2024-02-02"] * 2

    async def test_unknown_option_names_the_nearest(self, project, route):
        async with fleet(project, **route) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match=r"'stop_sequence'.*'stop_sequences'.*extra_body"):
                await orchestrator.execute_agent("python-expert", "a", stop_sequence=["x"])
        assert server.requests == []

    @pytest.mark.parametrize(
        "options",
        [
            {"extra_headers": "x: y"},
            {"extra_body": [1]},
            *({"timeout": seconds} for seconds in ("soon", 0, -1, float("nan"), float("inf"), 10**400)),
        ],
    )
    async def test_refuses_wrong_extras(self, project, options):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match=f"Option '{next(iter(options))}' is not a"):
                await orchestrator.execute_agent("python-expert", "a", **options)
        assert server.requests == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("extra_headers", {"x": value}) for value in ("a\nb: c", "a\x00", None, b"y")),
            *(("extra_headers", {name: "1"}) for name in ("x y", "", "a:b", "x\r\ny", 5)),
            *(("extra_headers", {name: "5"}) for name in ("Content-Length", "transfer-encoding", "Expect")),
            *(("betas", value) for value in (["a\nb"], [None], 5, 0)),
            *(("workspace_id", value) for value in ("a\nb", ["a", "b"])),
        ],
    )
    async def test_refuses_wrong_headers(self, project, name, value):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match=f"Option '{name}' can't be sent"):
                await orchestrator.execute_agent("python-expert", "a", **{name: value})
        assert server.requests == []

    @pytest.mark.parametrize(
        "line", ["x y: 1", ": v", "x: a\x01b", "Content-Length: 5", "expect: 100-continue"]
    )
    async def test_refuses_wrong_custom_headers(self, project, route, line, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", line)
        async with fleet(project, **route) as (orchestrator, server):
            with pytest.raises(ConfigurationError, match="ANTHROPIC_CUSTOM_HEADERS can't be sent"):
                await orchestrator.execute_agent("python-expert", "a")
        assert server.requests == []

    async def test_hides_extra_headers(self, project, route):
        said = b'{"error": {"type": "invalid_request_error", "message": "you sent hunter2hunter2"}}'
        async with sequence(http(said, "400 Bad Request")) as (url, _):
            async with AsyncAgentOrchestrator(project, base_url=url, **route) as orchestrator:
                headers = {"X-Tenant": "Basic hunter2hunter2"}
                result = await orchestrator.execute_agent("python-expert", "a", extra_headers=headers)
        assert "you sent ***" in str(result.error)

    async def test_timeout_bounds_each_read(self, project, route):
        plan = [faults.silence_before_first_byte()]
        async with fleet(project, {"faults": plan}, max_retries=1, **route) as (orchestrator, _):
            error = (await orchestrator.execute_agent("python-expert", "a", timeout=0.3)).error
        assert type(error) is ConnectionFailedError

    async def test_large_body_warns_of_nothing(self, project, route):
        async with fleet(project, **route) as (orchestrator, server):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                large = {"metadata": {"user_id": "x" * 2**21}}
                assert (await orchestrator.execute_agent("python-expert", "a", **large)).success
        assert len(server.requests[0].body["metadata"]["user_id"]) == 2**21

    async def test_writes_dates_and_models(self, project):
        from datetime import date

        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent(
                "python-expert", "a", cache="off", metadata={"on": date(2026, 1, 2)}
            )
            with pytest.raises(InvalidOptionError, match="no JSON form"):
                await orchestrator.execute_agent("python-expert", "a", cache="off", metadata={"on": object()})
        assert [one.body["metadata"] for one in server.requests] == [{"on": "2026-01-02"}]


class TestCostOfExtras:
    """Budgets hold whatever way a field gets into the body."""

    PRICES = {name: {"input": 3.0, "output": 15.0} for name in (MODEL, "cheap")}
    PRICES["dear"] = {"input": 300.0, "output": 1500.0}

    @pytest.mark.parametrize("body", [{"max_tokens": 900_000}, {"model": "dear"}])
    async def test_reserves_what_is_sent(self, project, body):
        options = {"model": "cheap", "max_tokens": 1000}
        async with fleet(project, budget_usd=1.0, prices=self.PRICES) as (orchestrator, server):
            assert (await orchestrator.execute_agent("python-expert", "a", **options)).success
            result = await orchestrator.execute_agent("python-expert", "b", extra_body=body, **options)
        assert type(result.error) is BudgetExceededError
        assert len(server.requests) == 1

    async def test_sends_what_is_reserved(self, project):
        async with fleet(project) as (orchestrator, server):
            body = {"max_tokens": 77, "model": "claude-haiku-4-5", "speed": "fast", "new": 1}
            result = await orchestrator.execute_agent("python-expert", "a", max_tokens=5, extra_body=body)
        assert result.success
        assert {name: server.requests[0].body[name] for name in body} == body

    @pytest.mark.parametrize("as_model", [False, True])
    async def test_counts_searches(self, project, as_model):
        tool = {"type": "web_search_20250305", "name": "web_search"}
        options = {"tools": [Dumped(tool)]} if as_model else {"extra_body": {"tools": [tool]}}
        async with fleet(project, budget_usd=1.0, prices=self.PRICES) as (orchestrator, server):
            with pytest.raises(UnknownPriceError, match="max_uses"):
                await orchestrator.execute_agent("python-expert", "a", **options)
        assert server.requests == []

    async def test_refuses_senseless_limits(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match="max_tokens"):
                await orchestrator.execute_agent("python-expert", "a", extra_body={"max_tokens": -5})
        assert server.requests == []


class Dumped:
    """As a pydantic model."""

    def __init__(self, fields):
        self.fields = fields

    def model_dump(self, **_):
        return self.fields


class TestBothSenders:
    """What both put on the wire, header by header."""

    # Who sends it, and how it is packed, is each one's own.
    OWN = ("user-agent", "accept-encoding", "content-length", "connection", "host")

    async def sent(self, make, fields):
        with MessagesServer() as server:
            sender = make(server.base_url)
            try:
                response = await sender.send(fields)
                assert response.status_code == 200
                await response.aread()
                await response.aclose()
            finally:
                await sender.close()
        (request,) = server.requests
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in self.OWN and not name.startswith("x-stainless")
        }
        if headers.get("x-api-key"):
            # SDKs before 1.0 send the key under its older name.
            headers["authorization"] = f"Bearer {headers.pop('x-api-key')}"
        return request.body, headers

    @pytest.mark.parametrize(
        "custom", ["", "x-team: blue\nAccept: text/x", "Authorization: Bearer of-the-gateway"]
    )
    @pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
    @pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"workspace_id": "w", "stream": True}])
    async def test_send_the_same(self, options, variable, custom, monkeypatch):
        monkeypatch.setenv(variable, "of-the-environment")
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", custom)
        fields = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], **options}
        ours = await self.sent(lambda url: HttpSender(None, url, 1), {"stream": False, **fields})
        theirs = await self.sent(lambda url: SdkSender(API, None, url, 1), {"stream": False, **fields})
        if custom.startswith("Authorization"):
            # An older SDK sends its key beside it.
            theirs[1]["authorization"] = ours[1]["authorization"]
        assert ours == theirs

    async def test_key_wins_over_token(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "the-key")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "the-token")
        fields = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        _, headers = await self.sent(lambda url: HttpSender(None, url, 1), fields)
        assert headers["authorization"] == "Bearer the-key"


class TestCredentials:
    @pytest.mark.parametrize("variable", settings.CREDENTIALS)
    async def test_names_a_key_with_a_line_break(self, project, variable, monkeypatch):
        monkeypatch.setenv(variable, "key-that-came\nfrom-a-file\n")
        with MessagesServer() as server:
            (result,) = await ask(project, server.base_url, api_key=None)
        assert type(result.error) is AuthenticationError
        assert variable in str(result.error)
        assert "key-that-came" not in str(result.error)
        assert server.requests == []

    async def test_missing_are_an_error(self, project):
        with MessagesServer() as server:
            (result,) = await ask(project, server.base_url, api_key=None)
        assert type(result.error) is MissingCredentialsError
        assert server.requests == []

    @pytest.mark.parametrize("header", ["Authorization: Bearer t", "X-Api-Key: t"])
    async def test_custom_header_is_enough(self, project, header, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", header)
        with MessagesServer() as server:
            assert (await ask(project, server.base_url, api_key=None))[0].success
        assert server.requests[0].headers[header.partition(":")[0].lower()].endswith("t")

    async def test_in_address_go_beside_the_key(self, project):
        async with fleet(project) as (orchestrator, server):
            orchestrator.base_url = server.base_url.replace("//", "//na%40me:pass@")
            assert (await orchestrator.execute_agent("python-expert", "a")).success
        headers = server.requests[0].headers
        assert headers["authorization"] == "Basic " + base64.b64encode(b"na@me:pass").decode()
        assert headers["x-api-key"] == "test-key"

    async def test_in_address_are_taken(self, project):
        async with sequence(http(PLAIN), http(PLAIN)) as (url, _):
            results = await ask(project, url.replace("//", "//name:pass@"), "ab")
        assert [one.output for one in results] == ["As it is."] * 2


class TestAddress:
    @pytest.mark.parametrize(
        "address", ["127.0.0.1:9", "ftp://127.0.0.1:9", "http://127.0.0.1:99999", "http://"]
    )
    async def test_without_http_is_refused(self, project, address):
        async with AsyncAgentOrchestrator(project, base_url=address, api_key="test-key") as orchestrator:
            with pytest.raises(InvalidOptionError, match="write https://HOST"):
                await orchestrator.execute_agent("python-expert", "a")

    async def test_of_a_key_log_is_checked(self, project, route, monkeypatch, tmp_path):
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "nowhere" / "keys"))
        with pytest.raises(ConfigurationError, match="nowhere.*SSLKEYLOGFILE"):
            await ask(project, "https://127.0.0.1:9", **route)

    async def test_with_the_version_gets_advice(self, project, route):
        with MessagesServer() as server:
            results = await ask(project, f"{server.base_url}/v1", "ab", **route)
        assert all("Leave the /v1 out" in str(result.error) for result in results)

    async def test_may_have_a_path(self, project, route):
        async with sequence(http(PLAIN)) as (url, paths):
            assert (await ask(project, f"{url}/gate way/", **route))[0].success
        assert paths == ["/gate%20way/v1/messages"]


class TestAnswer:
    @pytest.mark.parametrize(("code", "kind"), [(401, AuthenticationError), (529, OverloadedError)])
    async def test_types_an_error_status(self, project, route, code, kind):
        plan = {"faults": [None, *[faults.status(code)] * 3]}
        async with fleet(project, plan, **route) as (orchestrator, _):
            assert (await orchestrator.execute_agent("python-expert", "a")).success
            error = (await orchestrator.execute_agent("python-expert", "b")).error
        assert (type(error), error.status) == (kind, code)
        assert error.kind
        assert error.request_id

    async def test_in_one_piece_is_taken(self, project, route):
        server = {"faults": [faults.in_one_piece()], "answer": lambda body: "All at once."}
        async with fleet(project, server, **route) as (orchestrator, running):
            result = await orchestrator.execute_agent("python-expert", "a")
            assert running.requests[0].body["stream"] is True
            assert (result.success, result.output, result.attempts) == (True, "All at once.", 1)
            assert result.usage.output_tokens == running.bills[0].usage["output_tokens"]
            assert (await orchestrator.execute_agent("python-expert", "a")).cached

    @pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate", "identity"])
    async def test_compressed_is_read(self, project, route, encoding):
        raw = zlib.compressobj(wbits=-15)
        packed = {
            "gzip": gzip.compress(PLAIN),
            "x-gzip": gzip.compress(PLAIN),
            "deflate": zlib.compress(PLAIN),
            "raw deflate": raw.compress(PLAIN) + raw.flush(),
            "identity": PLAIN,
        }[encoding]
        answer = http(packed, content_encoding=encoding.replace("raw ", ""))
        async with sequence(answer, http(PLAIN), answer) as (url, _):
            assert [one.output for one in await ask(project, url, "abc", **route)] == ["As it is."] * 3

    async def test_compressed_bomb_fills_no_memory(self, project, route):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        once = b"".join([packer.compress(bytes(2**20)) for _ in range(300)]) + packer.flush()
        bombs = [
            http(gzip.compress(once), "500 Oops", content_encoding="gzip, gzip"),
            http(once, "500 Oops", content_encoding="gzip"),
            http(once, content_encoding="gzip"),
        ]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with sequence(http(PLAIN), *bombs) as (url, _):
            results = await ask(project, url, "abcd", **route)
        assert [one.error.status for one in results[1:3]] == [500, 500]
        assert not results[3].success
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100

    @pytest.mark.parametrize("extra", [1, 5, 42, 46])
    async def test_last_compressed_bytes_are_read(self, project, extra):
        # They repeat earlier ones, so that they and the end are in one byte, which has been read by then.
        content = {"content": ANSWER["content"]}
        others = {name: value for name, value in ANSWER.items() if name != "content"}
        body = json.dumps({"pad": "", **others, "before": content, **content})
        body = body.replace('""', '"' + "x" * (2**16 + extra - len(body)) + '"', 1)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
        packed = packer.compress(body.encode()) + packer.flush()
        async with sequence(http(packed, content_encoding="deflate")) as (url, _):
            (result,) = await ask(project, url)
        assert result.output == "As it is."

    @pytest.mark.parametrize("encoding", ["gzip, gzip", "br"])
    async def test_unknown_compression_is_a_bad_reply(self, project, route, encoding):
        packed = http(gzip.compress(gzip.compress(PLAIN)), content_encoding=encoding)
        async with sequence(packed) as (url, _):
            (result,) = await ask(project, url, **route)
        assert type(result.error) is BadReplyError

    async def test_wrong_label_is_named(self, project, route):
        async with sequence(http(b"12345")) as (url, _):
            (result,) = await ask(project, url, **route)
        assert "is labelled application/json, and it is not: 12345" in str(result.error)

    async def test_error_that_is_no_gzip_has_its_status(self, project, route):
        broken = http(b"no gzip", "400 Bad Request", content_encoding="gzip")
        async with sequence(broken) as (url, _):
            (result,) = await ask(project, url, **route)
        assert result.error.status == 400

    async def test_answer_that_is_no_gzip_is_an_error(self, project, route):
        async with sequence(http(b"no gzip", content_encoding="gzip")) as (url, _):
            (result,) = await ask(project, url, **route)
        assert type(result.error) is ConnectionFailedError
        assert "decompressing" in str(result.error)

    async def test_endless_error_is_read_in_part(self, project, route):
        endless = http(b"x" * 2**17, "400 Bad Request").replace(b"length: 131072", b"length: 9999999")
        async with sequence(endless) as (url, _):
            (result,) = await ask(project, url, **route)
        assert result.error.status == 400

    async def test_silent_error_leaves_no_connection(self, project, route):
        begun = http(b"{", "500 Oops").replace(b"content-length: 1", b"content-length: 1000")
        async with sequence(http(PLAIN), begun) as (url, paths):
            given = {"stream": False, "max_retries": 1, "timeout_seconds": 0.5, **route}
            async with AsyncAgentOrchestrator(project, base_url=url, **given) as orchestrator:
                assert (await orchestrator.execute_agent("python-expert", "a")).success
                error = (await orchestrator.execute_agent("python-expert", "b")).error
                # It would be closed by whoever finds that nobody refers to it any more.
                gc.disable()
                try:
                    assert await ended(lambda: not paths.connected, 5)
                finally:
                    gc.enable()
        assert type(error) is SilenceError

    async def test_sets_no_cookie(self, project, route):
        async with fleet(project, **route) as (orchestrator, server):
            for task in "ab":
                await orchestrator.execute_agent("python-expert", task)
        assert not any("cookie" in one.headers for one in server.requests)


class TestRedirect:
    @pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
    async def test_is_followed_on_the_same_server(self, project, route, status):
        moved = http(b"", status, location="/elsewhere")
        async with sequence(http(PLAIN), moved, http(PLAIN)) as (url, paths):
            assert [one.output for one in await ask(project, url, "ab", **route)] == ["As it is."] * 2
        assert paths[-1] == "/elsewhere"

    async def test_password_in_it_is_not_used(self, project, route):
        def answer(url):
            return http(
                b"", "307 Temporary Redirect", location=f"{url.replace('//', '//me:pass@')}/elsewhere"
            )

        async with sequence(answer, http(PLAIN)) as (url, paths):
            (result,) = await ask(project, url, **route)
        assert (result.output, paths[-1]) == ("As it is.", "/elsewhere")

    async def test_to_another_server_is_not_followed(self, project, route):
        async with sequence() as (elsewhere, others):
            moved = http(b"", "307 Temporary Redirect", location=f"{elsewhere}/v1/messages")
            async with sequence(moved) as (url, _):
                (result,) = await ask(project, url, **route)
        assert (type(result.error), result.error.status) == (BadReplyError, 307)
        assert others == []

    @pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other"])
    async def test_that_drops_the_body_is_not_followed(self, project, route, status):
        async with sequence(http(b"", status, location="/elsewhere")) as (url, paths):
            (result,) = await ask(project, url, **route)
        assert type(result.error) is BadReplyError
        assert paths == ["/v1/messages"]

    async def test_in_a_circle_ends(self, project, route):
        async with sequence(*[REDIRECT] * 30) as (url, paths):
            (result,) = await ask(project, url, **route)
        assert (type(result.error), len(paths)) == (BadReplyError, 11)

    @pytest.mark.parametrize("location", ["http://[", "mailto:x"])
    async def test_to_nonsense_is_a_bad_reply(self, project, route, location):
        async with sequence(http(b"", "307 Temporary Redirect", location=location)) as (url, _):
            (result,) = await ask(project, url, **route)
        assert type(result.error) is BadReplyError


async def test_unasked_answer_is_dropped(project, route):
    unasked = http(PLAIN.replace(b"As it is.", b"Unasked."))
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(http(PLAIN))
            await asyncio.sleep(0.05)
            writer.write(unasked)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    given = {"stream": False, "max_retries": 1, "enable_cache": False, **route}
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with AsyncAgentOrchestrator(project, base_url=url, **given) as orchestrator:
        outputs = []
        for task in "abc":
            outputs.append((await orchestrator.execute_agent("python-expert", task)).output)
            await asyncio.sleep(0.2)
    server.close()
    assert outputs == ["As it is."] * 3
    assert len(connections) == 3


class TestLostConnection:
    async def spent(self, project, route, answers, address=None):
        """What a budget counts for the last of the requests, which fails."""
        async with sequence(*answers) as (url, _):
            given = {"stream": False, "max_retries": 1, "budget_usd": 5.0, **route}
            prices = {MODEL: {"input": 3.0, "output": 15.0}}
            async with AsyncAgentOrchestrator(
                project, base_url=address or url, prices=prices, **given
            ) as orchestrator:
                before = 0.0
                for number in range(max(len(answers), 1)):
                    before = orchestrator.spent_usd
                    result = await orchestrator.execute_agent("python-expert", f"Task {number}")
                assert type(result.error) is ConnectionFailedError
                return orchestrator.spent_usd - before, result.error

    async def test_counts_at_worst_once_sent(self, project, route):
        # Nobody knows whether an answer in one piece that did not come is billed: 4,096 tokens of it.
        spent, error = await self.spent(project, route, [http(PLAIN), None])
        assert spent > 0.05
        assert not error.never_connected
        assert "Server disconnected" in str(error)

    async def test_costs_nothing_when_never_made(self, project, route):
        spent, error = await self.spent(project, route, [], "http://127.0.0.1:9")
        assert spent == 0.0
        assert error.never_connected
        assert "Cannot connect to host 127.0.0.1:9" in str(error)

    async def test_in_the_answer_is_typed(self, project, route):
        cut = http(PLAIN)[:-10]
        async with sequence(cut + b"", None) as (url, _):
            given = {"stream": False, "max_retries": 1, "timeout_seconds": 1.0, **route}
            async with AsyncAgentOrchestrator(project, base_url=url, **given) as orchestrator:
                error = (await orchestrator.execute_agent("python-expert", "a")).error
        assert isinstance(error, (ConnectionFailedError, SilenceError))


class TestCauses:
    """Nothing that is sent in secret shows in an error, nor in the errors that caused it."""

    async def shown(self, project, url, **given):
        (result,) = await ask(project, url, **{"api_key": "key-of-the-team", **given})
        error, shown = result.error, []
        assert type(error) is ConnectionFailedError
        shown += traceback.format_exception(type(error), error, error.__traceback__)
        while error is not None:
            shown += [repr(error), repr(error.args), repr(vars(error))]
            error = error.__cause__ or error.__context__
        return "".join(shown), result.error

    async def test_hold_no_key(self, project, route):
        async with sequence(b"HTTP/1.1 nonsense\r\n\r\n") as (url, _):
            shown, error = await self.shown(project, url, **route)
        assert "nonsense" in shown
        assert "key-of-the-team" not in shown
        assert not error.never_connected

    async def test_hold_no_password_of_a_proxy(self, project, route, monkeypatch):
        async with Proxy(b"HTTP/1.1 nonsense\r\n\r\n") as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:p4ssw0rd@{proxy.address}")
            shown, error = await self.shown(project, "https://127.0.0.1:9", **route)
        assert "nonsense" in shown
        assert "p4ssw0rd" not in shown
        assert base64.b64encode(b"me:p4ssw0rd").decode() not in shown
        assert error.never_connected


class Proxy:
    """Forwards nothing: answers as the server behind it, and notes what it was asked."""

    def __init__(self, *answers):
        self.answers, self.heads = list(answers), []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.heads.append(head)
        writer.write(self.answers.pop(0))
        await writer.drain()
        writer.close()


class TestProxy:
    BASIC = base64.b64encode(b"me:p@ss").decode().lower()

    async def test_of_the_environment_is_used(self, project, route, monkeypatch):
        async with Proxy(http(PLAIN)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@{proxy.address}")
            (result,) = await ask(project, "http://127.0.0.1:9", **route)
        assert result.output == "As it is."
        assert proxy.heads[0].startswith("post http://127.0.0.1:9/v1/messages ")
        assert f"proxy-authorization: basic {self.BASIC}" in proxy.heads[0]

    async def test_tunnels_to_https(self, project, route, monkeypatch):
        async with Proxy(b"HTTP/1.1 403 No\r\n\r\n") as proxy:
            monkeypatch.setenv("https_proxy", f"me:p%40ss@{proxy.address}")
            (result,) = await ask(project, "https://127.0.0.1:9", **route)
        assert proxy.heads[0].startswith("connect 127.0.0.1:9 ")
        assert f"proxy-authorization: basic {self.BASIC}" in proxy.heads[0]
        assert type(result.error) is ConnectionFailedError
        assert result.error.never_connected
        assert "p@ss" not in str(result.error)

    @pytest.mark.parametrize(
        "bypass",
        ["127.0.0.1", "*", "x.invalid, 127.0.0.1", "x.invalid, *", "127.0.0.0/8", "http://127.0.0.1"],
    )
    async def test_is_left_out_by_no_proxy(self, project, route, monkeypatch, bypass):
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", bypass)
        async with sequence(http(PLAIN)) as (url, _):
            assert (await ask(project, url, **route))[0].success

    async def test_unreachable_is_a_connection_error(self, project, route, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        async with sequence() as (url, paths):
            (result,) = await ask(project, url, **route)
        assert result.error.never_connected
        assert paths == []

    @pytest.mark.parametrize("bypass", ["::1", "[::1]", "[::1]:8"])
    def test_is_left_out_for_ipv6(self, monkeypatch, bypass):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        assert settings.proxy("https", "[::1]:8") == "http://127.0.0.1:1"
        monkeypatch.setenv("NO_PROXY", bypass)
        assert settings.proxy("https", "[::1]:8") is None

    @pytest.mark.parametrize(
        ("bypass", "is_left_out"),
        [
            ("*.example.com", True),
            ("https://api.example.com", True),
            ("https://api.example.com:443/", True),
            ("all://*.example.com", True),
            ("http://api.example.com", False),
            ("*.example.org", False),
            ("10.0.0.0/8", False),
            ("a/b", False),
        ],
    )
    def test_is_left_out_for_names(self, monkeypatch, bypass, is_left_out):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", f"x.invalid,{bypass}")
        assert (settings.proxy("https", "api.example.com:443") is None) == is_left_out

    @pytest.mark.parametrize(
        ("host", "is_left_out"), [("10.1.2.3", True), ("[fd00::1]:8", True), ("11.0.0.1", False)]
    )
    def test_is_left_out_for_networks(self, monkeypatch, host, is_left_out):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, [fd00::]/8")
        assert (settings.proxy("https", host) is None) == is_left_out

    def test_of_the_system_is_used(self, monkeypatch):
        # As urllib finds it on macOS and Windows.
        monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://system:8"})
        assert settings.proxy("https", "api.anthropic.com") == "http://system:8"

    @pytest.mark.parametrize(
        "proxy", ["socks5://127.0.0.1:1", "http://me:p4ssw0rd@127.0.0.1:x", "http://h:99999"]
    )
    async def test_of_another_kind_is_refused(self, project, route, monkeypatch, proxy):
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(InvalidOptionError, match="HTTPS_PROXY"):
            await ask(project, "http://127.0.0.1:9", **route)

    async def test_passwords_of_netrc_are_not_sent(self, project, route, monkeypatch, clean_environment):
        netrc = clean_environment / ".netrc"
        netrc.write_text("machine 127.0.0.1 login me password from-netrc\n")
        netrc.chmod(0o600)
        async with Proxy(http(PLAIN)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
            assert (await ask(project, "http://127.0.0.1:9", **route))[0].success
        assert "basic" not in proxy.heads[0]


CALL = """
import asyncio, sys
from claude_force import AsyncAgentOrchestrator
async def main():
    async with AsyncAgentOrchestrator(sys.argv[1]) as orchestrator:
        result = await orchestrator.execute_agent("python-expert", "Explain")
        assert result.success, result.error
asyncio.run(main())
print("anthropic" in sys.modules)
"""


@pytest.mark.parametrize("profile", [False, True])
def test_imports_the_sdk_only_where_needed(project, profile, unmeasured):
    with MessagesServer() as server:
        environment = {**os.environ, **server.environment()}
        if profile:
            environment["ANTHROPIC_PROFILE"] = "nobody"
        done = subprocess.run(
            [sys.executable, "-c", CALL, str(project)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    # The key wins over the profile, which is not even looked at.
    assert done.stdout.strip() == "False", done.stderr


def private_names(path):
    """Where a module uses an attribute with an underscore that is not its object's own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        # `_replace` is public, for all its name, in named tuples.
        is_private = isinstance(node, ast.Attribute) and re.match("_(?!_|replace$)", node.attr)
        if is_private and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            yield f"{path.name}:{node.lineno} {node.attr}"


def test_uses_public_names_only():
    modules = Path(transport.__file__).parent.glob("*.py")
    assert [name for path in modules for name in private_names(path)] == []


TOOLS = '[{"name": "Read",  "description": "Reads.", "input_schema": {"type": "object"}}]'
THOUGHT = f'{{"type": "thinking", "thinking": "a \\u00e9",  "signature": "{signature_of("a é")}"}}'
READ = '{"type":"tool_use","id":"t1","name":"Read","input":{"n":  1.50,"path":"é"}}'


def conversation_call(turns=1, options=None, **changes):
    """A call in the middle of an agent's loop, after so many answers."""
    conversation = Conversation.start(TOOLS, ["the task"])
    for number in range(1, turns + 1):
        read = READ.replace("t1", f"t{number}")
        answer = [ContentBlock("thinking", THOUGHT), ContentBlock("tool_use", read)]
        results = [(tool_uses(answer)[0], ToolResult(f"text {number}"))]
        conversation = conversation.with_answer(answer).with_results(results)
    conversation = changes.pop("change", lambda same: same)(conversation)
    changes = {"max_tokens": 99, **changes}
    return Call(
        "a", ("who", "what"), "the task", MODEL, options=options or {}, conversation=conversation, **changes
    )


async def converse(url, call, route, stream=True):
    opened = Transport(route["api_key"], url, 30, stream, 10)
    try:
        opened.check(call)
        return await opened.attempt(call, AttemptRecord())
    finally:
        await opened.close()


class TestConversation:
    @pytest.mark.parametrize("ttl", ["5m", "1h"])
    async def test_sends_tools_and_messages(self, route, ttl):
        with MessagesServer() as server:
            reply = await converse(server.base_url, conversation_call(cache_ttl=ttl), route)
        control = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": "1h"}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": "text 1"}
        assert server.requests[0].body == {
            "model": MODEL,
            "max_tokens": 99,
            "stream": True,
            "system": [
                {"type": "text", "text": "who"},
                {"type": "text", "text": "what", "cache_control": control},
            ],
            "tools": json.loads(TOOLS),
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "the task", "cache_control": control}]},
                {"role": "assistant", "content": [json.loads(THOUGHT), json.loads(READ)]},
                {"role": "user", "content": [{**result, "cache_control": control}]},
            ],
        }
        assert [block.type for block in reply.content] == ["text"]

    async def test_last_request_may_not_call(self, route):
        with MessagesServer() as server:
            for change in (lambda same: same, Conversation.without_calls):
                await converse(server.base_url, conversation_call(change=change), route)
        before, last = [one.body for one in server.requests]
        assert last == {**before, "tool_choice": {"type": "none"}}

    async def test_text_is_sent_as_it_came(self):
        with MessagesServer() as server:
            for turns in (1, 2):
                await converse(server.base_url, conversation_call(turns), {"api_key": "k"})
        first, second = [one.raw.decode() for one in server.requests]
        assert f'"content":[{THOUGHT},{READ}]' in first
        assert f'"tools":{TOOLS}' in first
        control = ',"cache_control":{"type": "ephemeral"}'
        before, after = (one.partition('"messages":')[2].replace(control, "") for one in (first, second))
        assert after.startswith(before[: -len("]}")])

    async def test_options_go_along(self, route):
        options = {
            "temperature": 0.5,
            "extra_headers": {"x-once": "1"},
            "extra_body": {"metadata": {"user_id": "u"}},
        }
        with MessagesServer() as server:
            await converse(server.base_url, conversation_call(options=options), route)
        (sent,) = server.requests
        assert (sent.body["temperature"], sent.body["metadata"]) == (0.5, {"user_id": "u"})
        assert sent.headers["x-once"] == "1"
        assert len(sent.body["messages"]) == 3
        assert sent.body["tools"] == json.loads(TOOLS)

    @pytest.mark.parametrize("name", ["tools", "tool_choice", "messages"])
    @pytest.mark.parametrize("place", [lambda given: given, lambda given: {"extra_body": given}])
    async def test_own_tools_clash(self, name, place):
        with MessagesServer() as server:
            call = conversation_call(options=place({name: []}))
            with pytest.raises(InvalidOptionError, match=f"Option '{name}' can't be given"):
                await converse(server.base_url, call, {"api_key": "k"})
        assert server.requests == []

    async def test_odd_text_is_sent(self, route):
        odd = Conversation.start("[]", ["\ud800 and \U0001f600"])
        with MessagesServer() as server:
            await converse(server.base_url, conversation_call(change=lambda _: odd), route)
        (block,) = server.requests[0].body["messages"][0]["content"]
        assert block["text"] == "\ufffd and \U0001f600"
        assert "tools" not in server.requests[0].body

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("streamed", [True, False])
    async def test_returns_the_blocks(self, route, stream, streamed):
        """Whether a stream was asked for or not, and whether one comes or not."""
        blocks = [THOUGHT.encode(), READ.encode()]
        usage = b'"usage":{"input_tokens":7,"output_tokens":3}'
        plain = b'{"model":"m","content":[%b],"stop_reason":"tool_use",%b}' % (b",".join(blocks), usage)
        events = [b'{"type":"message_start","message":{"model":"m",%b}}' % usage]
        events += [
            b'{"type":"content_block_start","index":%d,"content_block":%b}' % one for one in enumerate(blocks)
        ]
        events.append(b'{"type":"message_delta","delta":{"stop_reason":"tool_use"},%b}' % usage)
        answer = "".join(f"data: {one.decode()}\n\n" for one in events) if streamed else plain.decode()
        kind = "text/event-stream" if streamed else "application/json"
        with MessagesServer(faults=[faults.body(answer, content_type=kind)]) as server:
            reply = await converse(server.base_url, conversation_call(), route, stream)
        assert [json.loads(block.json) for block in reply.content] == [json.loads(THOUGHT), json.loads(READ)]
        assert (reply.text, reply.stop_reason) == ("", "tool_use")
        assert streamed or [block.json for block in reply.content] == [THOUGHT, READ]

    async def test_long_one_follows_a_redirect(self):
        long = Conversation.start("[]", ["x" * 2**20] * 3)
        call = conversation_call(change=lambda _: long)
        with MessagesServer() as server:
            target = http(b"", "307 Temporary Redirect", location="/v1/messages")
            async with sequence(target, http(PLAIN)) as (url, paths):
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    await converse(url, call, {"api_key": "k"})
                    await converse(server.base_url, call, {"api_key": "k"})
        assert paths == ["/v1/messages"] * 2
        assert [len(one["text"]) for one in server.requests[0].body["messages"][-1]["content"]] == [2**20] * 3

    async def test_other_calls_have_no_content(self, route):
        with MessagesServer() as server:
            call = replace(conversation_call(), conversation=None)
            assert (await converse(server.base_url, call, route)).content == ()
