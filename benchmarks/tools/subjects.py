"""The same loops through each client: a context that gives a way to run so many agents at once, and returns
how many gave the last answer.

No retries, a key that the server ignores. Each agent has a task of its own, so that no cache helps.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List

from .files import FINAL, read

MODEL = "claude-sonnet-5-5"
SYSTEM = "You are a careful reader of files. " * 20
MAX_TOKENS, MOST_TURNS = 1024, 200
# Seconds. The SDK gives a connection five of them, which 500 at once may take.
PATIENCE = 600.0
RunAgents = Callable[[List[str]], Awaitable[int]]
_DESCRIPTION = "Reads a file from the local filesystem."
_TOOL = {
    "name": "Read",
    "description": _DESCRIPTION,
    "input_schema": {
        "type": "object",
        "properties": {"file_path": {"type": "string"}},
        "required": ["file_path"],
    },
}


def at_once(one: Callable[[str], Awaitable[str]]) -> RunAgents:
    async def run_agents(tasks: List[str]) -> int:
        return sum(answer == FINAL for answer in await asyncio.gather(*map(one, tasks)))

    return run_agents


@asynccontextmanager
async def claude_force(base_url: str, root: Path, count: int, streamed: bool) -> AsyncIterator[RunAgents]:
    """The real tools; pace, cache, budget and ledger are on."""
    from claude_force import AsyncAgentOrchestrator, ResponseCache

    with tempfile.TemporaryDirectory() as name, ResponseCache(cache_dir=Path(name, "cache")) as kept:
        async with AsyncAgentOrchestrator(
            root / ".claude",
            api_key="none",
            base_url=base_url,
            max_concurrent=count,
            stream=streamed,
            response_cache=kept,
            budget_usd=1e6,
            prices={MODEL: {"input": 3.0, "output": 15.0}},
        ) as running:
            options: Dict[str, Any] = {"tools": "read", "max_tokens": MAX_TOKENS, "max_turns": MOST_TURNS}
            yield at_once(partial(_answer_of, running, options))


async def _answer_of(running: Any, options: Dict[str, Any], task: str) -> str:
    result = await running.execute_agent("reader", task, **options)
    return str(result.output)


@asynccontextmanager
async def sdk_runner(base_url: str, root: Path, count: int, streamed: bool) -> AsyncIterator[RunAgents]:
    """The runner of the official SDK, on its faster transport."""
    import anthropic

    @anthropic.beta_async_tool(name="Read", description=_DESCRIPTION)
    async def read_file(file_path: str) -> str:
        return read(root, file_path)

    limits = type(anthropic.DEFAULT_CONNECTION_LIMITS)(max_connections=count, max_keepalive_connections=count)
    async with anthropic.AsyncAnthropic(
        api_key="none",
        base_url=base_url,
        max_retries=0,
        timeout=PATIENCE,
        http_client=anthropic.DefaultAioHttpClient(limits=limits),
    ) as client:

        async def one(task: str) -> str:
            runner: Any = client.beta.messages.tool_runner(
                model=MODEL,
                max_tokens=MAX_TOKENS,
                system=SYSTEM,
                tools=[read_file],
                messages=[{"role": "user", "content": task}],
                # Without threads that the server holds: they are no part of a loop here.
                thread=False,
                **({"stream": True} if streamed else {}),
            )
            if not streamed:
                return str((await runner.until_done()).content[-1].text)
            message: Any = None
            async for stream in runner:
                message = await stream.get_final_message()
            return str(message.content[-1].text)

        yield at_once(one)


@asynccontextmanager
async def pydantic_ai(base_url: str, root: Path, count: int, streamed: bool) -> AsyncIterator[RunAgents]:
    import anthropic
    from pydantic_ai import Agent, UsageLimits
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    async with anthropic.AsyncAnthropic(
        api_key="none", base_url=base_url, max_retries=0, timeout=PATIENCE
    ) as client:
        provider = AnthropicProvider(anthropic_client=client)
        agent = Agent(AnthropicModel(MODEL, provider=provider), system_prompt=SYSTEM)

        @agent.tool_plain(name="Read")
        async def read_file(file_path: str) -> str:
            """Reads a file from the local filesystem."""
            return read(root, file_path)

        async def consume(context: Any, events: Any) -> None:
            async for _ in events:
                pass

        async def one(task: str) -> str:
            settings: Any = {"max_tokens": MAX_TOKENS}
            more: Any = {"event_stream_handler": consume} if streamed else {}
            limits = UsageLimits(request_limit=MOST_TURNS)
            done = await agent.run(task, model_settings=settings, usage_limits=limits, **more)
            return str(done.output)

        yield at_once(one)


@asynccontextmanager
async def bare_aiohttp(base_url: str, root: Path, count: int, streamed: bool) -> AsyncIterator[RunAgents]:
    """The limit of the kind: requests, their JSON, the files, nothing else."""
    import aiohttp

    headers = {"content-type": "application/json", "x-api-key": "none", "anthropic-version": "2023-06-01"}
    connector = aiohttp.TCPConnector(limit=count)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one(task: str) -> str:
            messages: List[Dict[str, Any]] = [{"role": "user", "content": task}]
            body = {"model": MODEL, "max_tokens": MAX_TOKENS, "system": SYSTEM, "tools": [_TOOL]}
            while True:
                data = json.dumps({**body, "messages": messages, "stream": streamed})
                async with session.post(f"{base_url}/v1/messages", data=data) as response:
                    answer = await response.read()
                content = assembled(answer) if streamed else json.loads(answer)["content"]
                calls = [block for block in content if block["type"] == "tool_use"]
                if not calls:
                    return str(content[-1]["text"])
                results = [
                    {
                        "type": "tool_result",
                        "tool_use_id": block["id"],
                        "content": read(root, block["input"]["file_path"]),
                    }
                    for block in calls
                ]
                messages += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]

        yield at_once(one)


def assembled(answer: bytes) -> List[Dict[str, Any]]:
    """The content of a streamed answer."""
    content: List[Dict[str, Any]] = []
    pieces: List[str] = []
    for line in answer.split(b"\n"):
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        if event["type"] == "content_block_start":
            content.append(event["content_block"])
            pieces = []
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            pieces.append(delta["text"] if delta["type"] == "text_delta" else delta["partial_json"])
        elif event["type"] == "content_block_stop":
            text, block = "".join(pieces), content[-1]
            block.update({"text": text} if block["type"] == "text" else {"input": json.loads(text)})
    return content


SUBJECTS: Dict[str, Callable[..., Any]] = {
    "claude-force": claude_force,
    "SDK's tool runner": sdk_runner,
    "pydantic-ai": pydantic_ai,
    "bare aiohttp": bare_aiohttp,
}
