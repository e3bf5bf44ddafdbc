"""A run that is killed repeatedly pays for each finished step once."""

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest
from fleet import write_project
from test_workflow_runs import answer, engine, text_of

from claude_force.testing import MessagesServer

# Four chains of three steps, each of which is told what two of the layer before it answered. Of steps none
# of which needs another, there are at most as many as there are chains.
CHAINS, LAYERS = 4, 3
STEPS = [
    {
        "id": f"s{layer}{chain}",
        "agent": ("python-expert", "code-reviewer")[chain % 2],
        "task": f"s{layer}{chain}: "
        + " ".join(f"${{steps.s{layer - 1}{one % CHAINS}}}" for one in (chain, chain + 1) if layer),
        "dependencies": [f"s{layer - 1}{one % CHAINS}" for one in (chain, chain + 1) if layer],
    }
    for layer in range(LAYERS)
    for chain in range(CHAINS)
]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")


class Life:
    """A process that runs the graph, or resumes a killed run of it."""

    def __init__(self, project, server, run_id):
        resume = [] if run_id is None else ["--resume", run_id]
        arguments = ["run", "workflow", "knit", "--task", "x", "--cache", "off", "--json"]
        arguments += ["--config", str(project), *resume]
        self._server = server
        self._process = subprocess.Popen(
            [sys.executable, "-m", "claude_force", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def killed_at(self, requests, later):
        """Kills it `later` seconds after so many requests; returns whether it was alive."""
        while len(self._server.requests) < requests and self._process.poll() is None:
            time.sleep(0.001)
        end = time.monotonic() + later
        while time.monotonic() < end and self._process.poll() is None:
            time.sleep(0.0005)
        alive = self._process.poll() is None
        self._process.kill()
        self._process.communicate(timeout=60)
        return alive

    def ended(self):
        out, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, out
        return json.loads(out)


def kept(home):
    """Returns the run, and the steps with a saved answer."""
    path = home / ".claude" / "runs" / "journal.sqlite"
    if not path.exists():
        return None, set()
    with closing(sqlite3.connect(str(path))) as db:
        run = db.execute("SELECT id FROM runs").fetchone()
        return run and run[0], {step for (step,) in db.execute("SELECT step FROM answers")}


def outputs(fields):
    return {step["id"]: (step["status"], step["output"]) for step in fields["steps"]}


def of_one_life(project, server):
    async def work():
        async with engine(project, server) as orchestrator:
            return (await orchestrator.execute_workflow("knit", "x", cache="off")).to_dict()

    return outputs(asyncio.run(work()))


def test_finished_steps_are_paid_once(tmp_path, clean_environment, monkeypatch, soak):
    chance, killed = random.Random(9), 0
    for number in range(50 if soak else 2):
        home = clean_environment / str(number)
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        (tmp_path / str(number)).mkdir()
        killed += one_run(tmp_path / str(number), home, monkeypatch, chance)
    assert killed >= (75 if soak else 2)


def one_run(folder, home, monkeypatch, chance):
    """Returns how often it was killed."""
    project = write_project(folder)
    content = json.loads(project.read_text(encoding="utf-8"))
    content["workflows"]["knit"] = {"steps": STEPS}
    project.write_text(json.dumps(content), encoding="utf-8")
    with MessagesServer(answer=answer, time_to_first_token=0.02) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        killed = at_random(project, home, server, chance)
        run_id, before = kept(home)
        sent = len(server.requests)
        fields = Life(project, server, run_id).ended()
        assert len(server.requests) - sent == len(STEPS) - len(before)
        asked = Counter(text_of(one).partition(":")[0] for one in server.requests)
        assert set(asked) == {step["id"] for step in STEPS}
        # What was under way, or answered and not yet on the disk, at each kill.
        assert len(server.requests) <= len(STEPS) + killed * CHAINS
        assert outputs(fields) == of_one_life(project, server)
    return killed


def at_random(project, home, server, chance):
    killed = 0
    for _ in range(2):
        run_id, before = kept(home)
        sent, target = len(server.requests), len(server.requests) + chance.randint(1, 6)
        killed += Life(project, server, run_id).killed_at(target, chance.uniform(0, 0.04))
        asked = [text_of(one).partition(":")[0] for one in server.requests[sent:]]
        # None that the journal had, and none of the others twice.
        assert not before & set(asked)
        assert len(asked) == len(set(asked))
        assert len(set(asked) - kept(home)[1]) <= CHAINS
    return killed
