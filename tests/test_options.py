"""Options of an orchestrator: one frozen object, which both faces take, show and replace."""

import asyncio
import dataclasses
import inspect

import pytest
from fleet import FakeClock, ended, fleet, write_project

from claude_force import AgentOrchestrator, AsyncAgentOrchestrator
from claude_force.errors import ConfigurationNotFoundError, InvalidOptionError
from claude_force.options import Options
from claude_force.types import Clock

NAMES = [one.name for one in dataclasses.fields(Options)]
ASK = ("python-expert", "Explain")


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


def parameters(face):
    return inspect.signature(face).parameters


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().max_retries = 5


def test_repr_hides_the_key():
    options = Options(
        api_key="sk-ant", durable="postgresql://me:sk-ant@host/db", base_url="http://me:sk-ant@host"
    )
    assert "sk-ant" not in repr(options)


@pytest.mark.parametrize("face", [AgentOrchestrator, AsyncAgentOrchestrator])
def test_takes_every_option(face):
    assert set(NAMES) <= set(parameters(face))


def test_positions_are_those_of_1x():
    positional = parameters(AsyncAgentOrchestrator)
    new = ["config_path", "api_key", "max_concurrent", "timeout_seconds", "max_retries"]
    assert list(positional)[:5] == new
    old = ["config_path", "anthropic_api_key", "enable_tracking", "enable_memory", "validate_api_key"]
    assert list(parameters(AgentOrchestrator))[:5] == old


@pytest.mark.parametrize("face", [AgentOrchestrator, AsyncAgentOrchestrator])
def test_options_are_attributes(face, project):
    given = {"max_retries": 7, "rpm": 50.0, "stream": False, "budget_usd": 2.0}
    orchestrator = face(project, api_key="k", **given)
    assert {name: getattr(orchestrator, name) for name in given} == given
    assert orchestrator.api_key == "k"
    assert all(hasattr(orchestrator, name) for name in NAMES)


def test_both_names_of_the_key(project):
    assert AgentOrchestrator(project, anthropic_api_key="old").api_key == "old"
    assert AgentOrchestrator(project, anthropic_api_key="old", api_key="new").api_key == "new"


def test_sync_face_sets_options(project):
    orchestrator = AgentOrchestrator(project)
    orchestrator.max_retries = 9
    assert orchestrator.max_retries == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_concurrent", 0),
        ("budget_usd", -1),
        ("timeout_seconds", 0),
        ("rpm", "many"),
        ("base_url", ""),
        ("base_url", 5),
    ],
)
def test_refused_value_changes_nothing(project, name, value):
    orchestrator = AsyncAgentOrchestrator(project)
    before = getattr(orchestrator, name)
    with pytest.raises(InvalidOptionError):
        setattr(orchestrator, name, value)
    assert getattr(orchestrator, name) == before


def test_missing_project_changes_nothing(project):
    orchestrator = AsyncAgentOrchestrator(project)
    with pytest.raises(ConfigurationNotFoundError):
        orchestrator.config_path = "nowhere"
    assert orchestrator.config_path == project
    assert orchestrator.get_agent_info("python-expert")["name"] == "python-expert"


@pytest.mark.parametrize("name", ["durable", "clock"])
def test_parts_are_made_once(project, name):
    with pytest.raises(AttributeError):
        setattr(AsyncAgentOrchestrator(project), name, None)


async def test_same_budget_set_again_is_new(project):
    prices = {"claude-sonnet-5-5": {"input": 3.0, "output": 15.0}}
    async with fleet(project, prices=prices, budget_usd=1.0) as (orchestrator, _):
        await orchestrator.execute_agent(*ASK, model="claude-sonnet-5-5")
        assert orchestrator.spent_usd > 0
        orchestrator.enable_tracking = False
        assert orchestrator.spent_usd > 0
        orchestrator.budget_usd = 1.0
        assert orchestrator.spent_usd == 0


def test_copies_the_observers(project):
    given = [print]
    orchestrator = AsyncAgentOrchestrator(project, observers=given)
    listed = orchestrator.observers
    orchestrator.max_retries = 5
    listed.append(id)
    assert (orchestrator.observers, given) == ([print, id], [print])


async def test_running_call_keeps_its_options(project):
    reported, late = [], []
    slow = {"time_to_first_token": 0.3}
    async with fleet(project, slow, clock=Clock(), observers=(reported.append,)) as (orchestrator, server):
        call = asyncio.ensure_future(orchestrator.execute_agent(*ASK))
        assert await ended(lambda: server.in_flight == 1)
        orchestrator.observers = [late.append]
        await call
        await orchestrator.execute_agent("python-expert", "another")
    assert (len(reported), len(late)) == (1, 1)


async def test_other_options_keep_connections(project):
    async with fleet(project, clock=FakeClock()) as (orchestrator, server):
        for number, name in enumerate(("enable_tracking", "enable_cache", "deadline_seconds")):
            await orchestrator.execute_agent("python-expert", f"x {number}")
            setattr(orchestrator, name, 60)
        await orchestrator.execute_agent("python-expert", "last")
        assert server.connections == 1
