"""What the engine's tests share: a project on disk, a fleet against the stand-in, a clock without waiting."""

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager

from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.testing import MessagesServer
from claude_force.types import Clock

MODEL = "claude-sonnet-5-5"
SERVICES = ("ANTHROPIC_", "CLAUDE_", "CLOUD_ML_", "AWS_", "GOOGLE_", "SSL_CERT_", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# They would stand for the width of the terminals that tests open; workers of pytest-xdist have them set.
TERMINAL = ("COLUMNS", "LINES")


class FakeClock(Clock):
    """Time passes only in sleep, and at once."""

    def __init__(self):
        self.time = 0.0
        self.slept = []

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


async def ended(condition, seconds=60.0):
    """Whether it holds within so long: a server sees what its client did a little later."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return bool(condition())


async def settled():
    """Returns when all that could go on has gone on, up to something that nobody has done yet."""
    for _ in range(100):
        await asyncio.sleep(0)


def until(holds, what="it happens", seconds=90.0):
    """Returns when `holds()`; for what another process or thread does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{seconds:g} s passed before {what}"
        time.sleep(0.01)


def clear_environment(monkeypatch, home):
    """Takes the user's own set-up out of the environment, and any way to a paid API."""
    for name in list(os.environ):
        if name.startswith(SERVICES) or name.upper() in (*PROXIES, *TERMINAL):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CLAUDE_FORCE_LOOPBACK_ONLY", "1")


def write_project(folder):
    """A `.claude` folder with agents from both sources and two workflows; returns its claude.json."""
    claude = folder / ".claude"
    (claude / "agents").mkdir(parents=True)
    (claude / "contracts").mkdir()
    (claude / "python.md").write_text("# Python expert\nYou explain Python.\n", encoding="utf-8")
    (claude / "contracts" / "python.md").write_text("Answer in one paragraph.\n", encoding="utf-8")
    (claude / "agents" / "code-reviewer.md").write_text(
        "---\nname: code-reviewer\ndescription: Reviews: all code\nmodel: haiku\n---\nYou review code.\n",
        encoding="utf-8",
    )
    config = {
        "agents": {"python-expert": {"file": "python.md", "contract": "contracts/python.md", "priority": 1}},
        "workflows": {
            "review": ["python-expert", "code-reviewer"],
            "graph": {"steps": [{"id": "a", "agent": "python-expert", "dependencies": []}]},
            "broken": ["python-expert", "nobody"],
        },
    }
    path = claude / "claude.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def write_profile(home, name, base_url, **more):
    """A profile as the SDK reads it, with a token of its own."""
    folder = home / ".config" / "anthropic"
    for part, text in (
        ("configs", {"base_url": base_url, "authentication": {"type": "user_oauth"}, **more}),
        ("credentials", {"type": "oauth_token", "access_token": f"token-of-{name}"}),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        path = folder / part / f"{name}.json"
        path.write_text(json.dumps(text), encoding="utf-8")
        path.chmod(0o600)


@asynccontextmanager
async def fleet(config, server=None, **limits):
    """`(orchestrator, server)`, both closed at the end; `server` holds the stand-in's settings."""
    with MessagesServer(**(server or {})) as running:
        orchestrator = AsyncAgentOrchestrator(
            config, base_url=running.base_url, **{"api_key": "test-key", "clock": FakeClock(), **limits}
        )
        async with orchestrator:
            yield orchestrator, running


def command(*arguments, **options):
    """Runs `claude-force` as a process of its own, its output caught as bytes."""
    return subprocess.run(
        [sys.executable, "-m", "claude_force", *arguments], capture_output=True, timeout=60, **options
    )
