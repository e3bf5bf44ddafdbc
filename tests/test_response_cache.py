"""The cache: answers are neither stale nor forged, its faults fail no call, and its size is bounded."""

import hashlib
import hmac
import json
import logging
import os
import sqlite3
import stat
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.cache.entries import (
    NO_FINGERPRINT,
    CacheEntry,
    is_signed_by,
    key_of,
    seal,
    seal_if_fits,
    to_entry,
    to_hit,
    unseal,
)
from claude_force.cache.legacy import arguments_of
from claude_force.cache.memory import MemoryLayer
from claude_force.cache.request_key import encode, field_checksums, key_digest, key_fields
from claude_force.errors import CacheError
from claude_force.response_cache import ResponseCache
from claude_force.storage.signing import Secret, find_secret

ASKED = ("python-expert", "What are decorators?", "claude-sonnet-5-5")
SECRET = "a secret of the tests"


class Hours:
    """A clock in hours, read in seconds."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now * 3600


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(folder):
    with ResponseCache(cache_secret=SECRET, cache_dir=folder) as opened:
        yield opened


def again(folder, **options):
    """The same folder as another process would see it: nothing in memory."""
    return ResponseCache(**{"cache_secret": SECRET, "cache_dir": folder, **options})


def database(folder):
    return sqlite3.connect(str(folder / "answers-1.db"))


@contextmanager
def change(folder, agent):
    """The one entry of `agent` as it lies in the file, to be changed in place."""
    db = database(folder)
    row, sealed = db.execute(
        "SELECT row, sealed FROM answer JOIN use USING (row) WHERE agent = ?", (agent,)
    ).fetchone()
    changed = bytearray(sealed)
    yield changed
    db.execute("UPDATE answer SET sealed = ? WHERE row = ?", (bytes(changed), row))
    db.commit()
    db.close()


class TestKey:
    def test_has_32_hex_characters(self):
        assert len(key_digest(key_fields(*ASKED, {})).hex()) == 32

    @given(st.lists(st.text(), max_size=6), st.lists(st.text(), max_size=6))
    def test_encoding_is_unambiguous(self, one, other):
        assert (encode(one) == encode(other)) == (one == other)

    def test_colon_is_no_boundary(self):
        assert key_digest(key_fields("x:y", "z", "m", {})) != key_digest(key_fields("x", "y:z", "m", {}))

    @given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.randoms())
    def test_fingerprint_has_no_order(self, fields, chance):
        shuffled = list(fields.items())
        chance.shuffle(shuffled)
        assert key_fields("a", "t", "m", fields) == key_fields("a", "t", "m", dict(shuffled))

    def test_fields_stay_apart(self):
        assert key_digest(key_fields("a", "t", "m", {"agent": "b"})) != key_digest(
            key_fields("b", "t", "m", {})
        )

    def test_key_is_stable(self):
        texts = b"1:a1:t1:m10:definition1:d8:endpoint2:\xc3\xa9e"
        kept = key_digest(key_fields("a", "t", "m", {"endpoint": "\xe9e", "definition": "d"}))
        assert kept == hashlib.sha256(texts).digest()[:16]

    def test_key_of_half_a_surrogate(self):
        one, other = (key_fields("a", half, "m", {"f": half}) for half in ("\ud800", "\udc00"))
        assert key_digest(one) != key_digest(other)
        assert field_checksums(one) != field_checksums(other)

    def test_checksums_by_field(self):
        one = field_checksums(key_fields("a", "t", "m", {"endpoint": "e"}))
        assert one == {name: zlib.crc32(name[:1].encode()) for name in ("agent", "task", "model", "endpoint")}


TEXT = st.text(st.characters(), max_size=20)
ENTRIES = st.builds(
    CacheEntry,
    st.binary(min_size=16, max_size=16),
    st.floats(0, 1e11),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.none() | st.floats(0, 1e6),
    st.binary(max_size=20),
    TEXT,
    TEXT,
)
OWN, OTHER = Secret(b"s"), Secret(b"t")


class TestSignature:
    @given(ENTRIES)
    def test_what_was_sealed_is_unsealed(self, entry):
        assert unseal(seal(entry, OWN), entry.key, OWN) == entry

    @given(ENTRIES, ENTRIES)
    def test_no_two_entries_are_sealed_alike(self, one, other):
        assert (seal(one, OWN) == seal(other, OWN)) == (one == other)

    @given(ENTRIES, st.data())
    def test_any_changed_bit_breaks_it(self, entry, data):
        sealed = bytearray(seal(entry, OWN))
        bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
        sealed[bit // 8] ^= 1 << bit % 8
        assert not is_signed_by(bytes(sealed), OWN) or unseal(bytes(sealed), entry.key, OWN) is None

    @given(ENTRIES, st.integers(0, 300))
    def test_any_cut_breaks_it(self, entry, length):
        sealed = seal(entry, OWN)
        if length < len(sealed):
            assert not is_signed_by(sealed[:length], OWN) or unseal(sealed[:length], entry.key, OWN) is None

    @given(ENTRIES, st.binary(min_size=16, max_size=16))
    def test_copy_under_another_key(self, entry, key):
        if key != entry.key:
            assert unseal(seal(entry, OWN), key, OWN) is None

    @given(ENTRIES)
    def test_signed_by_another_secret(self, entry):
        sealed = seal(entry, OWN)
        assert unseal(sealed, entry.key, OTHER) is None
        assert is_signed_by(sealed, OWN)
        assert not is_signed_by(sealed, OTHER)

    @pytest.mark.parametrize("cost", [None, 0.0, 0.25])
    def test_entry_format_is_stable(self, cost):
        entry = CacheEntry(b"k" * 16, 1.5, 2, 3, cost, b"about", "\xe9", "\ud800!")
        signed = b"\x01" + b"k" * 16 + struct.pack(">dQQd?", 1.5, 2, 3, cost or 0.0, cost is not None)
        signed += struct.pack(">3I", 5, 2, 4) + b"about" + b"\xc3\xa9" + b"\xed\xa0\x80!"
        identity = hmac.new(b"s", b"claude-force cache secret", hashlib.sha256).digest()[:8]
        kept = identity + hmac.new(b"s", signed, hashlib.sha256).digest() + signed
        assert seal(entry, OWN) == kept
        assert unseal(kept, entry.key, OWN) == entry

    def test_texts_of_any_kind(self):
        empty = CacheEntry(b"k" * 16, 0.0, 0, 0, None, b"", "", "")
        assert unseal(seal(empty, OWN), empty.key, OWN) == empty
        half = empty._replace(extra="\ud800", response="\udc00")
        assert unseal(seal(half, OWN), half.key, OWN) == half

    def test_signed_but_no_entry(self):
        signed = seal(CacheEntry(b"k" * 16, 0.0, 0, 0, None, b"", "", ""), OWN)[40:]
        for other in (b"\x02" + signed[1:], b"\x00" + signed[1:], signed[:-1], b""):
            assert unseal(OWN.id + OWN.sign(other) + other, b"k" * 16, OWN) is None

    def test_key_of_unverified_entry(self):
        sealed = seal(CacheEntry(b"k" * 16, 0.0, 0, 0, None, b"", "", ""), OWN)
        assert key_of(sealed) == b"k" * 16
        assert key_of(sealed[:-1]) == key_of(b"") == b""
        assert not is_signed_by(sealed.decode("latin-1"), OWN)


class TestEntry:
    def test_fields(self):
        fields, entry = to_entry(1.5, "a", "t", "m", "r")
        about = json.dumps(["a", "m", field_checksums(fields)]).encode()
        assert entry == CacheEntry(key_digest(fields), 1.5, 0, 0, None, about, "", "r")
        assert fields == key_fields("a", "t", "m", NO_FINGERPRINT)
        assert to_hit(entry, -1.0, 2) == {
            "response": "r",
            "input_tokens": 0,
            "output_tokens": 0,
            "estimated_cost": None,
            "cached": True,
            "cache_age_seconds": 0.0,
            "hit_count": 2,
        }

    def test_extra(self):
        _, entry = to_entry(1.0, "a", "t", "m", "r", 1, 2, 0.5, {"f": "x"}, {"more": [1]})
        hits = [to_hit(entry, 3.0, 1) for _ in range(2)]
        assert to_hit(entry, 0.5, 1)["cache_age_seconds"] == 0.5
        hits[0]["more"].append(2)
        assert hits[1]["more"] == [1]
        assert (entry.input_tokens, entry.output_tokens, entry.cost, entry.extra) == (
            1,
            2,
            0.5,
            '{"more": [1]}',
        )

    def test_known_key(self):
        assert to_entry(1.0, "a", "t", "m", "r", key_of=lambda fields: b"k" * 16)[1].key == b"k" * 16

    def test_old_spelling(self):
        given = {"agent": "a", "task": "t"}
        assert arguments_of(given) == {"agent_name": "a", "task": "t"}
        assert given == {"agent": "a", "task": "t"}
        assert arguments_of({"agent_name": "a", "task": "t"}) == {"agent_name": "a", "task": "t"}

    def test_size_is_bounded(self, caplog):
        _, entry = to_entry(1.0, "a", "t", "m", "r" * 100)
        size = len(seal(entry, OWN))
        assert seal_if_fits(entry, OWN, size) == seal(entry, OWN)
        with caplog.at_level(logging.INFO, "claude_force.cache.entries"):
            assert seal_if_fits(entry, OWN, size - 1) is None
        assert [(one.name, one.getMessage()) for one in caplog.records] == [
            ("claude_force.cache.entries", f"an answer of {size} bytes is too large for the cache")
        ]

    def test_counts_make_sense(self, caplog):
        _, entry = to_entry(1.0, "a", "t", "m", "r", input_tokens=-1)
        with pytest.raises(struct.error) as caught:
            seal(entry, OWN)
        assert seal_if_fits(entry, OWN, 1000) is None
        assert caplog.messages == [f"an answer is not cached, its counts make no sense: {caught.value}"]


class TestMemory:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=60))
    def test_memory_size_is_exact(self, steps):
        layer = MemoryLayer(100)
        sizes = {}
        for key, size in steps:
            layer.put(key, key, size)
            sizes[key] = size
            held = [one for one in sizes if layer.get(one) is not None]
            assert layer.size == sum(sizes[one] for one in held) <= 100
            assert layer.get(key) == key

    def test_memory_evicts_least_recent(self):
        layer = MemoryLayer(2)
        layer.put("a", 1, 1)
        layer.put("b", 2, 1)
        layer.get("a")
        layer.put("c", 3, 1)
        assert [layer.get(key) for key in "abc"] == [1, None, 3]

    def test_oversized_value_evicts_nothing(self):
        layer = MemoryLayer(2)
        for key in "ab":
            layer.put(key, 1, 1)
        layer.put("b", 2, 3)
        assert ([layer.get(key) for key in "ab"], layer.size) == ([1, None], 1)


class TestHit:
    def test_has_the_fields_of_the_contract(self, cache):
        cache.set(*ASKED, "They wrap.", input_tokens=100, output_tokens=50, estimated_cost=0.001)
        hit = cache.get(*ASKED)
        assert hit.pop("cache_age_seconds") >= 0
        assert hit == {
            "response": "They wrap.",
            "input_tokens": 100,
            "output_tokens": 50,
            "estimated_cost": 0.001,
            "cached": True,
            "hit_count": 1,
        }

    @pytest.mark.parametrize("text", ["", "\U0001f40d\u2028\0", "half \ud800", "x" * 100_000])
    def test_gives_the_text_back_as_it_was(self, cache, folder, text):
        cache.set(*ASKED, text)
        assert cache.get(*ASKED)["response"] == text
        with again(folder) as other:
            assert other.get(*ASKED)["response"] == text

    def test_an_unknown_price_stays_unknown(self, cache):
        cache.set(*ASKED, "x")
        assert cache.get(*ASKED)["estimated_cost"] is None

    def test_hits_are_independent(self, cache):
        cache.set(*ASKED, "x")
        cache.get(*ASKED)["response"] = "changed"
        assert cache.get(*ASKED)["response"] == "x"

    def test_counts_hits_across_restarts(self, cache, folder):
        cache.set(*ASKED, "x")
        cache.get(*ASKED)
        cache.get(*ASKED)
        cache.close()
        with again(folder) as other:
            assert other.get(*ASKED)["hit_count"] == 3

    def test_fingerprint_is_part_of_key(self, cache):
        cache.set(*ASKED, "old", fingerprint={"definition": "before"})
        assert cache.get(*ASKED, fingerprint={"definition": "after"}) is None
        assert cache.get(*ASKED) is None

    def test_expires_on_time(self, folder):
        clock = Hours()
        with again(folder, ttl_hours=24, clock=clock) as cache:
            cache.set(*ASKED, "x")
            clock.now += 23.9
            assert cache.get(*ASKED)["cache_age_seconds"] == pytest.approx(23.9 * 3600)
            clock.now += 0.1
            assert cache.get(*ASKED) is None
        with again(folder, clock=clock) as other:
            assert other.get(*ASKED) is None

    def test_excludes_agents(self, folder):
        with again(folder, exclude_agents=["python-expert"]) as cache:
            assert cache.set(*ASKED, "x") is False
            assert cache.get(*ASKED) is None

    def test_switched_off_it_writes_nothing(self, folder):
        with ResponseCache(cache_dir=folder, enabled=False) as cache:
            assert cache.set(*ASKED, "x") is False
            assert cache.get(*ASKED) is None
        assert not folder.exists()


class TestForgery:
    @pytest.mark.parametrize("position", [8, 40, 41, 60, -1])
    def test_changed_entry_is_removed(self, cache, folder, position, caplog):
        cache.set(*ASKED, "x", 1, 2, 0.5)
        cache.set("other", "task", "model", "y")
        cache.close()
        with change(folder, "python-expert") as sealed:
            sealed[position] ^= 1
        with again(folder) as other, caplog.at_level(logging.WARNING):
            assert other.get(*ASKED) is None
            assert other.get("other", "task", "model")["response"] == "y"
            assert (other.get_stats()["integrity_failures"], other.get_stats()["entries"]) == (1, 1)
        assert "a cache entry whose signature does not hold was removed" in caplog.messages

    @pytest.mark.parametrize("value", [None, "text", 7, b"", b"short"])
    def test_what_is_no_entry_at_all_is_a_miss(self, cache, folder, value):
        cache.set(*ASKED, "x")
        cache.close()
        with database(folder) as db:
            db.execute("PRAGMA ignore_check_constraints=1")
            db.execute("CREATE TABLE copy (row INTEGER PRIMARY KEY, sealed)")
            db.execute("INSERT INTO copy SELECT row, ? FROM answer", (value,))
            db.execute("DROP TABLE answer")
            db.execute("ALTER TABLE copy RENAME TO answer")
        db.close()
        with again(folder) as other:
            assert other.get(*ASKED) is None
            assert other.set(*ASKED, "y")
            assert other.get(*ASKED)["response"] == "y"

    def test_two_swapped_rows_are_two_misses(self, cache, folder):
        cache.set("a", "t", "m", "for a")
        cache.set("b", "t", "m", "for b")
        cache.close()
        with database(folder) as db:
            (one, row), (other_one, other_row) = db.execute("SELECT id, row FROM use").fetchall()
            db.execute("UPDATE use SET row = ? WHERE id = ?", (other_row, one))
            db.execute("UPDATE use SET row = ? WHERE id = ?", (row, other_one))
        db.close()
        with again(folder) as other:
            assert other.get("a", "t", "m") is None
            assert other.get("b", "t", "m") is None

    def test_copied_row_is_a_miss(self, cache, folder):
        cache.set("a", "t", "m", "for a")
        cache.set("b", "t", "m", "for b")
        cache.close()
        with database(folder) as db:
            query = "SELECT sealed FROM answer JOIN use USING (row) WHERE agent = 'a'"
            db.execute(f"UPDATE answer SET sealed = ({query})")
        db.close()
        with again(folder) as other:
            assert other.get("b", "t", "m") is None
            assert other.get("a", "t", "m")["response"] == "for a"

    def test_restored_old_row_is_expired(self, folder):
        clock = Hours()
        with again(folder, clock=clock) as cache:
            cache.set(*ASKED, "old")
        with database(folder) as db:
            (old,) = db.execute("SELECT sealed FROM answer").fetchone()
        db.close()
        clock.now += 30
        with again(folder, clock=clock) as cache:
            cache.set(*ASKED, "new")
        with database(folder) as db:
            db.execute("UPDATE answer SET sealed = ?", (old,))
        db.close()
        with again(folder, clock=clock) as cache:
            assert cache.get(*ASKED) is None

    def test_new_secret_makes_misses(self, cache, folder):
        cache.set(*ASKED, "x")
        cache.close()
        with again(folder, cache_secret="another secret") as other:
            assert other.get(*ASKED) is None
            assert other.get_stats()["integrity_failures"] == 0
        with again(folder) as owner:
            assert owner.get(*ASKED)["response"] == "x"

    def test_random_bytes_in_the_file(self, cache, folder):
        tasks = [f"task {number}" for number in range(50)]
        for task in tasks:
            cache.set("a", task, "m", f"answer to {task} " * 20)
        cache.close()
        path = folder / "answers-1.db"
        whole = path.read_bytes()
        found = 0
        for position in range(100, len(whole), max(1, len(whole) // 60)):
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            path.write_bytes(damaged)
            with again(folder) as other:
                for task in tasks:
                    hit = other.get("a", task, "m")
                    assert hit is None or hit["response"] == f"answer to {task} " * 20
                    found += hit is not None
            for leftover in folder.glob("answers-1.db*"):
                leftover.unlink()
        # One byte costs what it hits, and no more.
        assert found > 50 * 30

    def test_no_database_is_set_aside(self, cache, folder):
        cache.set(*ASKED, "x")
        cache.close()
        (folder / "answers-1.db").write_bytes(b"no database at all" * 100)
        with again(folder) as other:
            assert other.get(*ASKED) is None
            assert other.set(*ASKED, "y")
            assert other.get(*ASKED)["response"] == "y"
        assert list(folder.glob("answers-1.db.damaged-*"))


class TestBounds:
    def test_file_stays_within_bound(self, folder):
        with again(folder, max_size_mb=2) as cache:
            cache.set("keep", "task", "m", "k" * 4096)
            for number in range(1500):
                cache.set("a", f"task {number}", "m", "x" * 4096)
                cache.get("keep", "task", "m")
            stats = cache.get_stats()
            assert stats["evictions"] > 0
            assert stats["size_mb"] <= 2
            assert cache.get("keep", "task", "m")
            assert cache.get("a", "task 1499", "m")
            assert cache.get("a", "task 0", "m") is None
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 1.5 * 2 * 2**20

    def test_oversized_answer_is_not_stored(self, folder):
        with again(folder, max_size_mb=1) as cache:
            assert cache.set(*ASKED, "x" * 2**20) is False

    @pytest.mark.parametrize("tokens", [-1, 2**64, 1.5])
    def test_impossible_counts_are_not_stored(self, cache, tokens, caplog):
        assert cache.set(*ASKED, "x", input_tokens=tokens) is False
        assert "make no sense" in caplog.text

    @pytest.mark.parametrize("options", [{"ttl_hours": 0}, {"max_size_mb": -1}, {"cache_secret": ""}])
    def test_refuses_impossible_settings(self, folder, options):
        with pytest.raises(CacheError):
            again(folder, **options)


class TestPlace:
    def test_refuses_unusual_folder(self, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
        outside = tmp_path / "outside"
        with pytest.raises(CacheError, match="outside"):
            again(outside)
        again(outside, allowed_dirs=[outside]).close()

    def test_dots_and_links_are_resolved(self, monkeypatch, tmp_path):
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(temporary))
        (temporary / "link").symlink_to(tmp_path / "outside")
        for path in (temporary / ".." / "outside", temporary / "link"):
            with pytest.raises(CacheError):
                again(path)

    def test_default_folder(self, clean_environment):
        with ResponseCache() as cache:
            cache.set(*ASKED, "x")
        assert (clean_environment / ".claude" / "cache" / "answers-1.db").exists()

    def test_takes_over_older_cache(self, clean_environment):
        folder = clean_environment / ".claude" / "cache"
        folder.mkdir(parents=True, mode=0o755)
        (folder / "0123456789abcdef.json").write_text("{}", encoding="utf-8")
        with ResponseCache() as cache:
            assert cache.set(*ASKED, "x")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "0123456789abcdef.json").read_text(encoding="utf-8") == "{}"

    def test_refuses_open_shared_folder(self, tmp_path):
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "notes.txt").write_text("mine", encoding="utf-8")
        with pytest.raises(CacheError, match="other files"):
            ResponseCache(cache_dir=folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755

    def test_only_the_owner_can_read(self, cache, folder):
        cache.set(*ASKED, "x")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}

    def test_modes_do_not_depend_on_the_umask(self, folder):
        for number, umask in enumerate((0o000, 0o077, 0o277)):
            before = os.umask(umask)
            try:
                with again(folder / str(number), cache_secret=None) as cache:
                    cache.set(*ASKED, "x")
                    cache.acquire_lease(*ASKED)
                    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder / str(number)).iterdir()}
            finally:
                os.umask(before)
            assert modes == {0o600}
            assert stat.S_IMODE((folder / str(number)).stat().st_mode) == 0o700

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_a_folder_of_another_user_is_refused(self, folder):
        folder.mkdir()
        folder.chmod(0o777)
        os.chown(folder, 65534, 65534)
        with pytest.raises(CacheError, match="another user"):
            again(folder)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_refuses_replaceable_folder(self, tmp_path):
        place = tmp_path / "everyone's"
        place.mkdir()
        os.chown(place, 65534, 65534)
        place.chmod(0o777)
        with pytest.raises(CacheError, match="anyone"):
            again(place / "cache")
        place.chmod(0o1777)
        again(place / "cache").close()

    def test_a_file_in_its_place_is_refused(self, folder):
        folder.write_text("", encoding="utf-8")
        with pytest.raises(CacheError, match="is a file"):
            again(folder)

    def test_leaves_foreign_folder_alone(self, folder):
        folder.mkdir()
        (folder / "notes.txt").write_text("", encoding="utf-8")
        folder.chmod(0o755)
        with pytest.raises(CacheError, match=r"notes\.txt"):
            again(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755

    @pytest.mark.parametrize("place", ["home/.claude", "temporary", "project", "elsewhere"])
    def test_refuses_usual_folders_themselves(self, place, tmp_path, monkeypatch):
        (tmp_path / "project" / ".claude" / "agents").mkdir(parents=True)
        (tmp_path / "project" / "deep").mkdir()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / ("elsewhere" if place == "elsewhere" else "project/deep"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
        with pytest.raises(CacheError, match="not inside"):
            again(tmp_path / place)
        again(tmp_path / place / "cache").close()


class TestSecret:
    def test_makes_a_secret(self, folder):
        with ResponseCache(cache_dir=folder) as cache:
            cache.set(*ASKED, "x")
        assert len((folder / "secret").read_bytes()) == 32
        with ResponseCache(cache_dir=folder) as other:
            assert other.get(*ASKED)

    def test_the_environment_can_give_it(self, folder, monkeypatch):
        monkeypatch.setenv("CLAUDE_CACHE_SECRET", SECRET)
        with ResponseCache(cache_dir=folder) as cache:
            cache.set(*ASKED, "x")
        assert not (folder / "secret").exists()
        with again(folder) as other:
            assert other.get(*ASKED)

    def test_refuses_readable_secret(self, folder):
        ResponseCache(cache_dir=folder).close()
        (folder / "secret").chmod(0o644)
        with pytest.raises(CacheError, match="chmod 600"):
            ResponseCache(cache_dir=folder)

    @pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601])
    def test_refuses_any_access_of_others(self, tmp_path, mode):
        find_secret(None, tmp_path)
        (tmp_path / "secret").chmod(mode)
        with pytest.raises(CacheError, match=r"secret can be read by others: chmod 600 it"):
            find_secret(None, tmp_path)

    def test_given_secret_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CLAUDE_CACHE_SECRET", "of the environment")
        assert find_secret(None, tmp_path) == b"of the environment"
        assert find_secret("\xe9", tmp_path) == b"\xc3\xa9"
        assert find_secret(b"\xff", tmp_path) == b"\xff"
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("given", ["", b"", None])
    def test_an_empty_one_is_refused(self, tmp_path, monkeypatch, given):
        monkeypatch.setenv("CLAUDE_CACHE_SECRET", "")
        with pytest.raises(
            CacheError, match=r"^The cache secret is empty: give a long random text, or none at all"
        ):
            find_secret(given, tmp_path)

    def test_made_secret_is_random(self, tmp_path):
        made = []
        for name in "ab":
            (tmp_path / name).mkdir()
            made.append(find_secret(None, tmp_path / name))
            assert [path.name for path in (tmp_path / name).iterdir()] == ["secret"]
            assert (tmp_path / name / "secret").read_bytes() == made[-1]
            assert stat.S_IMODE((tmp_path / name / "secret").stat().st_mode) == 0o600
        assert len({*made}) == 2
        assert [len(secret) for secret in made] == [32, 32]

    def test_half_a_one_is_refused(self, tmp_path):
        find_secret(None, tmp_path)
        (tmp_path / "secret").write_bytes(b"x" * 16)
        assert find_secret(None, tmp_path) == b"x" * 16
        (tmp_path / "secret").write_bytes(b"x" * 15)
        with pytest.raises(CacheError, match="secret does not hold a complete secret: remove it"):
            find_secret(None, tmp_path)

    def test_longest_secret(self, tmp_path):
        find_secret(None, tmp_path)
        (tmp_path / "secret").write_bytes(b"x" * 4096)
        assert find_secret(None, tmp_path) == b"x" * 4096
        for size in (4097, 1 << 40):
            os.truncate(tmp_path / "secret", size)
            with pytest.raises(CacheError, match="secret does not hold a complete secret"):
                find_secret(None, tmp_path)

    def test_secret_is_no_file(self, tmp_path):
        (tmp_path / "secret").mkdir()
        with pytest.raises(
            CacheError, match=r"^The cache's secret can't be used: .*is not a file but a folder"
        ):
            find_secret(None, tmp_path)

    def test_first_secret_wins(self, tmp_path, monkeypatch):
        first = find_secret(None, tmp_path)
        monkeypatch.setattr(Path, "exists", lambda path: False)
        assert find_secret(None, tmp_path) == first
        assert [path.name for path in tmp_path.iterdir()] == ["secret"]

    def test_failed_secret_leaves_nothing(self, tmp_path, monkeypatch):
        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            find_secret(None, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_is_in_no_repr(self, cache):
        assert SECRET not in repr(cache)


class TestSharing:
    def test_removal_reaches_other_objects(self, cache, folder):
        cache.set(*ASKED, "x")
        cache.get(*ASKED)
        with again(folder) as other:
            assert other.delete(*ASKED) is True
        assert cache.get(*ASKED) is None

    def test_replacement_reaches_other_objects(self, cache, folder):
        cache.set(*ASKED, "old")
        with again(folder) as other:
            other.set(*ASKED, "new")
        assert cache.get(*ASKED)["response"] == "new"

    def test_clear_removes_all_or_one_agents(self, cache):
        for agent in ("a", "a2", "b"):
            cache.set(agent, "t", "m", "x")
        assert cache.clear("a") == 1
        assert cache.clear() == 2
        assert cache.get_stats()["entries"] == 0

    def test_16_threads_share_one_object(self, cache):
        def work(number):
            cache.set("a", f"task {number % 20}", "m", f"answer {number % 20}")
            return cache.get("a", f"task {number % 20}", "m")["response"] == f"answer {number % 20}"

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(400)))

    def test_processes_share_all_entries(self, folder):
        source = (
            "import sys\nfrom claude_force.response_cache import ResponseCache\n"
            "with ResponseCache(cache_dir=sys.argv[1]) as cache:\n"
            "    for n in range(50): assert cache.set('a', f'{sys.argv[2]}-{n}', 'm', sys.argv[2])\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        running = [
            subprocess.Popen([sys.executable, "-c", source, str(folder), str(number)], env=environment)
            for number in range(8)
        ]
        assert [process.wait(timeout=60) for process in running] == [0] * 8
        with ResponseCache(cache_dir=folder) as cache:
            assert cache.get_stats()["entries"] == 400
            assert cache.get("a", "7-49", "m")["response"] == "7"

    def test_kill_loses_one_entry_at_most(self, folder):
        source = (
            "import itertools, sys\nfrom claude_force.response_cache import ResponseCache\n"
            f"cache = ResponseCache(cache_dir=sys.argv[1], cache_secret={SECRET!r})\n"
            "for n in itertools.count():\n"
            "    cache.set('a', str(n), 'm', 'x' * 4096)\n"
            "    print(n, flush=True)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, "-c", source, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            for _ in range(200):
                last = int(process.stdout.readline())
            process.kill()
        with again(folder) as cache:
            assert all(cache.get("a", str(number), "m") for number in range(last + 1))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_fork_keeps_both_working(self, cache, folder):
        cache.set(*ASKED, "from the parent")
        child = os.fork()
        if child == 0:
            good = cache.get(*ASKED)["response"] == "from the parent" and cache.set("c", "t", "m", "child")
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert cache.get("c", "t", "m")["response"] == "child"
        assert cache.set("p", "t", "m", "parent")


class TestExplanation:
    def test_explains_differing_fields(self, cache):
        cache.set("a", "task", "m", "x", fingerprint={"definition": "old", "endpoint": "e"})
        cache.set("a", "another task", "m2", "y", fingerprint={"definition": "old", "endpoint": "f"})
        found = cache.explain_miss("a", "task", "m", {"definition": "new", "endpoint": "e"})
        assert (found["hit"], found["differs"], found["model"]) == (False, ["definition"], "m")
        assert "differs in: definition" in found["reason"]
        assert cache.explain_miss("a", "task", "m2", {"definition": "old", "endpoint": "e"})["differs"] == [
            "model"
        ]

    def test_explains_missing_field(self, cache):
        cache.set("a", "t", "m", "x", fingerprint={"one": "1"})
        assert cache.explain_miss("a", "t", "m", {"other": "1"})["differs"] == ["other", "one"]

    def test_explains_each_reason(self, folder):
        clock = Hours()
        with again(folder, clock=clock) as cache:
            assert "No answer of a is cached" in cache.explain_miss("a", "t", "m")["reason"]
            cache.set("a", "t", "m", "x")
            assert cache.explain_miss("a", "t", "m")["hit"] is True
            clock.now += 30
            assert "30.0 hours old" in cache.explain_miss("a", "t", "m")["reason"]
        with again(folder, cache_secret="another secret") as other:
            assert "another secret" in other.explain_miss("a", "t", "m")["reason"]

    def test_explains_forged_entry(self, cache, folder):
        cache.set("a", "t", "m", "x")
        cache.close()
        with change(folder, "a") as sealed:
            sealed[-1] ^= 1
        with again(folder) as cache:
            assert "invalid signature" in cache.explain_miss("a", "t", "m")["reason"]
            assert "No answer of a is cached" in cache.explain_miss("a", "another task", "m")["reason"]

    def test_explains_disabled_cache(self, folder):
        with ResponseCache(enabled=False) as cache:
            assert "switched off" in cache.explain_miss("a", "t", "m")["reason"]
        with again(folder, exclude_agents=["a"]) as cache:
            assert "not cached" in cache.explain_miss("a", "t", "m")["reason"]

    def test_changes_nothing(self, cache):
        cache.set("a", "t", "m", "x")
        cache.explain_miss("a", "t", "m")
        stats = cache.get_stats()
        assert (stats["hits"], stats["misses"], stats["total_hits"]) == (0, 0, 0)


class TestVerification:
    def test_verify_removes_on_request(self, cache, folder):
        for agent in ("good", "bad"):
            cache.set(agent, "t", "m", "x")
        cache.close()
        with again(folder, cache_secret="another secret") as other:
            other.set("foreign", "t", "m", "x")
        with change(folder, "bad") as sealed:
            sealed[-1] ^= 1
        with again(folder) as cache:
            counted = {"checked": 3, "valid": 1, "forged": 1, "unreadable": 0, "other_secret": 1}
            assert cache.verify() == {**counted, "removed": 0}
            assert cache.get_stats()["entries"] == 3
            assert cache.verify(remove=True) == {**counted, "removed": 1}
            assert cache.get_stats()["entries"] == 2

    def test_verify_counts_unreadable(self, cache, folder):
        cache.set("a", "t", "m", "x")
        cache.close()
        with closing(database(folder)) as db:
            db.execute("UPDATE answer SET sealed = 'a text'")
            db.commit()
        with again(folder) as cache:
            assert (cache.verify()["unreadable"], cache.verify(remove=True)["removed"]) == (1, 1)
            assert cache.get_stats()["entries"] == 0


class TestStatistics:
    def test_count_what_happened(self, cache):
        cache.set(*ASKED, "x")
        cache.get(*ASKED)
        cache.get(*ASKED)
        cache.get("a", "b", "c")
        stats = cache.get_stats()
        assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (2, 1, "66.7%")
        assert (stats["entries"], stats["ttl_hours"], stats["max_size_mb"]) == (1, 24, 100)
        json.dumps(stats)

    def test_disk_fault_is_a_miss(self, cache, folder, caplog):
        cache.set(*ASKED, "x")
        cache.close()
        (folder / "answers-1.db").unlink()
        (folder / "answers-1.db").mkdir()
        with caplog.at_level(logging.WARNING):
            assert cache.get(*ASKED) is None
            assert cache.set(*ASKED, "y") is False
        assert "the cache failed" in caplog.text
