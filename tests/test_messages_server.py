"""The stand-in for the Messages API, over real HTTP: with the official SDK and byte by byte."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import aiohttp
import anthropic
import pytest

from claude_force.testing import Fault, MessagesServer, RateLimit, faults
from claude_force.testing.__main__ import main

ROOT = Path(__file__).parent.parent
MODEL = "claude-sonnet-5-5"
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
LARGE = "x" * 4096


class Clock:
    """Seconds that pass only when the test says so."""

    time = 0.0

    def __call__(self):
        return self.time


def prompt(text="Hello", **fields):
    return {
        "model": MODEL,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }


def marked(text=LARGE, **control):
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral", **control}}]


@contextmanager
def connected(server, timeout=5):
    connection = http.client.HTTPConnection(server.base_url.split("//")[1], timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def send(connection, body, path="/v1/messages", headers=None, method="POST"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, raw, {"x-api-key": "k"} if headers is None else headers)
    return connection.getresponse()


def ask(server, body, **options):
    """Status, headers and parsed body of one plain request on a connection of its own."""
    with connected(server) as connection:
        response = send(connection, body, **options)
        return response.status, response.headers, json.loads(response.read())


def usage_of(server, body):
    return ask(server, body)[2]["usage"]


def events_of(raw):
    """`(name, data)` of each event; every one must have just these two lines."""
    blocks = raw.decode().split("\n\n")
    assert blocks.pop() == ""
    events = []
    for block in blocks:
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        events.append((name[7:], data[6:]))
    return events


def stream(server, body):
    with connected(server) as connection:
        return send(connection, {**body, "stream": True}).read()


def eventually(condition):
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@contextmanager
def sdk(server):
    with anthropic.Anthropic(base_url=server.base_url, api_key="k", max_retries=0, timeout=5) as client:
        yield client


class TestAnswers:
    def test_the_sdk_reads_a_plain_answer(self):
        with MessagesServer(answer=lambda body: "Good day") as server, sdk(server) as client:
            message = client.messages.create(**prompt())
        assert (message.content[0].text, message.stop_reason, message.model) == (
            "Good day",
            "end_turn",
            MODEL,
        )
        assert message._request_id.startswith("req_")

    def test_the_sdk_reads_a_stream(self):
        with MessagesServer(answer=lambda body: "Good day, äöü 🙂 " * 30) as server, sdk(server) as client:
            with client.messages.stream(**prompt()) as running:
                message = running.get_final_message()
        assert message.content[0].text == "Good day, äöü 🙂 " * 30
        assert message.usage.output_tokens == len(message.content[0].text) // 4

    def test_stream_has_api_events_in_order(self):
        with MessagesServer(answer=lambda body: "x" * 64) as server:
            events = events_of(stream(server, prompt()))
        assert [name for name, _ in events] == [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert all(json.loads(data)["type"] == name for name, data in events)

    def test_stream_ends_with_stop_reason_and_usage(self):
        with MessagesServer(answer=lambda body: "x" * 64) as server:
            events = dict(events_of(stream(server, prompt())))
        final = json.loads(events["message_delta"])
        assert final["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
        assert final["usage"]["output_tokens"] == 16
        assert json.loads(events["message_start"])["message"]["usage"]["output_tokens"] == 1

    def test_answer_with_lone_surrogate_is_sent(self):
        with MessagesServer(answer=lambda body: "a\ud800b") as server:
            assert ask(server, prompt())[2]["content"][0]["text"] == "a?b"
            assert b'"a?b"' in stream(server, prompt())

    def test_an_empty_answer_is_a_whole_stream(self):
        with MessagesServer(answer=lambda body: "") as server:
            assert events_of(stream(server, prompt()))[-1][0] == "message_stop"

    def test_max_tokens_cuts_the_answer(self):
        with MessagesServer(answer=lambda body: "x" * 400) as server:
            _, _, message = ask(server, prompt(max_tokens=10))
        assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 10)
        assert message["content"][0]["text"] == "x" * 40

    def test_output_tokens_sets_the_length(self):
        with MessagesServer(output_tokens=250) as server:
            assert usage_of(server, prompt())["output_tokens"] == 250

    def test_raising_answer_is_500_with_reason(self):
        with MessagesServer(answer=lambda body: body["nothing"]) as server:
            status, _, body = ask(server, prompt())
        assert (status, body["error"]["type"]) == (500, "api_error")
        assert "KeyError('nothing')" in body["error"]["message"]


class TestDefaultAnswer:
    def text(self, task, system="# Python expert\nYou explain."):
        with MessagesServer() as server:
            message = ask(server, prompt(task, system=system))[2]
        assert 60 <= message["usage"]["output_tokens"] <= 150
        return message["content"][0]["text"]

    def test_default_answer_names_first_heading(self):
        assert '"Python expert"' in self.text("Hello", "Some words.\n\n# Python expert\n")

    def test_default_answer_names_first_line(self):
        assert '"You review code."' in self.text("Hello", "You review code.\nAll of it.")

    def test_it_counts_what_the_text_holds(self):
        text = self.text(
            "import os\n\n\ndef first():\n    return os.name * 100\n\n\nasync def second(): ...\n"
        )
        assert "8 lines, 12 words and 76 characters" in text
        assert "2 lines with `def`; the first is `first` on line 4" in text
        assert "number 5, with 24 characters" in text

    def test_it_is_the_same_for_the_same_request(self):
        assert self.text("Hello") == self.text("Hello")

    def test_it_reads_blocks(self):
        assert "1 line, 2 words" in self.text([{"type": "text", "text": "Hello there"}])


class TestPace:
    def test_stream_takes_configured_time(self):
        with MessagesServer(time_to_first_token=0.1, tokens_per_second=400, output_tokens=40) as server:
            began = time.monotonic()
            stream(server, prompt())
            assert 0.195 <= time.monotonic() - began < 5

    def test_sends_nothing_before_first_token(self):
        with MessagesServer(time_to_first_token=0.1, output_tokens=4) as server:
            with connected(server) as connection:
                began = time.monotonic()
                send(connection, prompt(stream=True)).read(1)
                assert time.monotonic() - began >= 0.095

    def test_a_paced_stream_arrives_in_pieces(self):
        with MessagesServer(tokens_per_second=80, output_tokens=16) as server:
            with connected(server) as connection:
                response = send(connection, prompt(stream=True))
                first = response.read1(100_000)
                assert b"message_start" in first
                assert b"message_stop" not in first
                assert b"message_stop" in response.read()

    def test_plain_answer_takes_as_long_as_stream(self):
        with MessagesServer(time_to_first_token=0.05, tokens_per_second=400, output_tokens=40) as server:
            began = time.monotonic()
            ask(server, prompt())
            assert 0.145 <= time.monotonic() - began < 5


class TestUsage:
    def test_counts_token_per_four_characters(self):
        with MessagesServer(answer=lambda body: "x" * 40) as server:
            usage = usage_of(server, prompt("x" * 100, system="y" * 60))
        assert usage == {
            "input_tokens": 40,
            "output_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "service_tier": "standard",
        }

    def test_prompt_cache_writes_then_reads(self):
        with MessagesServer() as server:
            first, second = (usage_of(server, prompt("x" * 40, system=marked())) for _ in range(2))
        assert (first["cache_creation_input_tokens"], first["cache_read_input_tokens"]) == (1024, 0)
        assert first["cache_creation"]["ephemeral_5m_input_tokens"] == 1024
        assert (second["cache_creation_input_tokens"], second["cache_read_input_tokens"]) == (0, 1024)
        assert first["input_tokens"] == second["input_tokens"] == 10

    def test_a_stream_tells_the_same_usage(self):
        with MessagesServer() as server:
            events = dict(events_of(stream(server, prompt(system=marked()))))
        assert json.loads(events["message_start"])["message"]["usage"]["cache_creation_input_tokens"] == 1024
        assert json.loads(events["message_delta"])["usage"]["cache_creation_input_tokens"] == 1024

    def test_prompt_cache_is_per_model(self):
        with MessagesServer() as server:
            usage_of(server, prompt(system=marked()))
            other = usage_of(server, prompt(system=marked(), model="claude-haiku-5-5"))
        assert other["cache_creation_input_tokens"] == 1024

    def test_an_hour_is_counted_apart(self):
        with MessagesServer() as server:
            usage = usage_of(server, prompt(system=marked(ttl="1h")))
        assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1024}

    def test_block_after_last_breakpoint_is_uncached(self):
        with MessagesServer() as server:
            system = [*marked(), {"type": "text", "text": "z" * 400}]
            assert usage_of(server, prompt("x" * 40, system=system))["input_tokens"] == 110

    def test_a_short_prompt_is_not_cached(self):
        with MessagesServer() as server:
            assert usage_of(server, prompt(system=marked("x" * 4092)))["cache_creation_input_tokens"] == 0

    def test_the_minimum_can_be_set(self):
        with MessagesServer(prompt_cache_minimum=1) as server:
            assert usage_of(server, prompt(system=marked("x" * 8)))["cache_creation_input_tokens"] == 2

    def test_count_tokens_covers_whole_prompt(self):
        with MessagesServer() as server, sdk(server) as client:
            counted = client.messages.count_tokens(
                model=MODEL, system=marked(), messages=prompt("x" * 40)["messages"]
            )
        assert counted.input_tokens == 1034


class TestValidation:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"model": None}, "model"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": True}, "max_tokens"),
            ({"max_tokens": "9"}, "max_tokens"),
            ({"messages": []}, "messages"),
            ({"messages": "Hello"}, "messages"),
            ({"messages": ["Hello"]}, "messages.0"),
            ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
            ({"messages": [{"role": "user"}]}, "messages.0.content"),
            ({"messages": [{"role": "user", "content": ""}]}, "messages.0"),
            ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
            ({"messages": [{"role": "user", "content": [1]}]}, "messages.0.content.0"),
            (
                {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
                "messages.0.content.0",
            ),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
            ({"system": [{"type": "text", "text": ""}]}, "system.0.text"),
            ({"system": 1}, "system"),
        ],
        ids=str,
    )
    def test_a_bad_field_is_a_400_that_names_it(self, change, named):
        with MessagesServer() as server:
            status, _, body = ask(server, prompt(**change))
        assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
        assert body["error"]["message"].startswith(named)

    @pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
    def test_missing_field_is_400_naming_it(self, name):
        body = prompt()
        del body[name]
        with MessagesServer() as server:
            status, _, answer = ask(server, body)
        assert (status, answer["error"]["message"]) == (400, f"{name}: Field required")

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff"])
    def test_a_body_that_is_no_object_is_a_400(self, raw):
        with MessagesServer() as server:
            assert ask(server, raw)[0] == 400
            assert server.requests[0].body == {}

    @pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"authorization": "Basic abc"}])
    def test_no_key_is_a_401(self, headers):
        with MessagesServer() as server:
            status, _, body = ask(server, prompt(), headers=headers)
        assert (status, body["error"]["type"]) == (401, "authentication_error")

    def test_a_bearer_token_will_do(self):
        with MessagesServer() as server:
            assert ask(server, prompt(), headers={"authorization": "Bearer t"})[0] == 200

    @pytest.mark.parametrize(("method", "path"), [("POST", "/v1/complete"), ("GET", "/v1/messages")])
    def test_unknown_path_is_404_like_api(self, method, path):
        with MessagesServer() as server:
            status, headers, body = ask(server, prompt(), path=path, method=method)
        assert (status, body["error"]["type"]) == (404, "not_found_error")
        assert headers["request-id"] == body["request_id"]

    def test_a_body_over_32_mib_is_a_413(self):
        with MessagesServer() as server:
            status, _, body = ask(server, b" " * (32 * 1024 * 1024 + 1))
        assert (status, body["error"]["type"]) == (413, "request_too_large")

    def test_a_body_of_several_mib_is_read(self):
        with MessagesServer() as server:
            assert usage_of(server, prompt("x" * 4_000_000))["input_tokens"] == 1_000_000


class TestFaults:
    @pytest.mark.parametrize("code", sorted(KINDS))
    def test_status_fault_has_api_error_body(self, code):
        with MessagesServer(faults=[faults.status(code)]) as server:
            status, headers, body = ask(server, prompt())
        assert (status, body["type"], body["error"]["type"]) == (code, "error", KINDS[code])
        assert body["error"]["message"]
        assert body["request_id"] == headers["request-id"]

    def test_the_sdk_raises_for_a_status(self):
        with MessagesServer(faults=[faults.status(529)]) as server, sdk(server) as client:
            with pytest.raises(anthropic.APIStatusError) as caught:
                client.messages.create(**prompt())
        assert caught.value.status_code == 529

    def test_a_status_says_when_to_come_back(self):
        with MessagesServer(faults=[faults.status(429, retry_after=7)]) as server:
            assert ask(server, prompt())[1]["retry-after"] == "7"

    def test_status_fault_takes_message_and_code(self):
        fault = faults.status(429, message="No more", error_code="enforced_spend_limit_reached")
        with MessagesServer(faults=[fault]) as server:
            error = ask(server, prompt())[2]["error"]
        assert error["message"] == "No more"
        assert error["details"] == {"error_code": "enforced_spend_limit_reached"}

    def test_reset_fault_sends_no_byte(self):
        with MessagesServer(faults=[faults.reset()]) as server:
            with connected(server) as connection, pytest.raises(ConnectionResetError):
                send(connection, prompt())
            assert eventually(lambda: server.open_connections == 0)
            assert server.disconnects == 0

    def test_silence_fault_sends_nothing(self):
        with MessagesServer(faults=[faults.silence_before_first_byte()]) as server:
            with connected(server, timeout=0.1) as connection, pytest.raises(socket.timeout):
                send(connection, prompt())

    def test_mid_stream_silence_follows_whole_events(self):
        with MessagesServer(faults=[faults.silence_in_mid_stream(after_events=4)]) as server:
            with connected(server, timeout=0.1) as connection:
                response = send(connection, prompt(stream=True))
                assert len(events_of(response.read1(100_000))) == 4
                with pytest.raises(socket.timeout):
                    response.read1(1)

    def test_mid_stream_silence_cuts_plain_body(self):
        with MessagesServer(faults=[faults.silence_in_mid_stream()]) as server:
            with connected(server, timeout=0.1) as connection:
                response = send(connection, prompt())
                assert response.read1(100_000).startswith(b'{"model":')
                with pytest.raises(socket.timeout):
                    response.read1(1)

    @pytest.mark.parametrize("streamed", [True, False])
    def test_truncated_stream_closes_connection(self, streamed):
        with MessagesServer(faults=[faults.truncated_stream()]) as server:
            with connected(server) as connection, pytest.raises(http.client.IncompleteRead) as caught:
                send(connection, prompt(stream=streamed)).read()
            assert eventually(lambda: server.open_connections == 0)
            assert server.disconnects == 0
        assert caught.value.partial
        assert b"message_stop" not in caught.value.partial

    def test_overloaded_in_stream_follows_deltas(self):
        with MessagesServer(faults=[faults.overloaded_in_stream()]) as server:
            events = events_of(stream(server, prompt()))
        assert [name for name, _ in events[-2:]] == ["content_block_delta", "error"]
        assert json.loads(events[-1][1])["error"]["type"] == "overloaded_error"

    def test_sdk_raises_overloaded_in_stream(self):
        with MessagesServer(faults=[faults.overloaded_in_stream()]) as server, sdk(server) as client:
            with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
                with client.messages.stream(**prompt()) as running:
                    running.get_final_message()

    def test_overloaded_in_stream_is_529_when_plain(self):
        with MessagesServer(faults=[faults.overloaded_in_stream()]) as server:
            assert ask(server, prompt())[0] == 529

    def test_malformed_json_cuts_plain_body(self):
        with MessagesServer(faults=[faults.malformed_json()]) as server:
            with connected(server) as connection:
                response = send(connection, prompt())
                raw = response.read()
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        with pytest.raises(ValueError, match="."):
            json.loads(raw)

    def test_malformed_json_is_one_stream_event(self):
        with MessagesServer(faults=[faults.malformed_json()]) as server:
            broken = 0
            for _, data in events_of(stream(server, prompt())):
                try:
                    json.loads(data)
                except ValueError:
                    broken += 1
        assert broken == 1

    def test_the_wrong_content_type_is_a_page(self):
        with MessagesServer(faults=[faults.wrong_content_type()]) as server:
            with connected(server) as connection:
                response = send(connection, prompt(stream=True))
                page = response.read()
        assert (response.status, response.headers.get_content_type()) == (200, "text/html")
        assert b"<html>" in page

    def test_fault_list_is_used_one_per_request(self):
        with MessagesServer(faults=[faults.status(500), None, faults.status(529)]) as server:
            assert [ask(server, prompt())[0] for _ in range(4)] == [500, 200, 529, 200]

    def test_a_function_chooses_by_the_request(self):
        def plan(received):
            return faults.status(500) if "bad" in received.raw.decode() else None

        with MessagesServer(faults=plan) as server:
            assert [ask(server, prompt(text))[0] for text in ("good", "bad")] == [200, 500]

    def test_there_is_one_of_each(self):
        assert {fault.code for fault in faults.ALL if fault.kind == "status"} == set(KINDS)
        assert len({fault.kind for fault in faults.ALL}) == 8
        assert all(isinstance(fault, Fault) for fault in faults.ALL)

    def test_refuses_status_fault_without_error(self):
        with pytest.raises(ValueError, match="error status"):
            faults.status(200)

    def test_refuses_break_before_first_event(self):
        with pytest.raises(ValueError, match="after_events"):
            faults.truncated_stream(after_events=0)


class TestRateLimits:
    def statuses(self, server, count, **fields):
        return [ask(server, prompt(**fields))[0] for _ in range(count)]

    def test_requests_over_the_limit_are_refused(self):
        with MessagesServer(rate_limit=RateLimit(requests_per_minute=2), clock=Clock()) as server:
            assert self.statuses(server, 3) == [200, 200, 429]

    def test_retry_after_is_rounded_up(self):
        clock = Clock()
        with MessagesServer(rate_limit=RateLimit(requests_per_minute=40), clock=clock) as server:
            self.statuses(server, 40)
            status, headers, body = ask(server, prompt())
            assert (status, headers["retry-after"]) == (429, "2")
            assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")

    def test_a_bucket_refills_continuously(self):
        clock = Clock()
        with MessagesServer(rate_limit=RateLimit(requests_per_minute=60), clock=clock) as server:
            self.statuses(server, 60)
            clock.time += 0.9
            assert self.statuses(server, 1) == [429]
            clock.time += 0.1
            assert self.statuses(server, 2) == [200, 429]

    def test_refuses_input_tokens_over_limit(self):
        limit = RateLimit(input_tokens_per_minute=100)
        with MessagesServer(rate_limit=limit, clock=Clock()) as server:
            assert self.statuses(server, 3, text="x" * 200) == [200, 200, 429]

    def test_full_bucket_admits_oversized_prompt(self):
        clock = Clock()
        with MessagesServer(rate_limit=RateLimit(input_tokens_per_minute=60), clock=clock) as server:
            assert self.statuses(server, 1, text="x" * 480) == [200]
            status, headers, _ = ask(server, prompt("x" * 240))
            assert (status, headers["retry-after"]) == (429, "120")

    def test_cached_tokens_do_not_count(self):
        limit = RateLimit(input_tokens_per_minute=1200)
        with MessagesServer(rate_limit=limit, clock=Clock()) as server:
            assert self.statuses(server, 4, system=marked()) == [200] * 4

    def test_refused_prompt_is_not_cached(self):
        clock = Clock()
        with MessagesServer(rate_limit=RateLimit(requests_per_minute=1), clock=clock) as server:
            assert self.statuses(server, 1) == [200]
            assert self.statuses(server, 1, system=marked()) == [429]
            clock.time += 60
            assert usage_of(server, prompt(system=marked()))["cache_creation_input_tokens"] == 1024

    def test_refuses_output_tokens_over_limit(self):
        limit = RateLimit(output_tokens_per_minute=100)
        with MessagesServer(rate_limit=limit, clock=Clock(), output_tokens=60) as server:
            assert self.statuses(server, 3) == [200, 200, 429]

    def test_every_answer_has_limit_headers(self):
        limit = RateLimit(10, 1000, 500)
        with MessagesServer(rate_limit=limit, clock=Clock(), output_tokens=50) as server:
            _, headers, _ = ask(server, prompt("x" * 400))
        reported = {
            name[len("anthropic-ratelimit-") :]: value
            for name, value in headers.items()
            if name.startswith("anthropic-ratelimit-")
        }
        resets = {name: reported.pop(name) for name in list(reported) if name.endswith("-reset")}
        assert reported == {
            "requests-limit": "10",
            "requests-remaining": "9",
            "input-tokens-limit": "1000",
            "input-tokens-remaining": "900",
            "output-tokens-limit": "500",
            "output-tokens-remaining": "450",
            "tokens-limit": "1500",
            "tokens-remaining": "1350",
        }
        assert len(resets) == 4
        for value in resets.values():
            ahead = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ") - datetime.now(timezone.utc).replace(
                tzinfo=None
            )
            assert 2 <= ahead.total_seconds() <= 8

    def test_refusals_and_faults_tell_it_too(self):
        limit = RateLimit(requests_per_minute=1)
        with MessagesServer(rate_limit=limit, clock=Clock(), faults=[faults.status(500)]) as server:
            reported = [ask(server, prompt())[1]["anthropic-ratelimit-requests-remaining"] for _ in range(3)]
        assert reported == ["1", "0", "0"]

    def test_without_limits_nothing_is_told(self):
        with MessagesServer() as server:
            assert not [name for name in ask(server, prompt())[1] if "ratelimit" in name]

    def test_a_limit_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="requests_per_minute"):
            RateLimit(requests_per_minute=0)


class TestTraffic:
    def test_a_request_is_kept_as_it_arrived(self):
        clock = Clock()
        clock.time = 12.5
        with MessagesServer(clock=clock) as server:
            ask(
                server,
                prompt("Grüße"),
                path="/v1/messages?beta=true",
                headers={"X-Api-Key": "K", "X-Other": "V"},
            )
            (received,) = server.requests
        assert (received.method, received.path) == ("POST", "/v1/messages")
        assert (received.headers["x-api-key"], received.headers["x-other"]) == ("K", "V")
        assert received.body == prompt("Grüße")
        assert json.loads(received.raw) == received.body
        assert (received.at, received.connection) == (12.5, 1)

    @pytest.mark.parametrize("streamed", [True, False])
    def test_connection_serves_several_requests(self, streamed):
        with MessagesServer() as server:
            with connected(server) as connection:
                for _ in range(2):
                    assert send(connection, prompt(stream=streamed)).read()
                assert (server.connections, server.open_connections) == (1, 1)
            assert [received.connection for received in server.requests] == [1, 1]
            assert eventually(lambda: server.open_connections == 0)

    def test_an_error_leaves_its_connection_open(self):
        with MessagesServer(faults=[faults.status(500)]) as server:
            with connected(server) as connection:
                assert [send(connection, prompt()).read() != b"" for _ in range(2)] == [True, True]
            assert server.connections == 1

    def test_request_ids_are_unique(self):
        with MessagesServer(faults=[None, faults.status(500), faults.wrong_content_type()]) as server:
            with connected(server) as connection:
                found = set()
                for _ in range(4):
                    response = send(connection, prompt())
                    response.read()
                    found.add(response.headers["request-id"])
        assert len(found) == 4

    def test_a_client_that_goes_away_is_counted(self):
        with MessagesServer(faults=[faults.silence_before_first_byte()]) as server:
            with connected(server) as connection:
                connection.request("POST", "/v1/messages", json.dumps(prompt()), {"x-api-key": "k"})
                assert eventually(lambda: server.in_flight == 1)
            assert eventually(lambda: server.in_flight == 0)
            assert (server.disconnects, server.open_connections) == (1, 0)

    def test_counts_client_leaving_stream(self):
        with MessagesServer(tokens_per_second=10, output_tokens=1000) as server:
            with connected(server) as connection:
                send(connection, prompt(stream=True)).read(1)
            assert eventually(lambda: server.disconnects == 1)

    async def test_counts_most_in_flight(self):
        with MessagesServer(time_to_first_token=0.1) as server:

            async def one(session):
                url = server.base_url + "/v1/messages"
                async with session.post(url, json=prompt(), headers={"x-api-key": "k"}) as response:
                    return (await response.json())["type"]

            async with aiohttp.ClientSession() as session:
                answers = await asyncio.gather(*(one(session) for _ in range(30)))
        assert answers == ["message"] * 30
        assert (server.max_in_flight, server.in_flight) == (30, 0)


class TestLife:
    def test_stop_closes_silent_requests(self):
        plan = [faults.silence_before_first_byte(), faults.silence_in_mid_stream()]
        server = MessagesServer(faults=plan).start()
        with connected(server) as first, connected(server) as second:
            first.request("POST", "/v1/messages", json.dumps(prompt()), {"x-api-key": "k"})
            assert eventually(lambda: server.in_flight == 1)
            response = send(second, prompt(stream=True))
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 10
            assert (server.in_flight, server.open_connections, server.disconnects) == (0, 0, 0)
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                response.read()

    def test_stop_ends_its_thread(self):
        before = threading.active_count()
        with MessagesServer():
            assert threading.active_count() == before + 1
        assert threading.active_count() == before

    def test_stop_does_not_wait_for_slow_reader(self):
        with MessagesServer(answer=lambda body: "x" * 8_000_000) as server:
            with connected(server) as connection:
                response = send(connection, prompt(max_tokens=10_000_000))
                began = time.monotonic()
                server.stop()
                assert time.monotonic() - began < 10
                response.close()

    def test_stop_can_be_called_twice(self):
        server = MessagesServer().start()
        server.stop()
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(server, prompt())

    def test_a_server_can_start_again(self):
        server = MessagesServer()
        for _ in range(2):
            with server:
                assert ask(server, prompt())[0] == 200

    def test_refuses_second_start(self):
        with MessagesServer() as server, pytest.raises(RuntimeError, match="running"):
            server.start()

    def test_a_port_in_use_is_an_error(self):
        with MessagesServer() as server:
            port = int(server.base_url.rsplit(":", 1)[1])
            with pytest.raises(OSError, match="."):
                MessagesServer(port=port).start()

    def test_has_no_address_before_start(self):
        with pytest.raises(RuntimeError, match="start"):
            _ = MessagesServer().base_url

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"host": "0.0.0.0"}, "host"),
            ({"host": "example.com"}, "host"),
            ({"time_to_first_token": -1}, "time_to_first_token"),
            ({"tokens_per_second": 0}, "tokens_per_second"),
            ({"output_tokens": 0}, "output_tokens"),
        ],
        ids=str,
    )
    def test_refuses_invalid_setting(self, options, named):
        with pytest.raises(ValueError, match=named):
            MessagesServer(**options)


def test_fixture_sets_environment(messages_server):
    with anthropic.Anthropic(max_retries=0) as client:
        client.messages.create(**prompt())
    # SDK 2 sends a key as a bearer token, earlier ones as a header of its own.
    headers = messages_server.requests[0].headers
    assert "test-key" in (headers.get("x-api-key"), headers.get("authorization", "").replace("Bearer ", ""))
    assert os.environ["CLAUDE_FORCE_LOOPBACK_ONLY"] == "1"


class TestProcess:
    @contextmanager
    def running(self, *arguments):
        command = [sys.executable, "-m", "claude_force.testing", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                line = process.stdout.readline()
                assert line.startswith("listening on http://127.0.0.1:")
                process.base_url = line.split()[-1]
                yield process
            finally:
                process.kill()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_serves_until_signal_and_exits_0(self, number):
        with self.running("--port", "0", "--requests-per-minute", "1") as process:
            assert [ask(process, prompt())[0] for _ in range(2)] == [200, 429]
            process.send_signal(number)
            assert process.wait(5) == 0

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--host", "0.0.0.0"], "host is '0.0.0.0'; the stand-in listens on loopback only"),
            (["--tokens-per-second", "0"], "tokens_per_second is 0.0; it must be above 0"),
            (["--requests-per-minute", "0"], "requests_per_minute is 0; it must be a number from 1 up"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_it_refuses_what_has_no_meaning(self, arguments, said, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
