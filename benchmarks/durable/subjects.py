"""One process of one subject: `subjects.py worker NAME ID CONCURRENCY` or `subjects.py driver NAME ROWS`.

The database's URL and the server's are in DATABASE and BASE_URL. A worker says "ready" and ends with its
standard input; a driver prints its figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

from benchmarks.used import project

MODEL = "claude-sonnet-5-5"
SYSTEM = "You are a Python expert. " * 20
MAX_TOKENS = 1024
POLL_SECONDS = 0.05
WARM, ALONE, THREADS = 100, 15, 16
QUEUE, WORKFLOW = "calls", "call"
PLAIN = "plain DBOS"

URL, BASE_URL = os.environ["DATABASE"], os.environ["BASE_URL"]


def tasks_of(count: int, mark: str) -> List[str]:
    """All different, so that no answer helps another row."""
    return [f"{mark} {number} ".ljust(400, "x") for number in range(count)]


def figures(answered: int, seconds: float, cpu: float, alone: List[float]) -> Dict[str, float]:
    return {
        "driver_cpu_ms": cpu / answered * 1000,
        "answered": answered,
        "made": answered + WARM + ALONE,
        "rows_per_second": answered / seconds,
        "alone_ms": statistics.median(alone) * 1000,
    }


async def our_worker(name: str, concurrency: int) -> None:
    from claude_force.durable import Worker

    async with Worker(URL, concurrency, name, api_key="none", base_url=BASE_URL, stream=False):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def our_driver(cache: str, rows: int) -> Dict[str, float]:
    from claude_force import AsyncAgentOrchestrator

    folder = project(Path.home() / "project", MODEL, SYSTEM)
    async with AsyncAgentOrchestrator(folder, durable=URL) as running:

        async def answered(tasks: List[str]) -> int:
            pairs = (("expert", task) for task in tasks)
            options: Dict[str, Any] = {"max_tokens": MAX_TOKENS, "cache": cache}
            return sum([one.success async for one in running.stream_multiple(pairs, **options)])

        await answered(tasks_of(WARM, "warm"))
        alone = []
        for task in tasks_of(ALONE, "alone"):
            began = time.perf_counter()
            await answered([task])
            alone.append(time.perf_counter() - began)
        began, cpu = time.perf_counter(), time.process_time()
        done = await answered(tasks_of(rows, "task"))
        return figures(done, time.perf_counter() - began, time.process_time() - cpu, alone)


def plain_worker(name: str, concurrency: int) -> None:
    import anthropic
    from dbos import DBOS, DBOSConfig

    client: List[anthropic.AsyncAnthropic] = []

    @DBOS.step()
    async def ask(task: str) -> str:
        if not client:
            client.append(
                anthropic.AsyncAnthropic(
                    api_key="none",
                    base_url=BASE_URL,
                    max_retries=0,
                    http_client=anthropic.DefaultAioHttpClient(),
                )
            )
        answer = await client[0].messages.create(
            model=MODEL,
            max_tokens=MAX_TOKENS,
            system=SYSTEM,
            messages=[{"role": "user", "content": task}],
        )
        return str(answer.content[0].text)  # type: ignore[union-attr]

    @DBOS.workflow(name=WORKFLOW)
    async def call(task: str) -> str:
        return await ask(task)

    config: DBOSConfig = {
        "name": "plain",
        "system_database_url": URL,
        "application_version": "1",
        "executor_id": name,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.listen_queues([QUEUE])
    DBOS.launch()
    # As many are claimed as by a worker of ours.
    DBOS.register_queue(QUEUE, worker_concurrency=2 * concurrency, polling_interval_sec=POLL_SECONDS)
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


def plain_driver(rows: int) -> Dict[str, float]:
    from dbos import DBOSClient

    client = DBOSClient(system_database_url=URL, application_name="plain")
    options: Any = {"workflow_name": WORKFLOW, "queue_name": QUEUE, "app_version": "1"}

    def answered(mark: str, count: int) -> int:
        numbered = enumerate(tasks_of(count, mark))
        with ThreadPoolExecutor(THREADS) as threads:
            handed = [
                threads.submit(client.enqueue, {**options, "workflow_id": f"{mark}-{number}"}, task)
                for number, task in numbered
            ]
            done: Dict[str, Any] = {}
            while len(done) < count:
                time.sleep(POLL_SECONDS)
                missing = [f"{mark}-{number}" for number in range(count) if f"{mark}-{number}" not in done]
                for one in client.list_workflows(workflow_ids=missing, status="SUCCESS", load_input=False):
                    done[one.workflow_id] = one.output
            for one in handed:
                one.result()
        return len(done)

    answered("warm", WARM)
    alone = []
    for number in range(ALONE):
        began = time.perf_counter()
        answered(f"alone{number}", 1)
        alone.append(time.perf_counter() - began)
    began, cpu = time.perf_counter(), time.process_time()
    done = answered("task", rows)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    client.destroy()
    return figures(done, seconds, cpu, alone)


def main(role: str, name: str, first: str, second: str = "") -> None:
    logging.disable(logging.CRITICAL)
    if role == "worker":
        if name == PLAIN:
            plain_worker(first, int(second))
        else:
            asyncio.run(our_worker(first, int(second)))
        return
    if name == PLAIN:
        print(json.dumps(plain_driver(int(first))))
    else:
        print(json.dumps(asyncio.run(our_driver("off" if name.endswith("no cache") else "use", int(first)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
