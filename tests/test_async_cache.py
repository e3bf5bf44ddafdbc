"""The response cache off the event loop: what it stores and returns, its leases, and its faults."""

import asyncio
import threading

import pytest
from fleet import FakeClock

from claude_force import settings
from claude_force.cache.request_key import RequestKey
from claude_force.engine.async_cache import AsyncResponseCache
from claude_force.errors import CacheError, DeadlineExceededError
from claude_force.types import Reply, Usage

KEY = RequestKey("writer", "Write", "model-1", {"options": "{}"})
OTHER = KEY._replace(task="Write more")
REPLY = Reply("Done", "model-1-dated", Usage(3, 5, 7), "end_turn", "req_1", cost=0.25)
HIT = {
    "response": "Done",
    "input_tokens": 10,
    "output_tokens": 5,
    "estimated_cost": 0.25,
    "cache_age_seconds": 2.0,
}
LOGGER = "claude_force.engine.async_cache"


class FakeCache:
    """A cache in memory. `calls` has the names of the methods called; those in `broken` raise an error."""

    exclude_agents = frozenset()

    def __init__(self):
        self.hits, self.in_memory, self.stored = {}, {}, []
        self.calls, self.broken, self.leases, self.taken = [], set(), [], False

    def _called(self, name):
        self.calls.append(name)
        if name in self.broken:
            raise ValueError(name)

    def get(self, agent_name, task, model, fingerprint):
        self._called("get")
        return self.hits.get(task)

    def get_in_memory(self, agent_name, task, model, fingerprint):
        self._called("get_in_memory")
        return self.in_memory.get(task)

    def has(self, agent_name, task, model, fingerprint):
        return task in self.hits

    def set_many(self, answers):
        self._called("set_many")
        self.stored += answers
        return len(answers)

    def acquire_lease(self, agent_name, task, model, fingerprint):
        self._called("acquire_lease")
        if not self.taken:
            self.leases.append(RequestKey(agent_name, task, model, fingerprint))
        return not self.taken

    def release_lease(self, agent_name, task, model, fingerprint):
        self._called("release_lease")
        self.leases.remove(RequestKey(agent_name, task, model, fingerprint))

    def explain_miss(self, agent_name, task, model, fingerprint):
        return {}

    def close(self):
        self._called("close")


class BoundedClock(FakeClock):
    """Fails a wait that does not end."""

    async def sleep(self, seconds):
        await super().sleep(seconds)
        assert len(self.slept) < 50


@pytest.fixture
def fake():
    return FakeCache()


@pytest.fixture
def clock():
    return BoundedClock()


@pytest.fixture
async def cache(fake, clock):
    opened = AsyncResponseCache(lambda: fake, clock)
    yield opened
    await opened.close()


@pytest.fixture
def no_faults(caplog):
    """The test fails if anything is logged."""
    yield
    assert not caplog.get_records("call")


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("claude-force-cache")}


async def nothing(cache):
    """Returns when the thread has done all that was handed to it before."""
    assert await cache.run(lambda _: "done", None) == "done"


class TestRead:
    async def test_hit_on_disk(self, fake, cache):
        fake.hits[KEY.task] = HIT
        reply = await cache.get(KEY)
        assert (reply.text, reply.model, reply.cached) == ("Done", "model-1", True)
        assert await cache.get(OTHER) is None

    async def test_first_get_reads_no_memory(self, fake, cache, no_faults):
        fake.in_memory[KEY.task] = HIT
        assert cache.get_in_memory(KEY) is None
        assert await cache.get(KEY) is None
        assert fake.calls == ["get"]

    async def test_hit_in_memory_spares_thread(self, fake, cache):
        await nothing(cache)
        fake.in_memory[KEY.task] = HIT
        reply = await cache.get(KEY)
        assert (reply.text, reply.model) == ("Done", "model-1")
        assert cache.get_in_memory(KEY) == reply
        assert cache.get_in_memory(OTHER) is None
        assert "get" not in fake.calls

    async def test_run_works_in_thread(self, fake, cache):
        name = await cache.run(lambda opened: (opened is fake, threading.current_thread().name), None)
        assert name == (True, "claude-force-cache_0")

    async def test_read_stores_nothing(self, fake, cache):
        await cache.get(KEY)
        assert fake.calls == ["get"]


class TestPut:
    async def test_stores_all_of_reply(self, fake, cache):
        await cache.put(KEY, REPLY)
        assert fake.stored == [
            {
                "agent_name": "writer",
                "task": "Write",
                "model": "model-1",
                "fingerprint": {"options": "{}"},
                "response": "Done",
                "input_tokens": 10,
                "output_tokens": 5,
                "estimated_cost": 0.25,
                "extra": {
                    "usage": vars(Usage(3, 5, 7)),
                    "model": "model-1-dated",
                    "stop_reason": "end_turn",
                    "request_id": "req_1",
                },
            }
        ]

    @pytest.mark.parametrize(
        ("stop_reason", "text", "stored"),
        [
            ("end_turn", "Done", 1),
            ("stop_sequence", "Done", 1),
            ("tool_use", "Done", 1),
            ("max_tokens", "Done", 0),
            ("refusal", "Done", 0),
            (None, "Done", 0),
            ("end_turn", "", 0),
            ("end_turn", " \n", 0),
            ("max_tokens", "", 0),
        ],
    )
    async def test_stores_complete_answers(self, fake, cache, stop_reason, text, stored):
        await cache.put(KEY, Reply(text, "model-1", Usage(1, 1), stop_reason))
        assert len(fake.stored) == stored

    async def test_stores_for_cancelled_caller(self, fake, cache):
        put = asyncio.ensure_future(cache.put(KEY, REPLY))
        await asyncio.sleep(0)
        put.cancel()
        await nothing(cache)
        assert len(fake.stored) == 1


class TestClose:
    async def test_closes_and_opens_again(self, fake, clock):
        made = []
        cache = AsyncResponseCache(lambda: made.append(1) or fake, clock)
        for count in (1, 2):
            await nothing(cache)
            await nothing(cache)
            await cache.close()
            assert (len(made), fake.calls) == (count, ["close"] * count)

    async def test_leaves_shared_cache_open(self, fake, clock):
        cache = AsyncResponseCache(lambda: fake, clock, shared=True)
        await nothing(cache)
        await cache.close()
        assert fake.calls == []

    async def test_unused_cache_is_never_made(self, clock):
        for shared in (False, True):
            cache = AsyncResponseCache(pytest.fail, clock, shared)
            assert cache.get_in_memory(KEY) is None
            await cache.close()

    async def test_waits_and_ends_thread(self, fake, clock):
        before, cache = threads(), AsyncResponseCache(lambda: fake, clock)
        go = threading.Event()
        waiting = asyncio.ensure_future(cache.run(lambda _: go.wait(5), None))
        storing = asyncio.ensure_future(cache.put(KEY, REPLY))
        await asyncio.sleep(0)
        assert len(threads() - before) == 1
        asyncio.get_running_loop().call_later(0.05, go.set)
        await cache.close()
        assert fake.calls == ["set_many", "close"]
        assert threads() <= before
        await asyncio.gather(waiting, storing)


class TestFaults:
    @pytest.mark.parametrize("error", [CacheError("locked"), OSError("no such folder")])
    async def test_without_cache_all_is_a_miss(self, clock, caplog, error):
        made = []

        def make():
            made.append(1)
            raise error

        cache = AsyncResponseCache(make, clock)
        assert await cache.get(KEY) is None
        assert cache.get_in_memory(KEY) is None
        assert await cache.run(lambda _: "read", "default") == "default"
        await cache.put(KEY, REPLY)
        with cache.lease(KEY) as lease:
            assert await lease.get_or_acquire() == (None, True)
            assert await lease.acquire() is True
        assert len(made) == 1
        logged = [(one.name, one.levelname, one.getMessage()) for one in caplog.records]
        assert logged == [(LOGGER, "WARNING", f"answers are not cached: {error}")]
        await cache.close()
        assert await cache.get(KEY) is None
        assert len(made) == 2
        await cache.close()

    async def test_fault_is_logged_and_a_miss(self, fake, cache, caplog):
        fake.broken = {"get", "set_many", "acquire_lease"}
        assert await cache.get(KEY) is None
        await cache.put(KEY, REPLY)
        assert await cache.run(lambda opened: opened.get(*KEY), "default") == "default"
        with cache.lease(KEY) as lease:
            assert await lease.get_or_acquire() == (None, True)
            assert await lease.acquire() is True
        logged = [(one.name, one.levelname, one.getMessage()) for one in caplog.records]
        assert logged == [(LOGGER, "ERROR", "the cache failed")] * 5
        assert all(one.exc_info for one in caplog.records)

    async def test_failing_release_harms_no_other(self, fake, cache, caplog):
        fake.broken, go = {"release_lease"}, threading.Event()
        blocker = asyncio.ensure_future(cache.run(lambda _: go.wait(5), None))
        with cache.lease(KEY) as lease:
            acquired = asyncio.ensure_future(lease.acquire())
            await asyncio.sleep(0)
        other = asyncio.ensure_future(cache.run(lambda _: "other", None))
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(blocker, acquired, other) == [True, True, "other"]
        assert [one.getMessage() for one in caplog.records] == ["the cache failed"]


@pytest.mark.usefixtures("no_faults")
class TestLease:
    async def test_hit_needs_no_lease(self, fake, cache):
        fake.hits[KEY.task] = HIT
        with cache.lease(KEY) as lease:
            reply, is_acquired = await lease.get_or_acquire()
        await nothing(cache)
        assert (reply.text, reply.model, is_acquired) == ("Done", "model-1", False)
        assert fake.calls == ["get"]

    async def test_miss_takes_lease_until_exit(self, fake, cache):
        with cache.lease(KEY) as lease:
            assert await lease.get_or_acquire() == (None, True)
            assert fake.leases == [KEY]
        await nothing(cache)
        assert fake.leases == []
        assert fake.calls == ["get", "acquire_lease", "release_lease"]

    async def test_refused_lease_is_not_released(self, fake, cache):
        fake.taken = True
        with cache.lease(KEY) as lease:
            assert await lease.get_or_acquire() == (None, False)
            assert await lease.acquire() is False
        await nothing(cache)
        assert fake.calls == ["get", "acquire_lease", "acquire_lease"]

    async def test_cancelled_acquisition_is_released(self, fake, cache):
        with cache.lease(KEY) as lease:
            acquired = asyncio.ensure_future(lease.acquire())
            await asyncio.sleep(0)
            acquired.cancel()
        await nothing(cache)
        assert fake.calls == ["acquire_lease", "release_lease"]

    async def test_unused_lease_starts_no_thread(self, cache):
        before = threads()
        with cache.lease(KEY):
            pass
        assert threads() == before


@pytest.mark.usefixtures("no_faults")
class TestWait:
    @pytest.fixture(autouse=True)
    def lease_seconds(self, monkeypatch):
        monkeypatch.setattr(settings, "LEASE_SECONDS", 1.0)
        monkeypatch.setattr(settings, "LEASE_POLL_SECONDS", 0.25)

    async def test_ends_when_lease_is_free(self, fake, cache, clock):
        checked = []

        def expect():
            checked.append(fake.taken)
            fake.taken = len(checked) < 3

        fake.taken = True
        with cache.lease(KEY) as lease:
            await lease.wait(None, expect)
            assert fake.leases == [KEY]
        assert clock.slept == [0.25] * 3
        assert checked == [True, True, True]

    async def test_ends_after_lease_seconds(self, fake, cache, clock):
        fake.taken = True
        with cache.lease(KEY) as lease:
            await lease.wait(None, lambda: None)
        assert clock.slept == [0.25] * 4

    async def test_ends_at_deadline(self, fake, cache, clock):
        fake.taken = True
        with cache.lease(KEY) as lease:
            with pytest.raises(DeadlineExceededError) as raised:
                await lease.wait(0.5, lambda: None)
        assert str(raised.value).startswith(
            "No answer within the deadline of 0.5 s: another process asks for it."
        )
        assert clock.slept == [0.25] * 2

    async def test_raises_what_expect_raises(self, fake, cache, clock):
        def expect():
            raise KeyError("closed")

        with cache.lease(KEY) as lease:
            with pytest.raises(KeyError):
                await lease.wait(None, expect)
        assert clock.slept == [0.25]
        assert fake.calls == []
