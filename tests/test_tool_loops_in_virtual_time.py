"""Hundreds of agents with tools under the limits of one organisation: simulated time, no waiting."""

import asyncio
import json
import random

from tool_agents import Notes
from virtual_time import LoopClock, SimulatedServer, run_virtually, sender_to

from claude_force.conversation import ContentBlock
from claude_force.engine.agent_loop import Bounds
from claude_force.engine.result_builder import CallLabels
from claude_force.engine.tool_loop import LoopSettings, ToolLoop
from claude_force.limits.call_context import CallContext
from claude_force.limits.call_cost import CallCost
from claude_force.testing import RateLimit
from claude_force.types import Call, fast_replace

MODEL = "claude-sonnet-5-5"
AGENTS, TURNS = 500, 4


class AgentServer(SimulatedServer):
    """Each conversation calls a tool in its first turns, and ends with the last."""

    async def _answer(self, call, record, now):
        reply = await super()._answer(call, record, now)
        turn = len(call.conversation.messages) // 2 + 1
        if turn == TURNS:
            return fast_replace(reply, content=(ContentBlock("text", '{"type":"text","text":"x"}'),))
        block = {"type": "tool_use", "id": f"t{turn}", "name": "Look", "input": {}}
        content = (ContentBlock("tool_use", json.dumps(block)),)
        return fast_replace(reply, stop_reason="tool_use", content=content)


async def run_agents(server):
    sender, chance, turns = sender_to(server, 100), random.Random(5), []

    async def execute(call, policy, seconds, context):
        return await sender.send(call, seconds, context, context.call_cost)

    async def work(use):
        await asyncio.sleep(chance.uniform(0.1, 8.0))

    async def run(number):
        call = Call("a", ("You look.",), f"{number:04d}", MODEL, 4096, {"answer": 20})
        settings = LoopSettings(Bounds(), "off", None, lambda *_: 0.0)
        context = CallContext(call_cost=CallCost())
        loop = ToolLoop(
            *(call, CallLabels("a"), Notes(work), settings, execute, context, LoopClock(), turns.append)
        )
        return (await loop.run()).result

    return await asyncio.gather(*map(run, range(AGENTS))), turns


def test_500_agents_use_their_rate_limit():
    server = AgentServer(RateLimit(1_000), latency=lambda chance: chance.uniform(0.5, 4.0))
    results, turns = run_virtually(run_agents(server))
    assert all(result.success and len(result.turns) == TURNS for result in results)
    assert len(turns) == AGENTS * TURNS
    statuses = server.statuses()
    assert statuses[200] == AGENTS * TURNS
    assert statuses[429] / len(server.log) < 0.01
    # Of the burst that the server allows at first, and of what each minute adds.
    allowed = 1_000 + 1_000 * server.tokens[-1][0] / 60
    assert AGENTS * TURNS / allowed >= 0.95
    # Tools run beside requests: agents hold no slot while they wait for theirs.
    assert max(result.duration for result in results) < 180
