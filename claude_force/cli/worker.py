"""`worker`: makes the calls of durable runs until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import TYPE_CHECKING

from .. import durable
from . import streams
from .database import needed_database
from .signals import caught, never

if TYPE_CHECKING:
    from ..durable import Worker


def work(args: argparse.Namespace) -> int:
    """Returns 0 after SIGTERM or SIGINT. Raises InputError."""
    asyncio.run(_work(args))
    return 0


async def _work(args: argparse.Namespace) -> None:
    worker: Worker = durable.Worker(
        needed_database(args),
        args.concurrency,
        args.name,
        rpm=args.rpm,
        input_tpm=args.input_tpm,
        output_tpm=args.output_tpm,
        grace_seconds=args.grace,
    )
    # It has a name in the database, and calls that others are to have, before its first request.
    with caught(worker.stop, never):
        async with worker:
            streams.status(f"worker {worker.name} takes calls; Ctrl-C stops it")
            await worker.stopped()
            streams.status(f"stopping; what is on the wire may end within {args.grace} s (Ctrl-C again: now)")
            # For each call that goes back to the others it has a line that says so.
            logging.getLogger("dbos").setLevel(logging.ERROR)
