"""Many calls: streams of tasks, and how they go."""

from .progress import Cached, Event, Finished, OnEvent, Paused, Progress, Queued, Retried, Started, Tracker
from .stream import OnResult, Tasks, each, pair, row, stream

__all__ = [
    "Cached",
    "Event",
    "Finished",
    "OnEvent",
    "OnResult",
    "Paused",
    "Progress",
    "Queued",
    "Retried",
    "Started",
    "Tasks",
    "Tracker",
    "each",
    "pair",
    "row",
    "stream",
]
