"""Stores runs of workflows in SQLite: what each was given, and each answer it has paid for, signed.

It uses a rollback journal, not a write-ahead log: there are few commits a second, and they disturb no reader.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

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
# A lease besides those of runs, which are numbers of 56 bits.
_MOVING_ASIDE = 2**56
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  id TEXT PRIMARY KEY, workflow TEXT NOT NULL, task TEXT NOT NULL, inputs TEXT NOT NULL,
  project TEXT NOT NULL, began REAL NOT NULL, ended REAL, status TEXT NOT NULL, spent REAL NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
  run TEXT NOT NULL, step TEXT NOT NULL, part INTEGER NOT NULL, question BLOB NOT NULL, at REAL NOT NULL,
  result TEXT NOT NULL, signature BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS answers_of_runs ON answers (run);
CREATE TABLE IF NOT EXISTS turns (
  run TEXT NOT NULL, step TEXT NOT NULL, part INTEGER NOT NULL, turn INTEGER NOT NULL, kind TEXT NOT NULL,
  position INTEGER NOT NULL, question BLOB NOT NULL, at REAL NOT NULL, content TEXT NOT NULL,
  signature BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS turns_of_parts ON turns (run, step, part);
"""


@dataclass(frozen=True)
class RunRecord:
    """A run of a workflow that can be resumed.

    Attributes:
        project: its folder, or the configuration that the run was given in place of the project's own.
        began, ended: Unix time in seconds; `ended` is None for a run that has not ended.
        status: "succeeded", "failed", "interrupted", or "running" for one that is running or was killed.
        spent: USD, as far as it is known: `unpriced` of the `answers` have an unknown price.

    Example:
        for run in await orchestrator.runs():
            print(run.id, run.workflow, run.status, run.spent)
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
    """The answer of one part of a step: `result` as text; `question` identifies the request."""

    step: str
    part: int
    question: bytes
    at: float
    result: str


class TurnEvent(NamedTuple):
    """Something that happened in a turn of an agent with tools, in one part of a step.

    Attributes:
        kind: `ANSWERED`, `BEGUN` for a call with side effects, or `ENDED` for a call.
        position: of the call in its answer; 0 for an answer.
        question: identifies the request of the turn.
        content: the answer, or the result of the call, as JSON.
    """

    step: str
    part: int
    turn: int
    kind: str
    position: int
    question: bytes
    at: float
    content: str = ""


ANSWERED, BEGUN, ENDED = "answered", "begun", "ended"
_EVENT_TYPES = (str, int, int, str, int, bytes, float, str, bytes)
_COLUMN_TYPES = (str, int, bytes, float, str, bytes)
_TABLES: Mapping[type, str] = {SavedAnswer: "answers", TurnEvent: "turns"}
# An answer or an event of a turn, if there is one, and the USD that a call of the run has cost.
Payment = Tuple[str, Union[SavedAnswer, TurnEvent, None], float]


class CheckpointStore:
    """The database of runs. Used by one thread at a time."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        """Raises OSError, sqlite3.Error."""
        self._secret = Secret(secret)
        self._leases = leases_of(folder)
        self._path = path = folder / "journal.sqlite"
        # Never opens an existing file: closing it would release all locks of this process on that file.
        with suppress(FileExistsError):
            os.close(open_private(path, os.O_EXCL))
        check_database(path)
        self._inode = path.stat().st_ino
        self._db = sqlite3.connect(
            str(path), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # Damaged text is read as text that its signature does not match.
            self._db.text_factory = partial(str, encoding="utf-8", errors="replace")
            self._db.execute("PRAGMA journal_mode=TRUNCATE")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error) and is_damaged(error):
                self.move_aside()
            raise

    def move_aside(self) -> None:
        """Renames a damaged file, so that the next store makes a new one."""
        self._db.close()
        if not self._leases.acquire(_MOVING_ASIDE):
            return
        try:
            # Another process may have done so already.
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                aside = set_aside(self._path)
                logger.warning(
                    "%s was damaged: its runs can't be resumed, it is kept as %s", self._path, aside
                )
        finally:
            self._leases.release(_MOVING_ASIDE)

    def begin(self, run: RunRecord) -> None:
        """Adds a run, and deletes runs that ended long ago."""
        inputs = json.dumps(dict(run.inputs))
        values = (run.id, run.workflow, run.task, inputs, run.project, run.began, RUNNING)
        with self._transaction():
            self._db.execute(
                "DELETE FROM runs WHERE coalesce(ended, began) < ?", (time.time() - _KEEP_SECONDS,)
            )
            self._db.execute(
                "DELETE FROM answers WHERE run IN (SELECT run FROM answers EXCEPT SELECT id FROM runs)"
            )
            self._db.execute(
                "DELETE FROM turns WHERE run IN (SELECT run FROM turns EXCEPT SELECT id FROM runs)"
            )
            self._db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, NULL, ?, 0)", values)

    def acquire(self, run_id: str) -> bool:
        """Takes the lease of a run; returns False where another process has it."""
        return self._leases.acquire(_lease_number(run_id))

    def release(self, run_id: str) -> None:
        """Gives back the lease of a run."""
        self._leases.release(_lease_number(run_id))

    def is_running(self, run_id: str) -> bool:
        """Returns whether a process has the lease of a run now."""
        is_free = self.acquire(run_id)
        if is_free:
            self.release(run_id)
        return not is_free

    def find(self, run_id: str) -> RunRecord:
        """Returns a run. Raises RunNotFoundError."""
        found = self._runs("WHERE id = ?", (run_id,))
        if not found:
            raise RunNotFoundError(
                f"Run '{run_id}' not found. `claude-force runs list` shows those of the last 30 days."
            )
        return found[0]

    def recent(self, most: int) -> List[RunRecord]:
        """Returns up to `most` runs, the newest first."""
        return self._runs("ORDER BY began DESC LIMIT ?", (most,))

    def _runs(self, clause: str, values: Sequence[Any]) -> List[RunRecord]:
        rows = self._db.execute(
            "SELECT id, workflow, task, inputs, project, began, ended, status, spent, "
            "(SELECT count(*) FROM answers WHERE run = runs.id), "
            # As `result_json.dumps` writes it; quotes within texts are escaped.
            """(SELECT count(*) FROM answers WHERE run = runs.id AND instr(result, '"cost": null')) """
            f"FROM runs {clause}",
            values,
        )
        return [run for run in map(_to_record, rows) if run is not None]

    def answers(self, run_id: str) -> Iterator[SavedAnswer]:
        """Yields the answers of a run whose signature is valid, in the order in which they came."""
        rows = self._db.execute(
            "SELECT step, part, question, at, result, signature FROM answers WHERE run = ? ORDER BY at",
            (run_id,),
        ).fetchall()
        for *fields, signature in rows:
            answer = SavedAnswer(*fields)
            # Whoever wrote the file may have put any type of value anywhere.
            types = tuple(map(type, (*answer, signature)))
            if types == _COLUMN_TYPES and hmac.compare_digest(self._signature(run_id, answer), signature):
                yield answer

    def save(self, payments: Sequence[Payment]) -> None:
        """Saves answers and costs of runs in one transaction."""
        with self._transaction():
            for run_id, answer, cost in payments:
                if answer is not None:
                    table = _TABLES[type(answer)]
                    values = (run_id, *answer, self._signature(run_id, answer))
                    places = ", ".join("?" * len(values))
                    self._db.execute(f"INSERT INTO {table} VALUES ({places})", values)
                if cost:
                    self._db.execute("UPDATE runs SET spent = spent + ? WHERE id = ?", (cost, run_id))

    def reopen(self, run: RunRecord) -> None:
        """Marks a run as running again, with the task and the inputs that it has now."""
        self._db.execute(
            "UPDATE runs SET task = ?, inputs = ?, status = ?, ended = NULL WHERE id = ?",
            (run.task, json.dumps(dict(run.inputs)), RUNNING, run.id),
        )

    def set_status(self, run_id: str, status: str) -> None:
        """Sets the status of a run, and when it ended unless it is running."""
        ended = None if status == RUNNING else time.time()
        self._db.execute("UPDATE runs SET status = ?, ended = ? WHERE id = ?", (status, ended, run_id))

    def turn_events(self, run_id: str) -> Iterator[TurnEvent]:
        """Yields what is kept of the turns of a run, in the order in which it happened."""
        rows = self._db.execute(
            "SELECT step, part, turn, kind, position, question, at, content, signature FROM turns "
            "WHERE run = ? ORDER BY rowid",
            (run_id,),
        ).fetchall()
        for *fields, signature in rows:
            event = TurnEvent(*fields)
            types = tuple(map(type, (*event, signature)))
            if types == _EVENT_TYPES and hmac.compare_digest(self._signature(run_id, event), signature):
                yield event

    def forget_turns(self, run_id: str, step: str, part: int, only: Optional[int] = None) -> None:
        """Deletes what is kept of the turns of a part: of all, or of one only."""
        one = "" if only is None else " AND turn = ?"
        values = (run_id, step, part) if only is None else (run_id, step, part, only)
        self._db.execute(f"DELETE FROM turns WHERE run = ? AND step = ? AND part = ?{one}", values)

    def _signature(self, run_id: str, saved: Union[SavedAnswer, TurnEvent]) -> bytes:
        values: Tuple[Union[str, int, float, bytes], ...] = saved
        return self._secret.sign(encode((run_id, *map(_signed_text, values))))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            # After some faults, such as a full disk, SQLite has rolled back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


def _signed_text(value: Union[str, int, float, bytes]) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str) else repr(value)


def is_damaged(error: Exception) -> bool:
    """Returns whether the file is at fault, rather than a disk that can't be written."""
    return is_damage(error) and "readonly" not in str(error)


def _to_record(row: Sequence[Any]) -> Optional[RunRecord]:
    """Returns the run, None where the row is damaged, as nothing of it is signed."""
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


def _lease_number(run_id: str) -> int:
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big")
