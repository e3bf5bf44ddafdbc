"""Durable runs: which database and run a command uses, its workers, and the `worker` verb."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Sequence, Tuple

from anyio import to_thread

from .. import durable, settings
from ..agents.names import slug
from ..cache.private_dir import cache_folder
from ..errors import CacheError, ConfigurationError, InputError
from ..formatting import format_duration_coarse, pluralize
from ..storage.private_files import open_private, read_private
from . import streams
from .signals import handle_interrupts, never

if TYPE_CHECKING:
    from ..durable import Runs, Worker

# A worker sends a heartbeat each second; one that is silent for longer than this is dead.
DEAD_SECONDS = 5.0
_POLL_SECONDS, _REMINDER_SECONDS = 2.0, 60.0
# Options that workers have themselves: they would have no effect in the command that hands calls over.
_WORKER_OPTIONS = ("timeout", "max_retries", "max_concurrent", "no_stream")
_START_A_WORKER = "start `claude-force worker` on any machine that reaches this database"
_MAX_STEM = 40
# What a record leaves out of the command: a URL may hold a password, and a run is started over only once.
_DROPPED_WITH_VALUE, _DROPPED = "--database", ("--durable", "--no-resume")


def database_url(args: argparse.Namespace) -> Optional[str]:
    """Returns the URL of --database, with --durable the environment's, or None. Raises InputError."""
    if args.database is not None:
        if not args.database:
            raise InputError("--database is empty: give it a URL, such as postgresql://user@host/database.")
        return str(args.database)
    if not args.durable:
        return None
    url = settings.database_url()
    if not url:
        raise InputError(
            "--durable takes the database from CLAUDE_FORCE_DATABASE_URL, which is not set: set it, or give "
            "--database URL."
        )
    return url


def require_database_url(args: argparse.Namespace) -> str:
    """Returns the URL of --database or the environment, for a command that needs one. Raises InputError."""
    url = args.database or settings.database_url()
    if not url:
        raise InputError(
            "Name the database: --database URL, or CLAUDE_FORCE_DATABASE_URL in the environment."
        )
    return str(url)


def driver_database_url(args: argparse.Namespace) -> Optional[str]:
    """Returns `database_url(args)` for a command that hands calls over, once the database is usable.

    Raises InputError for options that only workers have, ConfigurationError for an unusable database.
    """
    url = database_url(args)
    if url is None:
        return None
    with open_runs(url) as runs:
        runs.workers()
        given = [name for name in _WORKER_OPTIONS if getattr(args, name)]
        if given and not runs.is_embedded:
            option = "--" + given[0].replace("_", "-")
            raise InputError(f"{option} has no effect with a database: workers have their own. Leave it out.")
    return url


@contextmanager
def open_runs(url: str) -> Iterator[Runs]:
    """Opens the runs of a database. Raises ConfigurationError, InvalidOptionError."""
    runs = durable.Runs(url)
    try:
        yield runs
    finally:
        runs.close()


@contextmanager
def monitor_workers(url: str) -> Iterator[WorkerMonitor]:
    """Opens a monitor of the workers of a database. Raises ConfigurationError, InvalidOptionError."""
    with open_runs(url) as runs:
        yield WorkerMonitor(runs)


class WorkerMonitor:
    """Reports on stderr when no worker is alive, and when one is again."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._notices = WorkerNotices(time.monotonic)

    @property
    def is_remote(self) -> bool:
        """Whether other processes make the calls."""
        return not self._runs.is_embedded

    async def watch(self) -> None:
        """Watches the workers until it is cancelled."""
        while self.is_remote:
            text = self._notices.next(await to_thread.run_sync(self._alive))
            if text:
                streams.status(text)
            await asyncio.sleep(_POLL_SECONDS)

    def _alive(self) -> Optional[List[str]]:
        try:
            return [one.name for one in self._runs.workers() if one.silent < DEAD_SECONDS]
        except ConfigurationError:
            # The orchestrator meets the same error, and reports it.
            return None


class WorkerNotices:
    """Decides what to report of workers, and when. `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._silent_since: Optional[float] = None
        self._last_notice = 0.0

    def next(self, alive: Optional[List[str]]) -> Optional[str]:
        """Returns a message or None, given the names of the live workers; None if they are unknown."""
        if alive is None:
            return None
        if alive:
            is_back, self._silent_since = self._silent_since is not None, None
            return f"{pluralize(len(alive), 'worker')} at work: {', '.join(alive)}" if is_back else None
        now = self._now()
        if self._silent_since is None:
            self._silent_since = self._last_notice = now
            return f"no worker is alive; the calls wait for one: {_START_A_WORKER}"
        if now - self._last_notice < _REMINDER_SECONDS:
            return None
        self._last_notice = now
        silent = format_duration_coarse(now - self._silent_since)
        return f"no worker is alive for {silent}; the calls wait for one: {_START_A_WORKER}"


def work(args: argparse.Namespace) -> int:
    """Makes the calls of durable runs. Returns 0 after SIGTERM or SIGINT. Raises InputError."""
    asyncio.run(_work(args))
    return 0


async def _work(args: argparse.Namespace) -> None:
    worker: Worker = durable.Worker(
        require_database_url(args),
        args.concurrency,
        args.name,
        rpm=args.rpm,
        input_tpm=args.input_tpm,
        output_tpm=args.output_tpm,
        grace_seconds=args.grace,
    )
    # Even before its first request it has a name in the database, and calls that others are to get back.
    with handle_interrupts(worker.stop, never):
        async with worker:
            streams.status(f"worker {worker.name} takes calls; Ctrl-C stops it")
            await worker.stopped()
            streams.status(f"stopping; requests in flight may end within {args.grace} s (Ctrl-C again: now)")
            # dbos logs a line for each call that goes back to the queue.
            logging.getLogger("dbos").setLevel(logging.ERROR)


@dataclass(frozen=True)
class BulkRunRecord:
    """A durable bulk run, as a file of `~/.claude/runs/bulk` keeps it.

    Attributes:
        run: its id.
        output: path of its results.
        folder: working directory of its command.
        words: its command line, without the database.
        began: Unix time.
    """

    run: str
    output: str
    folder: str
    words: Tuple[str, ...]
    began: float


def run_id_for(output: Path, words: Sequence[str], is_new: bool) -> str:
    """Returns the id of the run that writes to `output`, and records its command line.

    An output keeps its run unless a new one starts over. Raises CacheError if it can't be recorded.
    """
    real = os.path.realpath(output)
    path = _records() / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}.json"
    before = None if is_new else _read(path)
    if before is not None and before.output == real:
        run, began = before.run, before.began
    else:
        run, began = f"{slug(output.stem)[:_MAX_STEM] or 'bulk'}-{secrets.token_hex(4)}", time.time()
    _write(path, BulkRunRecord(run, real, str(Path.cwd()), tuple(_without_database(words)), began))
    return run


def bulk_records() -> List[BulkRunRecord]:
    """Returns the records of all bulk runs, the newest first. Raises CacheError."""
    found = [_read(path) for path in sorted(_records().glob("*.json"))]
    return sorted((one for one in found if one is not None), key=lambda one: one.began, reverse=True)


def find_record(run: str) -> Optional[BulkRunRecord]:
    """Returns the record of a run; None if another machine or user began it. Raises CacheError."""
    return next((one for one in bulk_records() if one.run == run), None)


def _records() -> Path:
    return cache_folder(cache_folder(settings.user_folder() / "runs") / "bulk")


def _read(path: Path) -> Optional[BulkRunRecord]:
    try:
        with os.fdopen(read_private(path), "rb") as file:
            fields: Any = json.load(file)
        return BulkRunRecord(**{**fields, "words": tuple(fields["words"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        # Missing, or of another version: the output gets a new run.
        return None


def _write(path: Path, record: BulkRunRecord) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        descriptor = open_private(temporary, os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        temporary.replace(path)
    except OSError as error:
        raise CacheError(f"The run can't be recorded in {path.parent}: {error.strerror}.") from error


def _without_database(words: Sequence[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word == _DROPPED_WITH_VALUE:
            next(rest, None)
        elif word not in _DROPPED and not word.startswith(f"{_DROPPED_WITH_VALUE}="):
            yield word
