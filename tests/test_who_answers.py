"""What decides who answers is part of the request key: no service gets the cached answer of another."""

import os

import pytest
from fleet import command, fleet, write_profile, write_project

from claude_force import AsyncAgentOrchestrator
from claude_force.testing import MessagesServer

ASK = ("python-expert", "Explain decorators")
SECRET = "very-secret-team-token-1234"


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def asked_under(project, server, monkeypatch, *headers):
    """Whether each call was answered from the cache, under these headers one after the other."""
    cached = []
    for text in headers:
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", text)
        async with AsyncAgentOrchestrator(project, api_key="k", base_url=server.base_url) as running:
            cached.append((await running.execute_agent(*ASK)).cached)
    return cached


class TestHeaders:
    async def test_headers_make_another_key(self, project, monkeypatch):
        with MessagesServer() as server:
            found = await asked_under(
                project, server, monkeypatch, "x-a: 1", "x-a: 2", "x-b: 1", "", "x-a: 1"
            )
        assert found == [False, False, False, False, True]

    async def test_header_order_does_not_matter(self, project, monkeypatch):
        same = ("x-a: 1\nx-b: 2", "X-B:2\nX-A:   1", "x-a: 1\nno header\nx-b: 2\n")
        with MessagesServer() as server:
            assert await asked_under(project, server, monkeypatch, *same) == [False, True, True]

    async def test_change_holds_for_open_fleet(self, project, monkeypatch):
        async with fleet(project) as (orchestrator, server):
            for value in ("blue", "green"):
                monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"x-team: {value}")
                assert not (await orchestrator.execute_agent(*ASK)).cached
            assert [one.headers["x-team"] for one in server.requests] == ["blue", "green"]

    async def test_header_secret_is_not_stored(self, project, monkeypatch, clean_environment):
        with MessagesServer() as server:
            await asked_under(project, server, monkeypatch, f"x-token: {SECRET}")
        files = [path for path in clean_environment.rglob("*") if path.is_file()]
        assert [path for path in files if path.name.startswith("answers")]
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]

    def test_cli_answer_is_per_service(self, project):
        with MessagesServer() as server:
            base = {**os.environ, "ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": server.base_url}
            for value in ("a", "b", "a"):
                ran = command(
                    *("run", "agent", ASK[0], "--task", ASK[1]),
                    cwd=project.parent,
                    env={**base, "ANTHROPIC_CUSTOM_HEADERS": f"x-org: {value}"},
                )
                assert ran.returncode == 0, ran.stderr
            assert len(server.requests) == 2


class TestProfiles:
    @pytest.fixture(autouse=True)
    def _no_key(self, monkeypatch):
        pytest.importorskip("anthropic.lib.credentials", reason="this SDK has no profiles")

    async def test_profile_with_another_address(self, project, monkeypatch, clean_environment):
        with MessagesServer() as one, MessagesServer() as other:
            write_profile(clean_environment, "one", one.base_url)
            write_profile(clean_environment, "other", other.base_url)
            cached = []
            for name in ("one", "other", "one"):
                monkeypatch.setenv("ANTHROPIC_PROFILE", name)
                async with AsyncAgentOrchestrator(project) as running:
                    result = await running.execute_agent(*ASK)
                    assert result.success, result.errors
                    cached.append(result.cached)
            assert cached == [False, False, True]
            assert (len(one.requests), len(other.requests)) == (1, 1)

    @pytest.mark.parametrize("pointer", [True, False])
    async def test_edited_profile_is_another(self, project, clean_environment, pointer):
        name = "work" if pointer else "default"
        with MessagesServer() as one, MessagesServer() as other:
            for server in (one, other):
                write_profile(clean_environment, name, server.base_url)
                if pointer:
                    (clean_environment / ".config" / "anthropic" / "active_config").write_text("work\n")
                async with AsyncAgentOrchestrator(project) as running:
                    assert not (await running.execute_agent(*ASK)).cached
            assert (len(one.requests), len(other.requests)) == (1, 1)

    async def test_key_keeps_profiles_out_of_it(self, project, monkeypatch, clean_environment):
        with MessagesServer() as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
            monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
            for name in ("one", "other"):
                monkeypatch.setenv("ANTHROPIC_PROFILE", name)
                async with AsyncAgentOrchestrator(project) as running:
                    result = await running.execute_agent(*ASK)
            assert (result.cached, len(server.requests)) == (True, 1)
