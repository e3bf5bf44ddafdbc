"""Which durable run writes to which output, and its command: notes in `~/.claude/runs/bulk`."""

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
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Iterator, List, Optional, Sequence, Tuple, TypeVar

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
    from ..durable import Runs

T = TypeVar("T")

# A worker says once a second that it is there.
DEAD_SECONDS = 5.0
_LOOK_SECONDS, _NOTE_SECONDS = 2.0, 60.0
# Workers have their own: on the command line of a driver they would do nothing.
_WORKERS_OWN = ("timeout", "max_retries", "max_concurrent", "no_stream")


def database_url(args: argparse.Namespace) -> Optional[str]:
    """The URL that --database gives, or the environment's where --durable asks for it; else None.

    Raises InputError.
    """
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
    """As `database_url`, for what is of no use without one: there the environment is enough."""
    url = args.database or settings.database_url()
    if not url:
        raise InputError(
            "Name the database: --database URL, or CLAUDE_FORCE_DATABASE_URL in the environment."
        )
    return str(url)


def driver_database_url(args: argparse.Namespace) -> Optional[str]:
    """As `database_url`, for a command that hands calls over.

    Raises InputError for options that are the workers' own, ConfigurationError where it can't be used.
    """
    url = database_url(args)
    if url is None:
        return None
    with open_runs(url) as runs:
        runs.workers()
        given = [name for name in _WORKERS_OWN if getattr(args, name)]
        if given and not runs.is_embedded:
            option = "--" + given[0].replace("_", "-")
            raise InputError(f"{option} has no effect with a database: workers have their own. Leave it out.")
    return url


@contextmanager
def open_runs(url: str) -> Iterator[Runs]:
    """The runs in a database. Raises ConfigurationError, InvalidOptionError."""
    runs = durable.Runs(url)
    try:
        yield runs
    finally:
        runs.close()


@contextmanager
def monitor_workers(url: str) -> Iterator[WorkerMonitor]:
    """The workers of a database. Raises ConfigurationError, InvalidOptionError."""
    crew = WorkerMonitor(url)
    try:
        yield crew
    finally:
        crew.close()


class WorkerMonitor:
    """Looks after the workers of one database, as long as a command waits for them."""

    def __init__(self, url: str, now: Callable[[], float] = time.monotonic) -> None:
        self._runs = durable.Runs(url)
        self._notes = WorkerNotices(now)

    @property
    def is_away(self) -> bool:
        """Whether other processes make the calls."""
        return not self._runs.is_embedded

    async def watch(self) -> None:
        """Says that nobody is at work, and when somebody is again. Until it is cancelled."""
        while self.is_away:
            text = self._notes.next(await to_thread.run_sync(self._alive))
            if text:
                streams.status(text)
            await asyncio.sleep(_LOOK_SECONDS)

    async def watched(self, work: Awaitable[T]) -> T:
        """What `work` returns, watched for as long as it lasts."""
        watching = asyncio.ensure_future(self.watch())
        try:
            return await work
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _alive(self) -> Optional[List[str]]:
        try:
            return [one.name for one in self._runs.workers() if one.silent < DEAD_SECONDS]
        except ConfigurationError:
            # The engine meets the same, and says it.
            return None

    def close(self) -> None:
        self._runs.close()


class WorkerNotices:
    """What there is to say of workers, and when. `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._silent_since: Optional[float] = None
        self._said = 0.0

    def next(self, alive: Optional[List[str]]) -> Optional[str]:
        """Of the names of those who are alive; None where that can't be told."""
        if alive is None:
            return None
        if alive:
            back, self._silent_since = self._silent_since is not None, None
            return f"{pluralize(len(alive), 'worker')} at work: {', '.join(alive)}" if back else None
        now = self._now()
        if self._silent_since is None:
            self._silent_since = self._said = now
            return f"no worker is alive; the calls wait for one: {_HOW}"
        if now - self._said < _NOTE_SECONDS:
            return None
        self._said = now
        silent = format_duration_coarse(now - self._silent_since)
        return f"no worker is alive for {silent}; the calls wait for one: {_HOW}"


_HOW = "start `claude-force worker` on any machine that reaches this database"


_LONGEST_NAME = 40
# What a note leaves out of the command: a URL may hold a password, and a run is begun anew only once.
_WITH_A_VALUE, _ALONE = ("--database",), ("--durable", "--no-resume")


@dataclass(frozen=True)
class BulkRunRecord:
    """One durable bulk run. `words` is its command without the database, given in `folder`; `began` is Unix
    time."""

    run: str
    output: str
    folder: str
    words: Tuple[str, ...]
    began: float


def run_id_for(output: Path, words: Sequence[str], afresh: bool) -> str:
    """The id of the run that writes to `output`: the one that it had, unless that is to begin `afresh`.

    Raises CacheError where it can't be noted down.
    """
    real = os.path.realpath(output)
    place = _folder() / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}.json"
    before = None if afresh else _read(place)
    if before is not None and before.output == real:
        run, began = before.run, before.began
    else:
        run, began = f"{slug(output.stem)[:_LONGEST_NAME] or 'bulk'}-{secrets.token_hex(4)}", time.time()
    _write(place, BulkRunRecord(run, real, str(Path.cwd()), tuple(_plain(words)), began))
    return run


def bulk_records() -> List[BulkRunRecord]:
    """All that there are, the newest first. Raises CacheError."""
    found = [_read(place) for place in sorted(_folder().glob("*.json"))]
    return sorted((one for one in found if one is not None), key=lambda one: one.began, reverse=True)


def find_record(run: str) -> Optional[BulkRunRecord]:
    """The note of one run; None where another machine or another user began it. Raises CacheError."""
    return next((one for one in bulk_records() if one.run == run), None)


def _folder() -> Path:
    return cache_folder(cache_folder(settings.user_folder() / "runs") / "bulk")


def _read(place: Path) -> Optional[BulkRunRecord]:
    try:
        with os.fdopen(read_private(place), "rb") as file:
            found: Any = json.load(file)
        return BulkRunRecord(**{**found, "words": tuple(found["words"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        # None, or one of another version: the output then gets a new run.
        return None


def _write(place: Path, note: BulkRunRecord) -> None:
    try:
        descriptor = open_private(place.with_suffix(f".{os.getpid()}"), os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
        place.with_suffix(f".{os.getpid()}").replace(place)
    except OSError as error:
        raise CacheError(f"The run can't be noted down in {place.parent}: {error.strerror}.") from error


def _plain(words: Sequence[str]) -> Iterator[str]:
    leave = False
    for word in words:
        if leave or word in _ALONE or word.startswith(tuple(f"{name}=" for name in _WITH_A_VALUE)):
            leave = False
            continue
        leave = word in _WITH_A_VALUE
        if not leave:
            yield word


if TYPE_CHECKING:
    from ..durable import Worker


def work(args: argparse.Namespace) -> int:
    """Returns 0 after SIGTERM or SIGINT. Raises InputError."""
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
    # It has a name in the database, and calls that others are to have, before its first request.
    with handle_interrupts(worker.stop, never):
        async with worker:
            streams.status(f"worker {worker.name} takes calls; Ctrl-C stops it")
            await worker.stopped()
            streams.status(f"stopping; what is on the wire may end within {args.grace} s (Ctrl-C again: now)")
            # For each call that goes back to the others it has a line that says so.
            logging.getLogger("dbos").setLevel(logging.ERROR)
