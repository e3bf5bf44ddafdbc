"""Tools of the tests' own, and an agent's answers as a script."""

import asyncio
import json
from contextlib import asynccontextmanager

from billing import MODEL, PRICES, Answer, billing, task_of
from fleet import FakeClock

from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.conversation import ToolResult

AGENT = "python-expert"


class Notes:
    """Read-only `Look` and `Note`, which is not; `do(use)` may wait, raise, or return the result.

    Attributes:
        ran: the calls that were run, each as (name, input) when it begins.
        most_at_once: the most that ran at one time.
    """

    definitions = json.dumps(
        [{"name": name, "description": "x", "input_schema": {"type": "object"}} for name in ("Look", "Note")]
    )

    context = "These tools are a test's own."

    def __init__(self, do=None):
        self._do = do
        self.ran, self.ended = [], []
        self.running = self.most_at_once = self.opened = self.closed = 0

    def open(self):
        self.opened += 1
        return self

    def is_read_only(self, use):
        return use.name == "Look"

    async def run(self, use):
        self.ran.append((use.name, use.input))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            result = await self._do(use) if self._do else None
            self.ended.append((use.name, use.input))
        finally:
            self.running -= 1
        return ToolResult(f"{use.name} did {json.dumps(use.input)}") if result is None else result

    async def state(self):
        return ""

    async def restore(self, state):
        pass

    async def close(self):
        self.closed += 1


def call(identity, name="Look", **arguments):
    """The block of a tool call."""
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


def calls(*blocks, stop_reason="tool_use", text="", **more):
    """An answer that calls tools."""
    texts = ({"type": "text", "text": text},) if text else ()
    return Answer(content=(*texts, *blocks), stop_reason=stop_reason, **more)


def script(*answers):
    """A plan of the server: the answers of a conversation in turn, then a last one, for each task anew."""

    def plan(body):
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return answers[turn] if turn < len(answers) else Answer("Done.")

    return plan


@asynccontextmanager
async def agents(project, plan, own=None, **options):
    """`(orchestrator, server)`: its agents have the tools `own` where the run grants any."""
    async with billing(plan) as server:
        orchestrator = AsyncAgentOrchestrator(
            project,
            base_url=server.url,
            **{
                "api_key": "test-key",
                "clock": FakeClock(),
                "prices": PRICES,
                "enable_cache": False,
                **options,
            },
        )
        orchestrator._calls.tool_runs.open_tools = lambda *_: own and own.open()
        async with orchestrator:
            yield orchestrator, server


def results_in(body):
    """The tool results in the last message of a request, as (id, content, is_error)."""
    content = body["messages"][-1]["content"]
    return [
        (block["tool_use_id"], block["content"], block.get("is_error", False))
        for block in content
        if block["type"] == "tool_result"
    ]


def check_calls_have_results(requests):
    """Each tool call of each conversation that was sent has exactly one result, in the next message."""
    for body in requests:
        messages = body["messages"]
        for before, after in zip(messages, messages[1:]):
            uses = [one["id"] for one in before["content"] if one["type"] == "tool_use"]
            found = [one["tool_use_id"] for one in after["content"] if one["type"] == "tool_result"]
            assert uses == found, (uses, found)
        assert not any(block["type"] == "tool_use" for block in messages[-1]["content"])


async def forever():
    await asyncio.Event().wait()


__all__ = [
    "AGENT",
    "MODEL",
    "Answer",
    "Notes",
    "agents",
    "call",
    "calls",
    "check_calls_have_results",
    "forever",
    "results_in",
    "script",
    "task_of",
]
