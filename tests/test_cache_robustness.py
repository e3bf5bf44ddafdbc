"""The cache under damage, full disks, killed processes and crowds: no wrong answer, no exception."""

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from claude_force.cache.repair import rebuild
from claude_force.response_cache import ResponseCache
from claude_force.storage.locks import SharedCounter

ROOT = Path(__file__).parent.parent
SECRET = "a secret of the tests"
FILE = "answers-1.db"


def answer(number):
    return f"the answer to {number}. " * 20


def opened(folder, **options):
    return ResponseCache(**{"cache_secret": SECRET, "cache_dir": folder, **options})


def fill(folder, count, **options):
    with opened(folder, **options) as cache:
        for number in range(count):
            assert cache.set("agent", str(number), "model", answer(number))
    return folder / FILE


def found(cache, count):
    """How many of the answers are there; those that are have to be right."""
    right = 0
    for number in range(count):
        hit = cache.get("agent", str(number), "model")
        if hit is not None:
            assert hit["response"] == answer(number)
            right += 1
    return right


def script(source, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **options)


def restored(folder, whole):
    """The folder with nothing in it but the file that was."""
    for leftover in folder.glob("answers*"):
        leftover.unlink()
    (folder / FILE).write_bytes(whole)


class TestDamage:
    def test_no_flipped_bit_changes_an_answer(self, tmp_path, soak):
        path = fill(tmp_path / "cache", 6)
        whole = path.read_bytes()
        bits = range(len(whole) * 8)
        for bit in bits if soak else random.Random(1).sample(bits, 300):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            restored(path.parent, damaged)
            with opened(path.parent) as cache:
                found(cache, 6)
                assert cache.set("agent", "new", "model", "fresh")
                assert cache.get("agent", "new", "model")["response"] == "fresh"

    def test_random_damage_of_a_large_store(self, tmp_path, soak):
        count = 400
        path = fill(tmp_path / "cache", count)
        whole = path.read_bytes()
        chance = random.Random(2)
        for _ in range(3000 if soak else 40):
            damaged = bytearray(whole)
            for _ in range(chance.randrange(1, 4)):
                start = chance.randrange(100, len(whole))
                length = chance.choice((1, 16, 512, 4096))
                for position in range(start, min(start + length, len(whole))):
                    damaged[position] = chance.randrange(256)
            restored(path.parent, damaged)
            with opened(path.parent) as cache:
                found(cache, count)
                assert cache.set("agent", "new", "model", "fresh")

    def test_page_of_noise(self, tmp_path):
        path = fill(tmp_path / "cache", 400)
        damaged = bytearray(path.read_bytes())
        middle = len(damaged) // 2 // 4096 * 4096
        damaged[middle : middle + 4096] = b"\xa5" * 4096
        path.write_bytes(damaged)
        with opened(path.parent) as cache:
            assert found(cache, 400) > 300

    @pytest.mark.parametrize(
        "damage",
        [
            lambda whole: whole[: len(whole) // 2],
            lambda whole: bytes(100) + whole[100:],
            lambda whole: b"SQLite format 3\0" + bytes(4080),
            lambda whole: b"no database at all" * 1000,
            lambda whole: b"",
            lambda whole: whole[:4096],
        ],
        ids=["half", "no header", "an empty header", "noise", "nothing", "one page"],
    )
    def test_after_it_the_cache_works_on(self, tmp_path, damage):
        path = fill(tmp_path / "cache", 100)
        path.write_bytes(damage(path.read_bytes()))
        with opened(path.parent) as cache:
            found(cache, 100)
            assert cache.set("agent", "new", "model", "fresh")
        with opened(path.parent) as cache:
            assert cache.get("agent", "new", "model")["response"] == "fresh"

    def test_half_a_file_still_has_answers(self, tmp_path):
        path = fill(tmp_path / "cache", 400)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 4096 // 2 * 4096])
        with opened(path.parent) as cache:
            assert found(cache, 400) > 100

    def test_lost_write_ahead_log(self, tmp_path):
        path = fill(tmp_path / "cache", 100)
        writer = script(
            f"""
            import os, sys
            sys.path.insert(0, {str(ROOT / "tests")!r})
            from test_cache_robustness import answer, opened
            from pathlib import Path
            cache = opened(Path(sys.argv[1]))
            for number in range(100, 110):
                cache.set("agent", str(number), "model", answer(number))
            os._exit(0)
            """,
            path.parent,
        )
        assert writer.wait(timeout=60) == 0
        writer.stdout.close()
        (path.parent / f"{FILE}-wal").unlink()
        with opened(path.parent) as cache:
            assert found(cache, 110) >= 100
            assert cache.set("agent", "new", "model", "fresh")

    def test_damage_under_an_open_cache(self, tmp_path):
        path = fill(tmp_path / "cache", 100)
        with opened(path.parent) as cache:
            assert found(cache, 1) == 1
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * 40960)
            found(cache, 100)
            assert cache.set("agent", "new", "model", "fresh")
            assert cache.get("agent", "new", "model")["response"] == "fresh"

    def test_processes_move_to_rebuilt_file(self, tmp_path):
        path = fill(tmp_path / "cache", 50)
        with opened(path.parent) as before, opened(path.parent) as mender:
            found(before, 50)
            whole = bytearray(path.read_bytes())
            whole[: len(whole) // 2] = bytes(len(whole) // 2)
            path.write_bytes(whole)
            mender.get("agent", "0", "other model")
            assert list(path.parent.glob("*.damaged-*"))
            assert before.set("agent", "new", "model", "fresh")
            assert mender.get("agent", "new", "model")["response"] == "fresh"

    def test_keeps_newest_damaged_file(self, tmp_path):
        path = fill(tmp_path / "cache", 5)
        for _ in range(3):
            path.write_bytes(b"no database at all" * 100)
            with opened(path.parent) as cache:
                cache.set("agent", "new", "model", "fresh")
        assert len(list(path.parent.glob("*.damaged-*"))) == 1

    def test_folder_as_cache_file_is_a_miss(self, tmp_path):
        path = fill(tmp_path / "cache", 5)
        for leftover in path.parent.glob("answers*"):
            leftover.unlink()
        path.mkdir()
        with opened(path.parent) as cache:
            assert found(cache, 5) == 0
            assert cache.set("agent", "new", "model", "fresh") is False

    def test_a_folder_that_vanishes_is_no_error(self, tmp_path):
        path = fill(tmp_path / "cache", 5)
        with opened(path.parent) as cache:
            shutil.rmtree(path.parent)
            found(cache, 5)
            cache.set("agent", "new", "model", "fresh")
        with opened(path.parent) as cache:
            assert cache.set("agent", "new", "model", "fresh")


class TestDisk:
    def test_failed_rebuild_leaves_nothing(self, tmp_path):
        path = fill(tmp_path / "cache", 5)

        def judge(sealed):
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            rebuild(path, judge)
        assert not list(path.parent.glob("*.mending*"))
        assert path.exists()

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system can't give a file its place")
    def test_shared_counter_is_allocated(self, tmp_path):
        # Written to a page without one, on a full disk, it would end the process.
        SharedCounter(tmp_path / "generation")
        assert (tmp_path / "generation").stat().st_blocks > 0

    def test_full_disk(self, tmp_path):
        folder = tmp_path / "cache"
        fill(folder, 20)
        writer = script(
            f"""
            import resource, signal, sys
            sys.path.insert(0, {str(ROOT / "tests")!r})
            from test_cache_robustness import *
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            with opened(Path(sys.argv[1])) as cache:
                kept = [cache.set("agent", f"big {{n}}", "model", "x" * 20_000) for n in range(40)]
                assert True in kept and False in kept, kept
                assert found(cache, 20) == 20
            """,
            folder,
        )
        assert writer.wait(timeout=60) == 0
        writer.stdout.close()
        with opened(folder) as cache:
            assert found(cache, 20) == 20
            assert cache.set("agent", "new", "model", "fresh")

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
    def test_read_only_folder(self, tmp_path):
        folder = Path("/tmp") / f"claude-force-test-{os.getpid()}"
        try:
            fill(folder, 5)
            for path in (folder, *folder.iterdir()):
                os.chown(path, 65534, 65534)
                path.chmod(0o500 if path.is_dir() else 0o400)
            reader = script(
                f"""
                import os, sys
                sys.path.insert(0, {str(ROOT / "tests")!r})
                from test_cache_robustness import *
                import claude_force.cache.store
                folder = Path(sys.argv[1])
                os.chmod = lambda *_, **__: None
                os.setuid(65534)
                cache = opened(folder)
                Path.chmod(folder, 0o500)
                found(cache, 5)
                assert cache.set("agent", "new", "model", "fresh") is False
                cache.close()
                """,
                folder,
                cwd="/",
            )
            assert reader.wait(timeout=60) == 0
            reader.stdout.close()
        finally:
            shutil.rmtree(folder)

    def test_falls_back_to_a_journal(self, tmp_path, caplog, monkeypatch):
        connect = sqlite3.connect

        def without_shared_memory(path, **options):
            # SQLite's file system for network folders.
            return connect(f"file:{path}?vfs=unix-dotfile", uri=True, **options)

        monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
        folder = tmp_path / "cache"
        with opened(folder) as cache:
            assert cache.set("agent", "1", "model", answer(1))
            assert "rollback journal" in caplog.text
        with opened(folder) as cache:
            assert found(cache, 2) == 1
        db = connect(str(folder / FILE))
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        db.close()


WRITER = f"""
import itertools, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_cache_robustness import *
cache = opened(Path(sys.argv[1]))
for number in itertools.count(int(sys.argv[2])):
    assert cache.set("agent", str(number), "model", answer(number))
    print(number, flush=True)
"""


class TestProcesses:
    def test_killed_writer_loses_nothing(self, tmp_path, soak):
        folder = tmp_path / "cache"
        chance, kept = random.Random(3), 0
        for _ in range(200 if soak else 8):
            writer = script(WRITER, folder, kept)
            for _ in range(chance.randrange(1, 60)):
                kept = int(writer.stdout.readline()) + 1
            time.sleep(chance.random() * 0.01)
            writer.kill()
            kept = max([kept, *(int(line) + 1 for line in writer.stdout.read().split(b"\n")[:-1])])
            writer.wait()
            writer.stdout.close()
            with opened(folder) as cache:
                assert found(cache, kept) == kept
                assert cache.verify()["unreadable"] == cache.verify()["forged"] == 0
        assert not list(folder.glob("*.damaged-*"))

    def test_processes_open_a_new_store(self, tmp_path, soak):
        source = f"""
            import sys
            sys.path.insert(0, {str(ROOT / "tests")!r})
            from test_cache_robustness import *
            folders = sys.argv[2:]
            for folder in folders:
                with ResponseCache(cache_dir=folder) as cache:
                    assert cache.set("agent", sys.argv[1], "model", sys.argv[1])
        """
        folders = [tmp_path / f"cache-{number}" for number in range(40 if soak else 10)]
        crowd = [script(source, number, *folders) for number in range(8)]
        assert [process.wait(timeout=120) for process in crowd] == [0] * 8
        for process in crowd:
            process.stdout.close()
        for folder in folders:
            with ResponseCache(cache_dir=folder) as cache:
                hits = [cache.get("agent", str(number), "model") for number in range(8)]
                assert [hit["response"] for hit in hits] == [str(number) for number in range(8)]

    def test_processes_keep_the_bound(self, tmp_path, soak):
        source = f"""
            import sys
            sys.path.insert(0, {str(ROOT / "tests")!r})
            from test_cache_robustness import *
            chance, end = random.Random(sys.argv[2]), time.monotonic() + float(sys.argv[3])
            turn = 0
            with opened(Path(sys.argv[1]), max_size_mb=2) as cache:
                # More than fits, on a slow machine too.
                while turn < 1500 or time.monotonic() < end:
                    turn += 1
                    number = chance.randrange(2000)
                    action = chance.random()
                    if action < 0.5:
                        assert cache.set("agent", str(number), "model", answer(number) * 4)
                    elif action < 0.98:
                        hit = cache.get("agent", str(number), "model")
                        assert hit is None or hit["response"] == answer(number) * 4
                    else:
                        cache.delete("agent", str(number), "model")
                print(cache.get_stats()["evictions"])
        """
        folder = tmp_path / "cache"
        crowd = [script(source, folder, number, 60 if soak else 2) for number in range(4)]
        most = 0
        while any(process.poll() is None for process in crowd):
            most = max(most, size_of(folder))
            time.sleep(0.01)
        assert [process.returncode for process in crowd] == [0] * 4
        assert sum(int(process.communicate()[0]) for process in crowd) > 0
        assert most <= 1.5 * 2 * 2**20

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_forked_children_share_it(self, tmp_path):
        folder = tmp_path / "cache"
        with opened(folder) as cache:
            cache.set("agent", "0", "model", answer(0))
            children = []
            for number in range(1, 5):
                child = os.fork()
                if child == 0:
                    good = found(cache, 1) == 1 and cache.set("agent", str(number), "model", answer(number))
                    cache.close()
                    os._exit(0 if good else 1)
                children.append(child)
            assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
            assert found(cache, 5) == 5
            assert cache.set("agent", "5", "model", answer(5))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_lease_ends_with_its_process(self, tmp_path):
        asked = ("agent", "task", "model")
        with opened(tmp_path / "cache") as cache, opened(tmp_path / "cache") as same_process:
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(writing, b"1" if cache.acquire_lease(*asked) else b"0")
                time.sleep(60)
                os._exit(0)
            assert os.read(reading, 1) == b"1"
            assert not cache.acquire_lease(*asked)
            os.kill(child, 9)
            os.waitpid(child, 0)
            assert cache.acquire_lease(*asked)
            assert not same_process.acquire_lease(*asked)
            assert cache.acquire_lease("agent", "another task", "model")
            cache.release_lease(*asked)
            assert same_process.acquire_lease(*asked)
            same_process.release_lease(*asked)
            os.close(reading)
            os.close(writing)


def size_of(folder):
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
