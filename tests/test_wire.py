"""What goes onto the wire: the first request by the SDK, those after it the same in all but the body."""

import pytest
from fleet import fleet, write_project

from claude_force import AsyncAgentOrchestrator
from claude_force.errors import AuthenticationError, InvalidOptionError, OverloadedError
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
