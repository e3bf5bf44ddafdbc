"""What is compared, each behind the same four calls: open, set, get, close.

Every subject is asked the way its users ask it: by agent, task and model, a prompt, a request or a key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from pathlib import Path
from typing import Any, Dict, Optional, Type

AGENT, MODEL = "python-expert", "claude-sonnet-5-5"
SECRET = b"a secret of 32 bytes for measures"
UNBOUNDED = 16 * 2**30


def task(number: int) -> str:
    return f"Review change {number} of the project and say what is wrong with it."


def answer(number: int) -> str:
    """4 KB, different for each number."""
    return f"{number:08d}" * 512


class Subject:
    """`most_bytes` bounds the store where the subject has such a bound."""

    on_disk = True
    in_memory = False
    bounded = False
    shared = True

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        raise NotImplementedError

    def set(self, number: int) -> None:
        raise NotImplementedError

    def get(self, number: int) -> Optional[str]:
        """None for a miss."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class Dict_(Subject):
    on_disk, in_memory, shared = False, True, False

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        self._held: Dict[Any, str] = {}

    def set(self, number: int) -> None:
        self._held[(AGENT, task(number), MODEL)] = answer(number)

    def get(self, number: int) -> Optional[str]:
        return self._held.get((AGENT, task(number), MODEL))


class DictHmac(Dict_):
    """What a signature costs that is verified at every look."""

    def set(self, number: int) -> None:
        text = answer(number)
        signature = hmac.new(SECRET, text.encode(), hashlib.sha256).digest()
        self._held[(AGENT, task(number), MODEL)] = (text, signature)  # type: ignore[assignment]

    def get(self, number: int) -> Optional[str]:
        held: Any = self._held.get((AGENT, task(number), MODEL))
        if held is None or not hmac.compare_digest(hmac.digest(SECRET, held[0].encode(), "sha256"), held[1]):
            return None
        text: str = held[0]
        return text


class SqliteRow(Subject):
    """A row by its key, nothing else: what the disk layer can at best cost."""

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        self._db = sqlite3.connect(str(folder / "raw.db"), isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS row (key TEXT PRIMARY KEY, body TEXT)")

    def set(self, number: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO row VALUES (?, ?)", (task(number), answer(number)))

    def get(self, number: int) -> Optional[str]:
        row = self._db.execute("SELECT body FROM row WHERE key = ?", (task(number),)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        self._db.close()


class ClaudeForce(Subject):
    in_memory = bounded = True

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        from claude_force.response_cache import ResponseCache

        self.cache = ResponseCache(cache_dir=folder, max_size_mb=most_bytes / 2**20, allowed_dirs=[folder])

    def set(self, number: int) -> None:
        self.cache.set(AGENT, task(number), MODEL, answer(number), 100, 1000, 0.01)

    def get(self, number: int) -> Optional[str]:
        hit = self.cache.get(AGENT, task(number), MODEL)
        return hit["response"] if hit else None

    def close(self) -> None:
        self.cache.close()


class DiskCache(Subject):
    bounded = True
    policy = "least-recently-stored"

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        import diskcache

        self._cache = diskcache.Cache(str(folder), size_limit=most_bytes, eviction_policy=self.policy)

    def set(self, number: int) -> None:
        self._cache.set(self._key(number), answer(number))

    def get(self, number: int) -> Optional[str]:
        text: Optional[str] = self._cache.get(self._key(number))
        return text

    def _key(self, number: int) -> str:
        return f"{AGENT}:{MODEL}:{task(number)}"

    def close(self) -> None:
        self._cache.close()


class DiskCacheLru(DiskCache):
    policy = "least-recently-used"


class Dspy(Subject):
    in_memory = bounded = True

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        from dspy.clients.cache import Cache

        self._cache = Cache(True, True, str(folder), disk_size_limit_bytes=most_bytes)

    def _request(self, number: int) -> Dict[str, Any]:
        return {"model": MODEL, "messages": [{"role": "user", "content": task(number)}]}

    def set(self, number: int) -> None:
        self._cache.put(self._request(number), answer(number))

    def get(self, number: int) -> Optional[str]:
        text: Optional[str] = self._cache.get(self._request(number))
        return text

    def close(self) -> None:
        self._cache.disk_cache.close()


class LiteLlmMemory(Subject):
    on_disk, in_memory, shared = False, True, False
    kind: Dict[str, Any] = {"type": "local"}

    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        from litellm.caching.caching import Cache

        self._cache = Cache(**self.kind, **({"disk_cache_dir": str(folder)} if self.on_disk else {}))
        # Unbounded, as the others are here: by itself it holds 200 entries.
        self._cache.cache.max_size_in_memory = UNBOUNDED  # type: ignore[attr-defined]

    def _request(self, number: int) -> Dict[str, Any]:
        return {"model": MODEL, "messages": [{"role": "user", "content": task(number)}]}

    def set(self, number: int) -> None:
        self._cache.add_cache({"text": answer(number)}, **self._request(number))

    def get(self, number: int) -> Optional[str]:
        found: Optional[Dict[str, str]] = self._cache.get_cache(**self._request(number))
        return found["text"] if found else None


class LiteLlmDisk(LiteLlmMemory):
    on_disk, in_memory, shared = True, False, True
    kind: Dict[str, Any] = {"type": "disk"}


class LangChain(Subject):
    def __init__(self, folder: Path, most_bytes: int = UNBOUNDED) -> None:
        import warnings

        warnings.simplefilter("ignore")
        from langchain_community.cache import SQLiteCache
        from langchain_core.outputs import Generation

        self._generation = Generation
        self._cache = SQLiteCache(str(folder / "langchain.db"))

    def set(self, number: int) -> None:
        self._cache.update(task(number), MODEL, [self._generation(text=answer(number))])

    def get(self, number: int) -> Optional[str]:
        found = self._cache.lookup(task(number), MODEL)
        return found[0].text if found else None


SUBJECTS: Dict[str, Type[Subject]] = {
    "claude-force": ClaudeForce,
    "dict": Dict_,
    "dict + HMAC": DictHmac,
    "SQLite row": SqliteRow,
    "diskcache": DiskCache,
    "diskcache LRU": DiskCacheLru,
    "DSPy": Dspy,
    "LiteLLM memory": LiteLlmMemory,
    "LiteLLM disk": LiteLlmDisk,
    "LangChain SQLite": LangChain,
}
