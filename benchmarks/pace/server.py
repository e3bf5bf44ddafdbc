"""The package's stand-in with limits, in a process of its own: `python -m benchmarks.pace.server WORKLOAD
ROWS SCALE`.

Prints its address, serves until its standard input ends, then prints what it saw as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Dict, List, Tuple

from claude_force.testing import MessagesServer, RateLimit
from claude_force.testing.tokens import input_tokens

from ..used import cpu_seconds
from .rows import (
    CHARACTERS_PER_TOKEN,
    FIRST_TOKEN_SECONDS,
    INPUT,
    OUTPUT,
    REQUESTS,
    TOKENS_PER_SECOND,
    number_of,
    rows,
)


def serve(workload: str, count: int, scale: float) -> Dict[str, Any]:
    """Simulated seconds pass `scale` times as fast as real ones."""
    answers = ["x" * CHARACTERS_PER_TOKEN * row.answer for row in rows(workload, count)]
    taken: List[Tuple[float, int, int]] = []

    def clock() -> float:
        return time.monotonic() * scale

    def answer(body: Dict[str, Any]) -> str:
        # Asked for only when the limits had room for the request.
        text = answers[number_of(body["messages"][0]["content"])]
        taken.append((clock(), input_tokens(body), len(text) // CHARACTERS_PER_TOKEN))
        return text

    with MessagesServer(
        time_to_first_token=FIRST_TOKEN_SECONDS / scale,
        tokens_per_second=TOKENS_PER_SECOND * scale,
        answer=answer,
        rate_limit=RateLimit(REQUESTS, INPUT, OUTPUT),
        clock=clock,
    ) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()
        arrivals = [request.at for request in server.requests]
    began = arrivals[0] if arrivals else 0.0
    return {
        "arrivals": [at - began for at in arrivals],
        "taken": [(at - began, size, tokens) for at, size, tokens in taken],
        "most_in_flight": server.max_in_flight,
        "cpu_seconds": cpu_seconds(),
    }


if __name__ == "__main__":
    print(json.dumps(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))), flush=True)
