"""Which database a command is told to use, and what it says of the workers there."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Awaitable, Callable, Iterator, List, Optional, TypeVar

from anyio import to_thread

from .. import durable, settings
from ..errors import ConfigurationError, InputError
from ..formatting import format_duration_coarse, pluralize
from . import streams

if TYPE_CHECKING:
    from ..durable import Runs

T = TypeVar("T")

# A worker says once a second that it is there.
DEAD_SECONDS = 5.0
_LOOK_SECONDS, _NOTE_SECONDS = 2.0, 60.0
# Workers have their own: on the command line of a driver they would do nothing.
_WORKERS_OWN = ("timeout", "max_retries", "max_concurrent", "no_stream")


def chosen_database(args: argparse.Namespace) -> Optional[str]:
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


def needed_database(args: argparse.Namespace) -> str:
    """As `chosen_database`, for what is of no use without one: there the environment is enough."""
    url = args.database or settings.database_url()
    if not url:
        raise InputError(
            "Name the database: --database URL, or CLAUDE_FORCE_DATABASE_URL in the environment."
        )
    return str(url)


def driver_database(args: argparse.Namespace) -> Optional[str]:
    """As `chosen_database`, for a command that hands calls over.

    Raises InputError for options that are the workers' own, ConfigurationError where it can't be used.
    """
    url = chosen_database(args)
    if url is None:
        return None
    with opened(url) as runs:
        runs.workers()
        given = [name for name in _WORKERS_OWN if getattr(args, name)]
        if given and not runs.is_embedded:
            option = "--" + given[0].replace("_", "-")
            raise InputError(f"{option} has no effect with a database: workers have their own. Leave it out.")
    return url


@contextmanager
def opened(url: str) -> Iterator[Runs]:
    """The runs in a database. Raises ConfigurationError, InvalidOptionError."""
    runs = durable.Runs(url)
    try:
        yield runs
    finally:
        runs.close()


@contextmanager
def crew_of(url: str) -> Iterator[Crew]:
    """The workers of a database. Raises ConfigurationError, InvalidOptionError."""
    crew = Crew(url)
    try:
        yield crew
    finally:
        crew.close()


class Crew:
    """Looks after the workers of one database, as long as a command waits for them."""

    def __init__(self, url: str, now: Callable[[], float] = time.monotonic) -> None:
        self._runs = durable.Runs(url)
        self._notes = Notes(now)

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


class Notes:
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
