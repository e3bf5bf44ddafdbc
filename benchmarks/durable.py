"""What a durable row costs: two workers on Postgres, beside two processes of plain DBOS.

    python benchmarks/durable.py [--rows 2000] [--concurrency 20]

Prints rows a second, and the milliseconds that this is for each row. The model's server answers at once,
so that all of it is overhead, and DBOS's own workflows do nothing. Postgres runs on this machine with its
writes synced, beside the workers and the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from postgres import Postgres  # noqa: E402

from claude_force import AsyncAgentOrchestrator  # noqa: E402
from claude_force.durable import Runs  # noqa: E402

# Its answers are as long as ordinary ones, and come at once.
SERVER = [sys.executable, "-u", "-m", "claude_force.testing", "--output-tokens", "375"]

PLAIN = """
import sys, threading
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

url, name, claims = sys.argv[1], sys.argv[2], int(sys.argv[3])
DBOS(config={"name": "plain", "system_database_url": url, "executor_id": name, "application_version": "1",
             "serializer": DBOSPortableJSONSerializer(), "log_level": "WARNING"})

@DBOS.workflow(name="nothing")
async def nothing(number):
    return number

DBOS.launch()
DBOS.register_queue("rows", worker_concurrency=claims, polling_interval_sec=0.05)
print("ready", flush=True)
sys.stdin.read()
DBOS.destroy()
"""


@contextlib.contextmanager
def processes(*commands: List[str], **environment: str) -> Iterator[List[Any]]:
    """Each has said a line when they are given out."""
    started = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        for command in commands
    ]
    try:
        for one in started:
            one.first_line = one.stdout.readline().strip()  # type: ignore[attr-defined, union-attr]
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def busy() -> float:
    """Processor seconds of all processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plain(url: str, rows: int, claims: int) -> float:
    """Seconds for so many workflows that do nothing."""
    from dbos import DBOSClient, DBOSPortableJSONSerializer

    commands = [[sys.executable, "-c", PLAIN, url, name, str(claims)] for name in "ab"]
    with processes(*commands):
        client = DBOSClient(
            system_database_url=url, serializer=DBOSPortableJSONSerializer(), application_name="plain"
        )
        began = time.perf_counter()
        options: Any = {"workflow_name": "nothing", "queue_name": "rows", "app_version": "1"}
        handles = [
            client.enqueue({**options, "workflow_id": f"row-{number}"}, number) for number in range(rows)
        ]
        while len(client.list_workflows(status="SUCCESS", load_input=False, load_output=False)) < len(
            handles
        ):
            time.sleep(0.1)
        took = time.perf_counter() - began
        client.destroy()
    return took


def ours(url: str, rows: int, concurrency: int, base_url: str, config: str, cache: str) -> Dict[str, float]:
    """Seconds, and processor seconds of the driver."""
    worker = [sys.executable, "-m", "claude_force", "worker", "--concurrency", str(concurrency), "--name"]
    runs = Runs(url)
    runs.list()
    environment = {
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_FORCE_DATABASE_URL": url,
        "CLAUDE_CACHE_SECRET": "of the benchmark",
        "PYTHONPATH": str(ROOT),
    }
    os.environ.update(environment)
    with processes([*worker, "a"], [*worker, "b"], **environment):
        while len(runs.workers()) < 2:
            time.sleep(0.1)
        return asyncio.run(_drive(url, rows, config, cache))


async def _drive(url: str, rows: int, config: str, cache: str) -> Dict[str, float]:
    tasks = [("expert", f"Task {number} ".ljust(400, "x")) for number in range(rows)]
    async with AsyncAgentOrchestrator(config, durable=url, enable_tracking=False) as fleet:
        began, busy = time.perf_counter(), time.process_time()
        results = await fleet.execute_multiple(tasks, cache=cache)
        failed = [result.error for result in results if not result.success]
        assert not failed, failed[0]
        return {"seconds": time.perf_counter() - began, "driver": time.process_time() - busy}


def main() -> None:
    parser = argparse.ArgumentParser(description="What a durable row costs.")
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=20)
    options = parser.parse_args()
    rows, concurrency = options.rows, options.concurrency
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{rows:,} rows, two workers with {concurrency} requests each")
    postgres = Postgres(fsync=True).create()
    try:
        with processes(SERVER) as (server,), tempfile.TemporaryDirectory() as folder:
            base_url = server.first_line.split()[-1]
            agents = Path(folder, ".claude", "agents")
            agents.mkdir(parents=True)
            (agents / "expert.md").write_text(
                "---\nname: expert\nmodel: sonnet\n---\nYou help.", encoding="utf-8"
            )
            before = busy()
            took = {"seconds": plain(postgres.new_database(), rows, 2 * concurrency)}
            show("plain DBOS, workflows that do nothing", rows, took["seconds"], busy() - before)
            for cache in ("off", "use"):
                before = busy()
                took = ours(postgres.new_database(), rows, concurrency, base_url, str(agents.parent), cache)
                show(f"durable calls, cache {cache}", rows, took["seconds"], busy() - before)
                print(f"{'':40} and {took['driver'] / rows * 1000:.2f} ms of the driver's")
    finally:
        postgres.remove()


def show(what: str, rows: int, seconds: float, worked: float) -> None:
    """`worked`: processor seconds of the two processes, their start among them."""
    each = f"{seconds / rows * 1000:5.2f} ms a row, {worked / rows * 1000:5.2f} ms of the workers' processors"
    print(f"{what:40} {rows / seconds:6,.0f} rows/s, {each}", flush=True)


if __name__ == "__main__":
    main()
