"""A run of an agent with tools is taken from the cache as far as the files are as they were."""

from pathlib import Path
from typing import Iterator, List

import pytest

from claude_force import AgentResult, AsyncAgentOrchestrator
from claude_force.testing import MessagesServer, Script, tool_calls

FILES = {"a.txt": "alpha\n", "b.txt": "beta\n", "c.txt": "gamma\n"}
ANSWERS = (
    tool_calls(("Glob", {"pattern": "**/*"}), ("Grep", {"pattern": "a", "output_mode": "content"})),
    tool_calls(("Read", {"file_path": "a.txt"})),
    tool_calls(("Read", {"file_path": "b.txt"}), ("Read", {"file_path": "c.txt"})),
    "Three files.",
)
# Reads without a search, so that a file is first seen where it is read.
READS = (*(tool_calls(("Read", {"file_path": name})) for name in FILES), "Three files.")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    agents = tmp_path / "project" / ".claude" / "agents"
    agents.mkdir(parents=True)
    (agents / "reader.md").write_text(
        "---\nname: reader\ndescription: d\ntools: Read, Grep, Glob, Edit\n---\nRead.\n"
    )
    (agents.parents[1] / ".git").mkdir()
    for name, text in FILES.items():
        (agents.parents[1] / name).write_text(text)
    return agents.parents[1]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[MessagesServer]:
    with MessagesServer(answer=Script(request.param)) as one:
        yield one


async def run(project: Path, server: MessagesServer, tools: str = "read") -> AgentResult:
    # Each run as another process would be: nothing is in memory.
    async with AsyncAgentOrchestrator(
        project / ".claude", api_key="test-key", base_url=server.base_url
    ) as orchestrator:
        return await orchestrator.execute_agent("reader", "How many files?", tools=tools, in_place=True)


async def sent(project: Path, server: MessagesServer, tools: str = "read") -> List[bool]:
    """Runs the agent; returns for each turn whether it was sent."""
    before = len(server.requests)
    result = await run(project, server, tools)
    assert result.success, result.error
    turns = [not turn.cached for turn in result.turns]
    assert len(server.requests) - before == sum(turns)
    return turns


@pytest.mark.parametrize("server", [ANSWERS], indirect=True)
async def test_second_run_over_unchanged_files_sends_nothing(project: Path, server: MessagesServer) -> None:
    assert await sent(project, server) == [True] * 4
    again = await run(project, server)
    assert (len(server.requests), again.output, again.cached, again.cost) == (4, "Three files.", True, 0)


@pytest.mark.parametrize(
    ("changed", "turns"),
    [
        ("a.txt", [False, True, True, True]),
        ("b.txt", [False, False, True, True]),
        ("c.txt", [False] * 3 + [True]),
    ],
)
@pytest.mark.parametrize("server", [READS], indirect=True)
async def test_changed_file_is_sent_from_the_turn_that_read_it(
    project: Path, server: MessagesServer, changed: str, turns: List[bool]
) -> None:
    await run(project, server)
    (project / changed).write_text("delta\n")
    assert await sent(project, server) == turns
    assert await sent(project, server) == [False] * 4


@pytest.mark.parametrize("server", [ANSWERS], indirect=True)
async def test_new_file_is_sent_from_the_search_that_finds_it(project: Path, server: MessagesServer) -> None:
    await run(project, server)
    (project / "d.txt").write_text("z\n")
    assert await sent(project, server) == [False, True, True, True]


@pytest.mark.parametrize("server", [ANSWERS], indirect=True)
async def test_touched_file_is_not_changed(project: Path, server: MessagesServer) -> None:
    await run(project, server)
    (project / "a.txt").write_text(FILES["a.txt"])
    assert await sent(project, server) == [False] * 4


EDITS = (
    tool_calls(("Read", {"file_path": "a.txt"})),
    tool_calls(("Edit", {"file_path": "a.txt", "old_string": "alpha", "new_string": "omega"})),
    tool_calls(("Read", {"file_path": "b.txt"})),
    "Edited.",
)


@pytest.mark.parametrize("server", [EDITS], indirect=True)
async def test_nothing_is_cached_after_an_edit(project: Path, server: MessagesServer) -> None:
    assert await sent(project, server, "edit") == [True] * 4
    (project / "a.txt").write_text(FILES["a.txt"])
    assert await sent(project, server, "edit") == [False, False, True, True]
    assert (project / "a.txt").read_text() == "omega\n"
