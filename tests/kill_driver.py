"""Runs a workflow with tools in child processes, and kills one at each boundary. Prints a line for each.

    python kill_driver.py PROJECT URL EFFECTS

A boundary is before and after each write of the journal, and before and after each side effect.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tool_agents import Notes

from claude_force import AsyncAgentOrchestrator
from claude_force.workflow.checkpoints import CheckpointStore, TurnEvent

MOST = 80


class Boundaries:
    """Counts boundaries, and kills the process at one of them."""

    def __init__(self, kill_at):
        self._kill_at, self._passed = kill_at, 0

    def passed(self, name):
        self._passed += 1
        if self._passed == self._kill_at:
            os.write(1, f" killed:{name}".encode())
            os.kill(os.getpid(), signal.SIGKILL)


class Store(CheckpointStore):
    """The real store, with a boundary on both sides of each save."""

    boundaries = Boundaries(0)

    def save(self, payments):
        kinds = ",".join(one.kind if isinstance(one, TurnEvent) else "whole" for _, one, _ in payments)
        self.boundaries.passed(f"before-{kinds}")
        super().save(payments)
        self.boundaries.passed(f"after-{kinds}")


def tools(effects, boundaries):
    async def do(use):
        if use.name == "Note":
            boundaries.passed("before-effect")
            with effects.open("a", encoding="utf-8") as file:
                file.write(use.input["what"] + "\n")
            boundaries.passed("after-effect")

    return Notes(do)


async def run(project, url, effects, number, kill_at, resume):
    boundaries = Store.boundaries = Boundaries(kill_at)
    orchestrator = AsyncAgentOrchestrator(project, base_url=url, api_key="test-key", enable_cache=False)
    orchestrator._calls.tool_runs.open_tools = lambda *_: tools(effects, boundaries)
    orchestrator._workflows.checkpointer._open_store = open_store
    async with orchestrator:
        resumed = {"resume": resume} if resume else {"task": f"Do {number}"}
        found = await orchestrator.execute_workflow("do", tools="bash", **resumed)
    steps = [(one.success, one.tool_calls, one.cost) for one in found]
    calls = [call.error for _, made, _ in steps for call in made]
    told = sum("may or may not" in (error or "") for error in calls)
    os.write(1, f" ended:{all(one[0] for one in steps)}:{told}".encode())


def open_store():
    from claude_force.cache.private_dir import cache_folder
    from claude_force.settings import user_folder
    from claude_force.storage.signing import find_secret

    return Store(cache_folder(user_folder() / "runs"), find_secret(None, cache_folder(None)))


def in_child(*arguments):
    child = os.fork()
    if not child:
        try:
            asyncio.run(run(*arguments))
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(9)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def last_run():
    store = open_store()
    try:
        found = store.recent(1)
    finally:
        store.close()
    return found[0].id if found else None


def main():
    project, url, effects = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    for number in range(1, MOST):
        os.write(1, json.dumps({"at": number}).encode())
        effects.write_text("", encoding="utf-8")
        before = last_run()
        code = in_child(project, url, effects, number, number, None)
        if code == -signal.SIGKILL:
            run_id = last_run()
            assert run_id and run_id != before
            code = in_child(project, url, effects, number, 0, run_id)
            left = effects.read_text(encoding="utf-8").split()
            os.write(1, f" {json.dumps({'effects': left})}\n".encode())
            assert code == 0, code
            continue
        assert code == 0, code
        os.write(1, b"\n")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
