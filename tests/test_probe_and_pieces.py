"""Pieces of a streamed answer, and probes of an endpoint that was not called yet."""

import asyncio

import pytest
from fleet import MODEL, fleet, write_project

from claude_force.engine.call_settings import settings_now
from claude_force.engine.sender_pool import SenderPool
from claude_force.errors import (
    AuthenticationError,
    BadReplyError,
    ConnectionFailedError,
    PaidCallBlockedError,
    SilenceError,
)
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.options import Options
from claude_force.testing import MessagesServer, faults
from claude_force.types import Clock


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


class Listener(CallListener):
    """Records the events of attempts."""

    def __init__(self):
        self.pieces = [[]]

    def wrote(self, text):
        self.pieces[-1].append(text)

    def retried(self, attempt, delay, error):
        self.pieces.append([])


class TestPieces:
    async def test_listener_gets_pieces(self, project):
        listener = Listener()
        async with fleet(project, {"output_tokens": 100}) as (orchestrator, _):
            result = await orchestrator._calls.execute(CallContext(listener=listener), "python-expert", "x")
        assert "".join(listener.pieces[0]) == result.output
        assert len(listener.pieces[0]) > 1

    async def test_reports_broken_attempt_first(self, project):
        listener = Listener()
        server = {"faults": [faults.truncated_stream()], "output_tokens": 100}
        async with fleet(project, server) as (orchestrator, _):
            result = await orchestrator._calls.execute(CallContext(listener=listener), "python-expert", "x")
        broken, whole = listener.pieces
        assert "".join(whole) == result.output
        assert 0 < len("".join(broken)) < len(result.output)

    async def test_cached_answer_has_no_pieces(self, project):
        listener = Listener()
        async with fleet(project) as (orchestrator, _):
            await orchestrator.execute_agent("python-expert", "x")
            result = await orchestrator._calls.execute(CallContext(listener=listener), "python-expert", "x")
        assert result.cached
        assert listener.pieces == [[]]


class TestProbe:
    async def reported(self, server, **how):
        """An endpoint as it is known after a probe, and the requests that this took."""
        with MessagesServer(**server) as running:
            pool = SenderPool(Clock())
            settings = settings_now(Options(api_key="test-key", base_url=running.base_url, **how))
            try:
                sender = await pool.sender(settings)
                await sender.probe(MODEL)
                return sender.transport, running
            finally:
                await pool.close()

    async def test_costs_nothing(self):
        transport, server = await self.reported({})
        assert [one.path for one in server.requests] == ["/v1/messages/count_tokens"]
        assert transport.base_url.rstrip("/") == server.base_url

    async def test_wrong_key(self):
        with pytest.raises(AuthenticationError):
            await self.reported({"faults": [faults.status(401)]})

    async def test_silent_server(self):
        probe = self.reported({"faults": [faults.silence_before_first_byte()]}, timeout_seconds=0.05)
        with pytest.raises(SilenceError):
            await asyncio.wait_for(probe, 20)

    async def test_page_is_a_bad_reply(self):
        with pytest.raises(BadReplyError, match="count of tokens"):
            await self.reported({"faults": [faults.wrong_content_type()]})

    async def test_sends_nothing_when_blocked(self):
        pool = SenderPool(Clock())
        try:
            with pytest.raises(PaidCallBlockedError):
                settings = settings_now(Options(api_key="k", base_url="https://example.com"))
                await (await pool.sender(settings)).probe(MODEL)
        finally:
            await pool.close()


class TestSecrets:
    async def test_hides_key_in_error(self, project):
        key = "a-key-of-no-known-form"
        plan = [faults.status(401, message=f"invalid x-api-key: {key}")]
        async with fleet(project, {"faults": plan}) as (orchestrator, _):
            orchestrator.api_key = key
            result = await orchestrator.execute_agent("python-expert", "x")
        assert "invalid x-api-key: ***" in str(result.error)
        assert key not in repr(result) + repr(result.error) + str(result.to_dict())

    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_hides_password_of_address(self, project, attempts):
        async with fleet(project, max_retries=attempts) as (orchestrator, _):
            orchestrator.base_url = "http://me:hunter2-hunter2@127.0.0.1:9/"
            result = await orchestrator.execute_agent("python-expert", "x")
        assert isinstance(result.error, ConnectionFailedError)
        assert result.attempts == attempts
        assert "127.0.0.1:9" in str(result.error)
        assert "hunter2" not in str(result.error) + repr(result.error)
