"""The journal of runs: in SQLite, what each run was given and each answer that it has paid for, signed.

A rollback journal and not a write-ahead log: a handful of commits a second, and no reader that they disturb.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..cache.request_key import encode
from ..errors import RunNotFoundError
from ..storage.locks import leases_of
from ..storage.private_files import check_database, open_private
from ..storage.signing import Secret
from ..storage.sqlite_files import is_damage, set_aside

logger = logging.getLogger(__name__)

RUNNING = "running"
_KEEP_SECONDS = 30 * 86400.0
_BUSY_SECONDS = 30.0
# A lease beside those of runs, which are numbers of 56 bits.
_SETTING_ASIDE = 2**56
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  id TEXT PRIMARY KEY, workflow TEXT NOT NULL, task TEXT NOT NULL, inputs TEXT NOT NULL,
  project TEXT NOT NULL, began REAL NOT NULL, ended REAL, status TEXT NOT NULL, spent REAL NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
  run TEXT NOT NULL, step TEXT NOT NULL, part INTEGER NOT NULL, question BLOB NOT NULL, at REAL NOT NULL,
  result TEXT NOT NULL, signature BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS answers_of_runs ON answers (run);
"""


@dataclass(frozen=True)
class RunRecord:
    """What the journal has of a run. Times are Unix time in seconds; `spent` is USD, as far as it is known:
    `unpriced` of the `answers` have a price that is not. `project` is its folder, or the configuration that
    the run was given where that is not the project's own.

    `status` is "succeeded", "failed", "interrupted", or "running" where it is under way or was killed.
    """

    id: str
    workflow: str
    task: Optional[str] = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    project: str = ""
    began: float = 0.0
    ended: Optional[float] = None
    status: str = RUNNING
    spent: float = 0.0
    answers: int = 0
    unpriced: int = 0


class SavedAnswer(NamedTuple):
    """The answer of one part, `result` as text; `question` identifies what was asked."""

    step: str
    part: int
    question: bytes
    at: float
    result: str


_KINDS = (str, int, bytes, float, str, bytes)


class CheckpointStore:
    """Used by one thread at a time."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        """Raises OSError, sqlite3.Error."""
        self._secret = Secret(secret)
        self._leases = leases_of(folder)
        self._path = path = folder / "journal.sqlite"
        # Never one that is there: to close it would let go of all locks that this process has on the file.
        with suppress(FileExistsError):
            os.close(open_private(path, os.O_EXCL))
        check_database(path)
        self._inode = path.stat().st_ino
        self._db = sqlite3.connect(
            str(path), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error) and is_damaged(error):
                self.set_aside()
            raise

    def _prepare(self) -> None:
        # Text that is damaged is no text, which is for its signature to say.
        self._db.text_factory = partial(str, encoding="utf-8", errors="replace")
        self._db.execute("PRAGMA journal_mode=TRUNCATE")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def set_aside(self) -> None:
        """Gives up a damaged file, so that the next one who opens the journal makes a new one."""
        self._db.close()
        if not self._leases.acquire(_SETTING_ASIDE):
            return
        try:
            # Another process may have done so already.
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                aside = set_aside(self._path)
                logger.warning(
                    "%s was damaged: its runs can't be resumed, it is kept as %s", self._path, aside
                )
        finally:
            self._leases.release(_SETTING_ASIDE)

    def begin(self, run: RunRecord) -> None:
        """Its first line; runs that ended long ago are forgotten."""
        old = (time.time() - _KEEP_SECONDS,)
        with _transaction(self._db):
            self._db.execute("DELETE FROM runs WHERE coalesce(ended, began) < ?", old)
            self._db.execute(
                "DELETE FROM answers WHERE run IN (SELECT run FROM answers EXCEPT SELECT id FROM runs)"
            )
            self._db.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, NULL, ?, 0)",
                (
                    run.id,
                    run.workflow,
                    run.task,
                    json.dumps(dict(run.inputs)),
                    run.project,
                    run.began,
                    RUNNING,
                ),
            )

    def acquire(self, run_id: str) -> bool:
        """Whether the run is this process's now; one that another has is not."""
        return self._leases.acquire(_identity(run_id))

    def release(self, run_id: str) -> None:
        self._leases.release(_identity(run_id))

    def is_running(self, run_id: str) -> bool:
        """Whether a process has it at this moment."""
        free = self.acquire(run_id)
        if free:
            self.release(run_id)
        return not free

    def find(self, run_id: str) -> RunRecord:
        """Raises RunNotFoundError."""
        found = self._runs("WHERE id = ?", (run_id,))
        if not found:
            raise RunNotFoundError(
                f"Run '{run_id}' not found. `claude-force runs list` shows those of the last 30 days."
            )
        return found[0]

    def recent(self, most: int) -> List[RunRecord]:
        """The newest first."""
        return self._runs("ORDER BY began DESC LIMIT ?", (most,))

    def _runs(self, clause: str, values: Sequence[Any]) -> List[RunRecord]:
        rows = self._db.execute(
            "SELECT id, workflow, task, inputs, project, began, ended, status, spent, "
            "(SELECT count(*) FROM answers WHERE run = runs.id), "
            # As `packed` writes it; within texts the quotes are escaped.
            """(SELECT count(*) FROM answers WHERE run = runs.id AND instr(result, '"cost": null')) """
            f"FROM runs {clause}",
            values,
        )
        return [run for run in map(_run, rows) if run is not None]

    def answers(self, run_id: str) -> Iterator[SavedAnswer]:
        """Those whose signature holds, in the order in which they came."""
        rows = self._db.execute(
            "SELECT step, part, question, at, result, signature FROM answers WHERE run = ? ORDER BY at",
            (run_id,),
        ).fetchall()
        for *fields, signature in rows:
            answer = SavedAnswer(*fields)
            # The file's writer may have put any kind of value anywhere.
            kinds = tuple(type(one) for one in (*answer, signature))
            if kinds == _KINDS and hmac.compare_digest(self._signature(run_id, answer), signature):
                yield answer

    def save(self, kept: Sequence[Tuple[str, Optional[SavedAnswer], float]]) -> None:
        """In one transaction: runs, answers where there are any, and USD that calls have cost."""
        with _transaction(self._db):
            for run_id, answer, cost in kept:
                if answer is not None:
                    self._db.execute(
                        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (run_id, *answer, self._signature(run_id, answer)),
                    )
                self._db.execute("UPDATE runs SET spent = spent + ? WHERE id = ?", (cost, run_id))

    def reopen(self, run: RunRecord) -> None:
        """It is under way again, on the task and the inputs that it has now."""
        self._db.execute(
            "UPDATE runs SET task = ?, inputs = ?, status = ?, ended = NULL WHERE id = ?",
            (run.task, json.dumps(dict(run.inputs)), RUNNING, run.id),
        )

    def set_status(self, run_id: str, status: str) -> None:
        """With the time, unless it is running."""
        ended = None if status == RUNNING else time.time()
        self._db.execute("UPDATE runs SET status = ?, ended = ? WHERE id = ?", (status, ended, run_id))

    def _signature(self, run_id: str, answer: SavedAnswer) -> bytes:
        step, part, question, at, result = answer
        return self._secret.sign(encode((run_id, step, str(part), question.hex(), repr(at), result)))

    def close(self) -> None:
        self._db.close()


def is_damaged(error: Exception) -> bool:
    """Whether the file is at fault, and not a disk that takes no writing."""
    return is_damage(error) and "readonly" not in str(error)


class _transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            # After some faults, such as a full disk, SQLite has rolled back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _run(row: Sequence[Any]) -> Optional[RunRecord]:
    """None for one that was damaged: nothing of it is signed."""
    run_id, workflow, task, inputs, project, began, ended, status, spent, answers, unpriced = row
    texts = (run_id, workflow, task, inputs, project, status)
    numbers = (began, spent) if ended is None else (began, spent, ended)
    if {*map(type, texts)} != {str} or not {*map(type, numbers)} <= {int, float}:
        return None
    try:
        given = json.loads(inputs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    return RunRecord(run_id, workflow, task, given, project, began, ended, status, spent, answers, unpriced)


def _identity(run_id: str) -> int:
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big")
