"""What a command does not import."""

import re
import subprocess
import sys

import pytest
from fleet import command

from claude_force.lazy_pattern import pattern

ASK = ("run", "agent", "python-expert", "--task", "x")
ENGINE = {"anthropic", "pydantic", "aiohttp", "httpx", "httpx2", "genai_prices"}
LOOP = {"asyncio", "anyio", "tenacity", "concurrent.futures", "aiofiles"}
DISPLAY = {"rich"}
REST = {"yaml", "tempfile", "difflib", "subprocess", "multiprocessing"}
if sys.version_info >= (3, 9):
    # argparse itself imported it before.
    REST.add("shutil")


def imported(*arguments):
    """The modules that a command has imported when it ends well."""
    source = (
        "import sys\nfrom claude_force.cli.main import main\ncode = main(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def of_tools(modules):
    """Those of a list of modules that only agents with tools need."""
    names = (
        "conversation",
        "media_tokens",
        "tool_runs",
        "transport.content",
        "tool_options",
        "engine.agent_loop",
    )
    names += ("engine.tool_loop", "engine.tool_runner", "engine.turn_totals")
    needed = {f"claude_force.{name}" for name in names}
    return {one for one in modules if one in needed or one.startswith("claude_force.tools")}


@pytest.fixture
def plain(workplace, unmeasured):
    """The project, its front matter of the simplest kind."""
    reviewer = workplace / ".claude" / "agents" / "code-reviewer.md"
    reviewer.write_text("---\nname: code-reviewer\nmodel: haiku\n---\nYou review code.\n")
    return workplace


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("run", "agent", "--help")], ids=" ".join)
def test_help_imports_little(plain, arguments):
    found = imported(*arguments)
    assert not found & (ENGINE | LOOP | DISPLAY | REST | {"sqlite3", "logging", "dataclasses"})
    assert not {name for name in found if name.startswith("claude_force.agents")}


@pytest.mark.parametrize(
    "arguments", [("list", "agents"), ("info", "code-reviewer"), ("completion", "bash")], ids=" ".join
)
def test_listing_needs_no_engine(plain, arguments):
    assert not imported(*arguments) & (ENGINE | LOOP | DISPLAY | REST | {"sqlite3"})


def test_list_agents_imports_little(plain):
    found = imported("list", "agents")
    assert not found & {"hashlib", "shlex", "claude_force.types", "claude_force.agents.call_builder"}


def test_pattern_compiles_on_first_use():
    found = pattern("(?P<letter>[ab])x")
    assert [one.group("letter") for one in found.finditer("ax bx")] == ["a", "b"]
    assert found.sub("", "ax-bx") == "-"
    with pytest.raises(re.error):
        pattern("(").search("")


def test_cached_answer_imports_little(plain, messages_server):
    assert command(*ASK).returncode == 0
    for more in ((), ("--json",)):
        found = imported(*ASK, *more)
        assert "claude_force.response_cache" in found
        assert not found & (ENGINE | LOOP | DISPLAY | REST)
        assert not {name for name in found if name.startswith("claude_force.calling")}
    assert len(messages_server.requests) == 1


def test_call_without_tools_loads_no_conversation(plain, messages_server):
    found = imported(*ASK)
    assert "claude_force.transport.transport" in found
    assert not of_tools(found)
    assert len(messages_server.requests) == 1


CALLS = """
import asyncio, sys
from claude_force import AsyncAgentOrchestrator

async def main():
    async with AsyncAgentOrchestrator() as orchestrator:
        assert (await orchestrator.execute_agent("python-expert", "x")).success
        assert all(one.success for one in await orchestrator.execute_multiple([("code-reviewer", "y")] * 3))

asyncio.run(main())
print(*sys.modules)
"""


def test_python_calls_without_tools_load_none_of_the_loop(plain, messages_server):
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert "claude_force.transport.transport" in found
    assert not of_tools(found)


def test_cached_answer_is_recorded(plain, messages_server, capsys):
    assert command(*ASK).returncode == command(*ASK).returncode == 0
    lines = (plain / ".claude" / "metrics" / "executions.jsonl").read_text().splitlines()
    assert ['"cached":true' in line for line in lines] == [False, True]


def test_broken_cache_warns_once(plain, clean_environment, messages_server):
    cache = clean_environment / ".claude" / "cache"
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file in the place of the folder")
    done = command(*ASK)
    assert done.returncode == 0
    assert done.stderr.decode().count("answers are not cached") == 1
    assert len(messages_server.requests) == 1
