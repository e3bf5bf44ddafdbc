"""The same requests through each client: a context that gives a way to ask many tasks, and the characters of
all answers.

No retries, a key that the server ignores, at most `concurrent` at a time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List

from ..used import project

MODEL = "claude-sonnet-5-5"
SYSTEM = "You are a Python expert. " * 20
MAX_TOKENS = 1024
# Seconds. The SDK gives a connection five of them, which 2,000 at once may take.
PATIENCE = 600.0
Ask = Callable[[List[str]], Awaitable[int]]


def bounded(one: Callable[[str], Awaitable[int]], concurrent: int) -> Ask:
    async def ask(tasks: List[str]) -> int:
        waiting = iter(tasks)

        async def worker() -> int:
            return sum([await one(task) for task in waiting])

        return sum(await asyncio.gather(*(worker() for _ in range(min(concurrent, len(tasks))))))

    return ask


def claude_force(cache: bool = True, ledger: bool = True, budget: bool = True) -> Callable[..., Any]:
    """Pacing on, and whatever else isn't switched off."""

    @asynccontextmanager
    async def subject(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
        from claude_force import AsyncAgentOrchestrator, ResponseCache

        with tempfile.TemporaryDirectory() as name, ResponseCache(cache_dir=Path(name, "cache")) as kept:
            async with AsyncAgentOrchestrator(
                project(Path(name), MODEL, SYSTEM),
                api_key="none",
                base_url=base_url,
                max_concurrent=concurrent,
                stream=streamed,
                response_cache=kept,
                enable_tracking=ledger,
                budget_usd=1e6 if budget else None,
                prices={MODEL: {"input": 3.0, "output": 15.0}},
            ) as running:
                options: Dict[str, Any] = {
                    "max_tokens": MAX_TOKENS,
                    "first_of_many": budget,
                    "cache": "use" if cache else "off",
                }

                async def ask(tasks: List[str]) -> int:
                    results = running.stream_multiple((("expert", task) for task in tasks), **options)
                    return sum([len(result.output) async for result in results])

                yield ask

    return subject


@asynccontextmanager
async def transport(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
    """claude-force's own way to send one request, and nothing of what decides when."""
    from claude_force.transport.transport import AttemptRecord, Transport
    from claude_force.types import Call

    sending = Transport("none", base_url, PATIENCE, streamed, concurrent)

    async def one(task: str) -> int:
        call = Call("expert", (SYSTEM,), task, MODEL, MAX_TOKENS)
        return len((await sending.attempt(call, AttemptRecord())).text)

    try:
        yield bounded(one, concurrent)
    finally:
        await sending.close()


def sdk(**client_options: Any) -> Callable[..., Any]:
    @asynccontextmanager
    async def subject(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
        import anthropic

        options = dict(client_options)
        if options.pop("aiohttp", False):
            limits = type(anthropic.DEFAULT_CONNECTION_LIMITS)(
                max_connections=concurrent, max_keepalive_connections=concurrent
            )
            options["http_client"] = anthropic.DefaultAioHttpClient(limits=limits)
        async with anthropic.AsyncAnthropic(
            api_key="none", base_url=base_url, max_retries=0, timeout=PATIENCE, **options
        ) as client:

            async def one(task: str) -> int:
                answer: Any = await client.messages.create(
                    model=MODEL,
                    max_tokens=MAX_TOKENS,
                    system=SYSTEM,
                    messages=[{"role": "user", "content": task}],
                    stream=streamed,
                )
                if not streamed:
                    return len(answer.content[0].text)
                events = [event async for event in answer]
                return sum(len(event.delta.text) for event in events if event.type == "content_block_delta")

            yield bounded(one, concurrent)

    return subject


@asynccontextmanager
async def litellm(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
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
            timeout=PATIENCE,
            stream=streamed,
        )
        if not streamed:
            return len(answer.choices[0].message.content)
        return sum([len(chunk.choices[0].delta.content or "") async for chunk in answer])

    yield bounded(one, concurrent)


@asynccontextmanager
async def langchain(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(
        model=MODEL,
        max_tokens=MAX_TOKENS,
        base_url=base_url,
        api_key="none",
        max_retries=0,
        timeout=PATIENCE,
        streaming=streamed,
    )

    async def ask(tasks: List[str]) -> int:
        prompts = [[("system", SYSTEM), ("human", task)] for task in tasks]
        answers = await model.abatch(prompts, config={"max_concurrency": concurrent})
        return sum(len(str(answer.text)) for answer in answers)

    yield ask


@asynccontextmanager
async def pydantic_ai(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
    import anthropic
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    # Without a client that is closed, a second run hangs.
    async with anthropic.AsyncAnthropic(
        api_key="none", base_url=base_url, max_retries=0, timeout=PATIENCE
    ) as client:
        provider = AnthropicProvider(anthropic_client=client)
        agent = Agent(AnthropicModel(MODEL, provider=provider), system_prompt=SYSTEM)

        async def one(task: str) -> int:
            settings: Any = {"max_tokens": MAX_TOKENS}
            if not streamed:
                return len((await agent.run(task, model_settings=settings)).output)
            async with agent.run_stream(task, model_settings=settings) as running:
                return sum([len(text) async for text in running.stream_text(delta=True, debounce_by=None)])

        yield bounded(one, concurrent)


@asynccontextmanager
async def bare_aiohttp(base_url: str, concurrent: int, streamed: bool) -> AsyncIterator[Ask]:
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
                "stream": streamed,
            }
            async with session.post(f"{base_url}/v1/messages", data=json.dumps(body)) as response:
                answer = await response.read()
            return of_events(answer) if streamed else len(json.loads(answer)["content"][0]["text"])

        yield bounded(one, concurrent)


def of_events(answer: bytes) -> int:
    events = [json.loads(line[6:]) for line in answer.split(b"\n") if line.startswith(b"data: ")]
    return sum(len(event["delta"]["text"]) for event in events if event["type"] == "content_block_delta")


SUBJECTS: Dict[str, Callable[..., Any]] = {
    "claude-force": claude_force(),
    "no cache": claude_force(cache=False),
    "no ledger": claude_force(cache=False, ledger=False),
    "no budget": claude_force(cache=False, ledger=False, budget=False),
    "transport": transport,
    "SDK, aiohttp": sdk(aiohttp=True),
    "SDK, default": sdk(),
    "LiteLLM": litellm,
    "LangChain": langchain,
    "pydantic-ai": pydantic_ai,
    "bare aiohttp": bare_aiohttp,
}
