"""A damaged store file is noticed when it is opened and rebuilt, and what is set afterwards is there."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from test_cache_robustness import FILE, ROOT, opened, restored

PAGE = 4096
COUNT = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a store of 60 answers of some 4 KB, with free pages."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    with opened(folder) as cache:
        for number in range(COUNT + 10):
            cache.set("agent", str(number), "model", text(number))
        for number in range(COUNT, COUNT + 10):
            cache.delete("agent", str(number), "model")
    return (folder / FILE).read_bytes()


def text(number):
    return f"the answer to {number}. " * 200


def hits(folder):
    """How many answers are there; those that are have to be right."""
    with opened(folder) as cache:
        all_found = [cache.get("agent", str(number), "model") for number in range(COUNT)]
    assert all(hit is None or hit["response"] == text(number) for number, hit in enumerate(all_found))
    return sum(hit is not None for hit in all_found)


def keeps_what_is_set(folder):
    """Whether what is set after the damage is there, in this process, in the next one, and the time after."""
    for number in range(3):
        with opened(folder) as cache:
            cache.set("agent", f"new {number}", "model", text(number))
            cache.set("agent", "again", "model", text(number))
        with opened(folder) as cache:
            for before in range(number + 1):
                hit = cache.get("agent", f"new {before}", "model")
                assert hit is not None and hit["response"] == text(before)
            assert cache.get("agent", "again", "model")["response"] == text(number)
            assert cache.get_stats()["integrity_failures"] == 0
    return True


@pytest.fixture
def folder(tmp_path):
    with opened(tmp_path / "cache") as cache:
        cache.set("agent", "0", "model", "x")
    return tmp_path / "cache"


class TestTruncated:
    def test_lost_last_1000_bytes(self, folder, whole):
        restored(folder, whole[:-1000])
        assert hits(folder) >= COUNT - 2
        assert list(folder.glob("*.damaged-*"))
        assert keeps_what_is_set(folder)

    def test_any_length_of_the_last_page(self, folder, whole, soak):
        lengths = range(1, PAGE) if soak else random.Random(29).sample(range(1, PAGE), 12)
        for lost in lengths:
            restored(folder, whole[:-lost])
            assert hits(folder) >= COUNT - 2, lost
            with opened(folder) as cache:
                assert cache.set("agent", "new", "model", "fresh")
            with opened(folder) as cache:
                assert cache.get("agent", "new", "model")["response"] == "fresh", lost

    @pytest.mark.parametrize("pages", [1, 2, 7, 30])
    def test_whole_pages_are_missing(self, folder, whole, pages):
        restored(folder, whole[: -pages * PAGE])
        assert hits(folder) >= COUNT - 2 * pages
        assert list(folder.glob("*.damaged-*"))
        assert keeps_what_is_set(folder)

    def test_something_is_appended(self, folder, whole):
        restored(folder, whole + b"\xa5" * 100)
        assert hits(folder) == COUNT
        assert keeps_what_is_set(folder)

    def test_says_so_once(self, folder, whole, caplog):
        restored(folder, whole[:-1000])
        hits(folder)
        hits(folder)
        assert caplog.text.count("was damaged") == 1


class TestHeader:
    @pytest.mark.parametrize("at", [0, 15, 16, 17, 18, 20, 21, 24, 28, 31, 32, 36, 40, 47, 59, 92, 96])
    def test_damaged_byte_costs_no_answer(self, folder, whole, at):
        damaged = bytearray(whole)
        damaged[at] ^= 0x85
        restored(folder, damaged)
        assert hits(folder) == COUNT
        assert keeps_what_is_set(folder)

    @pytest.mark.parametrize("size", [16, 100])
    def test_no_header_costs_no_answer(self, folder, whole, size):
        restored(folder, bytes(size) + whole[size:])
        assert hits(folder) == COUNT
        assert keeps_what_is_set(folder)
        assert not list(folder.glob("*.salvage*"))


class TestFreePages:
    def test_list_that_names_pages_in_use(self, folder, whole):
        trunk = (int.from_bytes(whole[32:36], "big") - 1) * PAGE
        entries = int.from_bytes(whole[trunk + 4 : trunk + 8], "big")
        assert entries > 3
        damaged = bytearray(whole)
        for slot in range(entries):
            at = trunk + 8 + 4 * slot
            damaged[at : at + 4] = (5 + slot).to_bytes(4, "big")
        restored(folder, damaged)
        assert hits(folder) == COUNT
        # This takes the pages that answers are on; what is lost is noticed, and ends the loss.
        with opened(folder) as cache:
            for number in range(4):
                cache.set("agent", f"more {number}", "model", text(number))
        hits(folder)
        assert list(folder.glob("*.damaged-*"))
        assert keeps_what_is_set(folder)

    @pytest.mark.parametrize("noise", [b"\0", b"\xff"])
    def test_list_that_is_none(self, folder, whole, noise):
        trunk = (int.from_bytes(whole[32:36], "big") - 1) * PAGE
        restored(folder, whole[:trunk] + noise * PAGE + whole[trunk + PAGE :])
        assert hits(folder) == COUNT
        assert keeps_what_is_set(folder)


class TestLog:
    @pytest.fixture
    def unclosed(self, folder, whole):
        """A store whose last writer was killed: its newest answers are in the write-ahead log alone."""
        restored(folder, whole)
        source = f"""
import os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from test_cache_damage import opened, text
cache = opened(Path(sys.argv[1]))
for number in range(20):
    cache.set("agent", f"late {{number}}", "model", text(number))
os._exit(0)
"""
        subprocess.run([sys.executable, "-c", source, str(folder)], check=True, timeout=60)
        assert (folder / f"{FILE}-wal").stat().st_size > 20 * PAGE
        return folder

    def late(self, folder):
        with opened(folder) as cache:
            return sum(cache.get("agent", f"late {number}", "model") is not None for number in range(20))

    def test_whole_log_is_no_damage(self, unclosed):
        assert (self.late(unclosed), hits(unclosed)) == (20, COUNT)
        assert not list(unclosed.glob("*.damaged-*"))

    def test_damaged_log(self, unclosed, soak):
        log = unclosed / f"{FILE}-wal"
        content = log.read_bytes()
        for at in random.Random(29).sample(range(len(content)), 200 if soak else 6):
            damaged = bytearray(content)
            damaged[at] ^= 0xFF
            log.write_bytes(damaged)
            assert hits(unclosed) == COUNT
            with opened(unclosed) as cache:
                assert cache.set("agent", "new", "model", "fresh")
            with opened(unclosed) as cache:
                assert cache.get("agent", "new", "model")["response"] == "fresh"

    @pytest.mark.parametrize("lost", [1000, PAGE, 5 * PAGE])
    def test_shorter_file_beside_a_log(self, unclosed, lost):
        path = unclosed / FILE
        path.write_bytes(path.read_bytes()[:-lost])
        self.late(unclosed)
        assert hits(unclosed) >= COUNT - 2 - 2 * (lost // PAGE)
        assert keeps_what_is_set(unclosed)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what is read by Linux's own figures")
def test_opening_takes_constant_time(tmp_path):
    def read(folder):
        before = counted()
        with opened(folder) as cache:
            cache.get("agent", "0", "model")
        return counted() - before

    def counted():
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("rchar")).split()[1])

    for name, count in (("small", 1), ("large", 3000)):
        with opened(tmp_path / name) as cache:
            cache.set_many(
                {"agent": "agent", "task": str(number), "model": "model", "response": text(number)}
                for number in range(count)
            )
    assert (tmp_path / "large" / FILE).stat().st_size > 10_000_000
    read(tmp_path / "small")
    assert read(tmp_path / "large") < read(tmp_path / "small") + 64 * 1024
