"""The cache beside a plain model of it, whatever is done in whatever order."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from claude_force.response_cache import ResponseCache

TTL_HOURS = 10
AGENTS = st.sampled_from(["a", "b"])
TASKS = st.sampled_from(["", "t", "a:t", "\ud800", "1:a"])
PRINTS = st.sampled_from([{}, {"x": "1"}, {"x": "2"}, {"y": "1"}])
OBJECTS = st.integers(0, 1)


class Model(RuleBasedStateMachine):
    """Two objects on one folder, as two processes would have them, and a dict of what has to be there."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1e9
        self.kept = {}
        self.number = 0
        self.caches = [self.open(), self.open()]

    def open(self):
        return ResponseCache(
            TTL_HOURS, cache_secret="s", cache_dir=self.folder / "cache", clock=lambda: self.now
        )

    def teardown(self):
        for cache in self.caches:
            cache.close()
        shutil.rmtree(self.folder)

    def alive(self, key):
        made = self.kept.get(key, (None, -1e9))
        return made[0] if self.now - made[1] < TTL_HOURS * 3600 else None

    @rule(which=OBJECTS, agent=AGENTS, task=TASKS, fields=PRINTS)
    def set(self, which, agent, task, fields):
        self.number += 1
        text = f"answer {self.number}"
        assert self.caches[which].set(agent, task, "m", text, fingerprint=fields)
        self.kept[(agent, task, tuple(fields.items()))] = (text, self.now)

    @rule(which=OBJECTS, agent=AGENTS, task=TASKS, fields=PRINTS)
    def get(self, which, agent, task, fields):
        hit = self.caches[which].get(agent, task, "m", fields)
        assert (hit["response"] if hit else None) == self.alive((agent, task, tuple(fields.items())))

    @rule(which=OBJECTS, agent=AGENTS, task=TASKS, fields=PRINTS)
    def delete(self, which, agent, task, fields):
        key = (agent, task, tuple(fields.items()))
        assert self.caches[which].delete(agent, task, "m", fields) is (key in self.kept)
        self.kept.pop(key, None)

    @rule(which=OBJECTS, agent=st.none() | AGENTS)
    def clear(self, which, agent):
        gone = [key for key in self.kept if agent is None or key[0] == agent]
        assert self.caches[which].clear(agent) == len(gone)
        for key in gone:
            del self.kept[key]

    @rule(hours=st.floats(0, TTL_HOURS))
    def wait(self, hours):
        self.now += hours * 3600

    @rule(which=OBJECTS)
    def reopen(self, which):
        self.caches[which].close()
        self.caches[which] = self.open()

    @invariant()
    def every_entry_is_counted_and_holds(self):
        for cache in self.caches:
            assert cache.get_stats()["entries"] == len(self.kept)
        assert self.caches[0].verify()["valid"] == len(self.kept)


def test_two_objects_agree_with_a_dict(soak):
    examples = 1000 if soak else 40
    run_state_machine_as_test(
        Model, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None)
    )


class Bounded(RuleBasedStateMachine):
    """A cache that is too small for what is put in: what it gives is right, what was used last is there."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.cache = ResponseCache(cache_secret="s", cache_dir=self.folder / "cache", max_size_mb=1)
        self.kept = {}
        self.last = None

    def teardown(self):
        self.cache.close()
        shutil.rmtree(self.folder)

    @rule(numbers=st.lists(st.integers(0, 99), min_size=1, max_size=40), size=st.integers(1, 60_000))
    def set(self, numbers, size):
        for number in numbers:
            text = f"{number} " * (size // 3)
            assert self.cache.set("a", str(number), "m", text)
            self.kept[number] = text
            self.last = number

    @rule(number=st.integers(0, 99))
    def get(self, number):
        hit = self.cache.get("a", str(number), "m")
        if hit is not None:
            assert hit["response"] == self.kept[number]
            self.last = number

    @rule()
    def reopen(self):
        self.cache.close()

    @invariant()
    def the_last_one_used_is_there_and_the_bound_holds(self):
        if self.last is not None:
            assert self.cache.get("a", str(self.last), "m")["response"] == self.kept[self.last]
        assert self.cache.get_stats()["size_mb"] <= 1


def test_small_cache_keeps_last_used(soak):
    examples = 300 if soak else 15
    run_state_machine_as_test(
        Bounded, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None)
    )


def test_evicts_in_order_of_use(tmp_path):
    count = 50
    with ResponseCache(cache_dir=tmp_path / "cache", max_size_mb=1) as cache:
        for number in range(count):
            cache.set("a", str(number), "m", "x" * 10_000)
        for number in range(0, count, 2):
            cache.get("a", str(number), "m")
        for number in range(count, count + 60):
            cache.set("a", str(number), "m", "x" * 10_000)
        order = [*range(1, count, 2), *range(0, count, 2), *range(count, count + 60)]
        there = [cache.get("a", str(number), "m") for number in order]
        gone = there.index(next(hit for hit in there if hit))
        assert gone > 0
        assert all(there[gone:])
