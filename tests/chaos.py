"""A storm that is made from one number, and what must hold in it whatever the weather.

The stand-in's answers name what they answer, so that a swapped, wrong or stale one is seen, and its bills are
what every figure of the package is held against.
"""

import asyncio
import gc
import json
import linecache
import os
import random
import re
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from claude_force.limits.prices import price_lookup
from claude_force.testing import MessagesServer, RateLimit, faults
from claude_force.transport.messages import read_usage
from claude_force.types import Clock

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 3.0, "output": 15.0}}
PRICE = price_lookup(PRICES, lambda *_: None)
AGENTS = ("alpha", "beta", "gamma")
MAX_TOKENS = 300
TTL_HOURS = 2
LONGEST_BLOCK = 0.05

_QUICK = [
    *(faults.status(code) for code in (400, 401, 403, 404, 413, 422, 408, 409, 500, 502, 503, 504, 529, 529)),
    faults.status(429),
    faults.status(429, retry_after=0.5),
    faults.status(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
    faults.status(429, error_code="enforced_spend_limit_reached"),
    faults.status(529, retry_after=2),
    faults.reset(),
    *(faults.truncated_stream(after) for after in (1, 2, 3, 4, 6)),
    *(faults.overloaded_in_stream(after) for after in (1, 3, 5)),
    faults.malformed_json(),
    faults.wrong_content_type(),
]
_SILENT = [
    faults.silence_before_first_byte(),
    faults.silence_in_mid_stream(3),
    faults.silence_in_mid_stream(5),
]


class Weather:
    """The fault of a request, by the seed, its task and how often that was asked: not by who comes first."""

    def __init__(self, seed, share=0.35, silent=0.015):
        self._seed, self.share, self.silent = seed, share, silent
        self._asked = Counter()
        self.silences = 0

    def __call__(self, received):
        task = task_of(received.body)
        self._asked[task] += 1
        chance = random.Random(f"{self._seed}/{task}/{self._asked[task]}")
        drawn = chance.random()
        if drawn >= self.share:
            return None
        if drawn < self.silent * self.share / 0.35:
            self.silences += 1
            return chance.choice(_SILENT)
        return chance.choice(_QUICK)


class WallClock:
    """The time of day, which somebody sets forward and back."""

    def __init__(self):
        self._time, self._time_ns = time.time, time.time_ns
        self.ahead = 0.0

    def time(self):
        return self._time() + self.ahead

    def time_ns(self):
        return self._time_ns() + int(self.ahead * 1e9)


class HastyClock(Clock):
    """Waits that somebody asked for are over at once; the time that passes is counted."""

    def __init__(self):
        self._skipped = 0.0

    def now(self):
        return time.monotonic() + self._skipped

    async def sleep(self, seconds):
        self._skipped += seconds
        await asyncio.sleep(min(seconds, 0.002))


def task_of(body):
    return body["messages"][-1]["content"]


def stand_in(seed, wall, **ways):
    """A server of this seed's temper. Its `weather` can be set fair."""
    chance = random.Random(f"server {seed}")
    weather = Weather(seed)

    def answer(body):
        found = re.search(r"agent=(\w+) edition=(\d+)", body["system"][0]["text"])
        said = {"agent": found[1], "edition": int(found[2]), "task": task_of(body), "at": wall.time()}
        return json.dumps(said) + "\n" + "words " * random.Random(said["task"]).randrange(1, 60)

    server = MessagesServer(
        answer=answer,
        faults=weather,
        **{
            "time_to_first_token": chance.choice((0.0, 0.002, 0.01)),
            "tokens_per_second": chance.choice((None, None, 3000)),
            "rate_limit": chance.choice((None, None, RateLimit(6000, 1_000_000, 1_000_000))),
            **ways,
        },
    )
    server.weather = weather
    return server


class Project:
    """Agents, a workflow, and the places in which something can break."""

    def __init__(self, folder, home):
        self.folder, self.home = folder, home
        self.claude = folder / ".claude"
        self.claude.mkdir(parents=True)
        self.edition = dict.fromkeys(AGENTS, 0)
        for agent in AGENTS:
            self.edit(agent)
        steps = [
            {"id": "first", "agent": "alpha", "task": "First: {{ task }}"},
            {"id": "left", "agent": "beta", "dependencies": ["first"], "task": "Left: {{ task }}"},
            {"id": "right", "agent": "gamma", "dependencies": ["first"], "task": "Right: {{ task }}"},
            {"id": "last", "agent": "alpha", "dependencies": ["left", "right"], "task": "Last: {{ task }}"},
        ]
        self.config = self.claude / "claude.json"
        agents = {agent: {"file": f"{agent}.md"} for agent in AGENTS}
        self.config.write_text(json.dumps({"agents": agents, "workflows": {"graph": {"steps": steps}}}))

    @property
    def cache(self):
        return self.home / ".claude" / "cache"

    @property
    def ledger(self):
        return self.claude / "metrics"

    def edit(self, agent):
        """Another text, of which the answers have to know."""
        self.edition[agent] += 1
        # The largest is large enough for the prompt cache.
        text = "You help. " * {"alpha": 5, "beta": 200, "gamma": 600}[agent]
        (self.claude / f"{agent}.md").write_text(f"agent={agent} edition={self.edition[agent]}\n{text}\n")

    def leftovers(self):
        """Files that something should have taken away."""
        found = [path for root in (self.home, self.folder) for path in root.rglob("*")]
        return [str(path) for path in found if re.search(r"\.tmp|\.mending|probe-|\.new$", path.name)]


def damage(path, chance, cuts=True):
    """Flips bytes of a file, or cuts its end off."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("r+b", buffering=0) as file:
        size = path.stat().st_size
        if cuts and chance.random() < 0.3:
            file.truncate(chance.randrange(size))
            return
        for _ in range(chance.randrange(1, 40)):
            file.seek(chance.randrange(size))
            file.write(bytes([chance.randrange(256)]))


def price_of(bill):
    return PRICE(bill.received.body["model"], read_usage(bill.usage)) or 0.0


def check_answer(project, wall, agent, task, result):
    """That it is the answer to this question, of this edition of the agent, and not too old."""
    said = json.loads(result.output.split("\n", 1)[0])
    assert (said["agent"], said["task"]) == (agent, task), "an answer to another question"
    assert said["edition"] == project.edition[agent], "an answer of an agent that was edited since"
    # Ten minutes: the clock may have been set in the meantime, by less than that.
    assert abs(wall.time() - said["at"]) < TTL_HOURS * 3600 + 600, "an answer that is out of date"


# -- nothing is left ---------------------------------------------------------------------------------------


def _descriptors():
    found = Counter()
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            continue
        # One file for each folder stays open on purpose: to close it would let go of the locks of others.
        if not target.endswith("/leases"):
            found[re.sub(r"\d+", "", target) if ":[" in target else target] += 1
    return found


@contextmanager
def nothing_left(server, project, patience=10.0):
    """That threads, descriptors, connections and files after the block are those from before."""
    threads, files = set(threading.enumerate()), _descriptors()
    yield
    until = time.monotonic() + patience
    while True:
        gc.collect()
        left = {
            "threads": [one.name for one in set(threading.enumerate()) - threads],
            "descriptors": dict(_descriptors() - files),
            "connections": server.open_connections,
            "requests": server.in_flight,
            "files": project.leftovers(),
        }
        if not any(left.values()):
            return
        assert time.monotonic() < until, f"left over: {left}"
        time.sleep(0.02)


# -- the loop is free --------------------------------------------------------------------------------------


@contextmanager
def loop_is_free():
    """That no callback of an event loop keeps it for `LONGEST_BLOCK` seconds.

    Judged by the CPU time of the loop's own thread, and for what takes none by its stack: one that stands in
    the same line over many looks, in a system call of its own or a lock, and uses no CPU. The machine's other
    work counts for neither.
    """
    watch = _Watch()
    original = asyncio.events.Handle._run

    def run(handle):
        # The stand-in's loop is not the package's.
        if threading.current_thread().name == "messages-server":
            return original(handle)
        with watch.callback(handle):
            return original(handle)

    gc.collect()
    # A collection of all that the test session has made is not the package's doing.
    gc.freeze()
    asyncio.events.Handle._run = run
    watch.start()
    try:
        yield watch
    finally:
        asyncio.events.Handle._run = original
        watch.stop()
        gc.unfreeze()
    assert not watch.blocked, f"the event loop was blocked: {watch.blocked}"


class _Watch:
    _LOOK_SECONDS = 0.005

    def __init__(self):
        self.blocked = []
        self._running = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="loop-watch", daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._end.set()
        self._thread.join()

    @contextmanager
    def callback(self, handle):
        me, began = threading.get_ident(), time.thread_time()
        self._running[me] = object(), threading.get_native_id()
        try:
            yield
        finally:
            del self._running[me]
            used = time.thread_time() - began
            if used > LONGEST_BLOCK:
                self.blocked.append(f"{used:.3f} s of CPU in {handle!r}")

    def _look(self):
        still = {}
        while not self._end.wait(self._LOOK_SECONDS):
            frames, seen = sys._current_frames(), {}
            for ident, (callback, native) in list(self._running.items()):
                frame = frames.get(ident)
                if frame is None or not _waits(native, frame):
                    continue
                place = (callback, frame.f_code, frame.f_lineno)
                looks = still.get(ident, (None, 0))
                seen[ident] = place, looks[1] + 1 if looks[0] == place else 1
                if seen[ident][1] == int(LONGEST_BLOCK / self._LOOK_SECONDS) + 1:
                    self.blocked.append("waits in " + "".join(traceback.format_stack(frame)[-6:]))
            still = seen


def _waits(native, frame):
    """Whether a thread is in a call of the system's that is not the wait for the interpreter's own lock."""
    try:
        number = Path(f"/proc/self/task/{native}/syscall").read_text().split()[0]
    except OSError:
        return False
    if number == "running":
        return False
    if number != "202":
        return True
    # A futex: the interpreter's lock, or one that the line takes. When a new thread begins is the machine's.
    callers = {one.name for one in traceback.extract_stack(frame)[-4:]}
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return not callers & {"start", "submit"} and bool(
        re.search(r"lock|mutex|acquire|\.result\(|\.join\(", line)
    )
