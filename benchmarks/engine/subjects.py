"""The same requests through each client: each is `async def run(base_url, tasks, concurrent)`.

Plain replies, no retries, a key that the server ignores, at most `concurrent` at a time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, List

MODEL = "claude-sonnet-5-5"
SYSTEM = "You are a Python expert. " * 20
MAX_TOKENS = 1024
Run = Callable[[str, List[str], int], Awaitable[int]]


async def _bounded(one: Callable[[str], Awaitable[int]], tasks: List[str], concurrent: int) -> int:
    """Characters of all answers."""
    waiting = iter(tasks)

    async def worker() -> int:
        return sum([await one(task) for task in waiting])

    return sum(await asyncio.gather(*(worker() for _ in range(concurrent))))


async def claude_force(base_url: str, tasks: List[str], concurrent: int) -> int:
    """Cache look-up and keeping, pacing, budget and tracking on."""
    from claude_force import AsyncAgentOrchestrator, ResponseCache

    with tempfile.TemporaryDirectory() as folder:
        agents = Path(folder, ".claude", "agents")
        agents.mkdir(parents=True)  # noqa: ASYNC240
        (agents / "expert.md").write_text(
            f"---\nname: expert\nmodel: {MODEL}\n---\n{SYSTEM}", encoding="utf-8"
        )
        with ResponseCache(cache_dir=Path(folder, "cache")) as cache:
            async with AsyncAgentOrchestrator(
                Path(folder, ".claude"),
                api_key="none",
                base_url=base_url,
                max_concurrent=concurrent,
                stream=False,
                response_cache=cache,
                budget_usd=1e6,
                prices={MODEL: {"input": 3.0, "output": 15.0}},
            ) as running:
                total = 0
                pairs = (("expert", task) for task in tasks)
                async for result in running.stream_multiple(pairs, max_tokens=MAX_TOKENS):
                    total += len(result.output)
                return total


async def _sdk(base_url: str, tasks: List[str], concurrent: int, http_client: Any) -> int:
    import anthropic

    async with anthropic.AsyncAnthropic(
        api_key="none", base_url=base_url, max_retries=0, http_client=http_client
    ) as client:

        async def one(task: str) -> int:
            answer = await client.messages.create(
                model=MODEL,
                max_tokens=MAX_TOKENS,
                system=SYSTEM,
                messages=[{"role": "user", "content": task}],
            )
            return len(answer.content[0].text)

        return await _bounded(one, tasks, concurrent)


async def sdk_aiohttp(base_url: str, tasks: List[str], concurrent: int) -> int:
    import anthropic

    limits = type(anthropic.DEFAULT_CONNECTION_LIMITS)(
        max_connections=concurrent, max_keepalive_connections=concurrent
    )
    return await _sdk(base_url, tasks, concurrent, anthropic.DefaultAioHttpClient(limits=limits))


async def sdk_default(base_url: str, tasks: List[str], concurrent: int) -> int:
    return await _sdk(base_url, tasks, concurrent, None)


async def litellm(base_url: str, tasks: List[str], concurrent: int) -> int:
    import litellm as library

    library.suppress_debug_info = True

    async def one(task: str) -> int:
        answer = await library.acompletion(
            model=f"anthropic/{MODEL}",
            max_tokens=MAX_TOKENS,
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}],
            api_base=base_url,
            api_key="none",
            num_retries=0,
        )
        return len(answer.choices[0].message.content)

    return await _bounded(one, tasks, concurrent)


async def langchain(base_url: str, tasks: List[str], concurrent: int) -> int:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(
        model=MODEL, max_tokens=MAX_TOKENS, base_url=base_url, api_key="none", max_retries=0
    )
    prompts = [[("system", SYSTEM), ("human", task)] for task in tasks]
    answers = await model.abatch(prompts, config={"max_concurrency": concurrent})
    return sum(len(str(answer.content)) for answer in answers)


async def pydantic_ai(base_url: str, tasks: List[str], concurrent: int) -> int:
    import anthropic
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    async with anthropic.AsyncAnthropic(api_key="none", base_url=base_url, max_retries=0) as client:
        provider = AnthropicProvider(anthropic_client=client)
        agent = Agent(AnthropicModel(MODEL, provider=provider), system_prompt=SYSTEM)

        async def one(task: str) -> int:
            return len((await agent.run(task, model_settings={"max_tokens": MAX_TOKENS})).output)

        return await _bounded(one, tasks, concurrent)


async def bare_aiohttp(base_url: str, tasks: List[str], concurrent: int) -> int:
    """The limit of the kind: a request, its JSON, nothing else."""
    import aiohttp

    headers = {"content-type": "application/json", "x-api-key": "none", "anthropic-version": "2023-06-01"}
    connector = aiohttp.TCPConnector(limit=concurrent)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one(task: str) -> int:
            body: Dict[str, Any] = {
                "model": MODEL,
                "max_tokens": MAX_TOKENS,
                "system": SYSTEM,
                "messages": [{"role": "user", "content": task}],
            }
            async with session.post(f"{base_url}/v1/messages", data=json.dumps(body)) as response:
                return len(json.loads(await response.read())["content"][0]["text"])

        return await _bounded(one, tasks, concurrent)


SUBJECTS: Dict[str, Run] = {
    "claude-force": claude_force,
    "SDK, aiohttp": sdk_aiohttp,
    "SDK, default": sdk_default,
    "LiteLLM": litellm,
    "LangChain": langchain,
    "pydantic-ai": pydantic_ai,
    "bare aiohttp": bare_aiohttp,
}
