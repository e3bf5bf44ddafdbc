"""The stand-in as a process: `python -m claude_force.testing --port 8787 --tokens-per-second 80`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import List, Optional

from .limits import RateLimit
from .server import MessagesServer


def main(arguments: Optional[List[str]] = None) -> int:
    """Serves until SIGINT or SIGTERM."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        server = _server(options)
    except ValueError as error:
        parser.error(str(error))
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server.start()
    except OSError as error:
        parser.error(f"can't listen: {error}")
    sys.stdout.write(f"listening on {server.base_url}\n")
    sys.stdout.flush()
    # A wait without a limit can't be interrupted on Windows.
    while not stopped.wait(0.5):
        pass
    server.stop()
    return 0


def _server(options: argparse.Namespace) -> MessagesServer:
    limits = RateLimit(
        options.requests_per_minute, options.input_tokens_per_minute, options.output_tokens_per_minute
    )
    return MessagesServer(
        time_to_first_token=options.time_to_first_token,
        tokens_per_second=options.tokens_per_second,
        output_tokens=options.output_tokens,
        rate_limit=limits if limits != RateLimit() else None,
        host=options.host,
        port=options.port,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m claude_force.testing", description="A Messages API on loopback, without a model."
    )
    parser.add_argument("--host", default="127.0.0.1", help="loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port (default)")
    parser.add_argument("--time-to-first-token", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--tokens-per-second", type=float, metavar="N", help="default: all at once")
    parser.add_argument("--output-tokens", type=int, metavar="N", help="length of each answer")
    parser.add_argument("--requests-per-minute", type=int, metavar="N")
    parser.add_argument("--input-tokens-per-minute", type=int, metavar="N")
    parser.add_argument("--output-tokens-per-minute", type=int, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
