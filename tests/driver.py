"""A driver as a process of its own: `python driver.py CONFIG URL RUN ROWS` prints a line for each result."""

import asyncio
import json
import sys

from claude_force.async_orchestrator import AsyncAgentOrchestrator


async def drive(config, url, run, rows):
    tasks = [("python-expert", f"row {number}") for number in range(rows)]
    fleet = AsyncAgentOrchestrator(config, durable=url, enable_cache=False, enable_tracking=False)
    async with fleet:
        async for result in fleet.stream_multiple(tasks, run_id=run):
            row = {
                "index": result.index,
                "output": result.output,
                "cost": result.cost,
                "cached": result.cached,
            }
            sys.stdout.write(json.dumps({**row, "error": str(result.error)}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(drive(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
