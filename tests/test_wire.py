"""What goes onto the wire: the first request by the SDK, those after it the same in all but the body."""

import pytest
from fleet import fleet, write_project

from claude_force.errors import AuthenticationError, OverloadedError
from claude_force.testing import faults


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
