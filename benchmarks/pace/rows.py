"""The requests and limits of the workloads, the same for the server and for every client."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import List, Tuple

REQUESTS, INPUT, OUTPUT = 1_000, 200_000, 40_000
MAX_TOKENS = 4096
# Seconds to the first token, and tokens a second from there.
FIRST_TOKEN_SECONDS, TOKENS_PER_SECOND = 2.0, 80.0
# Mean tokens in and out of a row, so that one of the limits is the tightest.
MEANS = {"output": (120, 70), "input": (400, 20), "requests": (40, 8)}
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Row:
    """A task of the size that it is to have, and the tokens of its answer."""

    task: str
    answer: int


def rows(workload: str, count: int) -> List[Row]:
    """The same at every call; sizes are log-normal and differ a hundredfold."""
    chance, (mean_in, mean_out) = random.Random(7), MEANS[workload]
    return [_row(chance, number, mean_in, mean_out) for number in range(count)]


def number_of(task: str) -> int:
    """Of the row that a task belongs to."""
    return int(task.split(None, 1)[0])


def spread(found: List[Row]) -> Tuple[float, float]:
    """How many times the largest task and answer are the smallest."""
    sizes = [len(row.task) for row in found]
    answers = [row.answer for row in found]
    return max(sizes) / min(sizes), max(answers) / min(answers)


def _row(chance: random.Random, number: int, mean_in: float, mean_out: float) -> Row:
    # The mean of a log-normal is exp(sigma squared / 2): 1.65 and 1.38.
    size = int(chance.lognormvariate(0, 1) * CHARACTERS_PER_TOKEN * mean_in / 1.65)
    answer = int(chance.lognormvariate(0, 0.8) * mean_out / 1.38)
    return Row(f"{number:06d} ".ljust(min(60_000, size), "x"), min(MAX_TOKENS, max(1, answer)))
