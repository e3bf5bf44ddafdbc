"""Many calls: streams of tasks, and how they go."""

from .output import Output
from .progress import Cached, Event, Finished, OnEvent, Paused, Progress, Queued, Retried, Started, Tracker
from .rows import Row, Rows, TaskFile
from .run import FileRun, Outcome
from .sources import SourceFiles
from .stream import OnResult, RunOne, Tasks, each, most_under_way, pair, row, stream

__all__ = [
    "Cached",
    "Event",
    "FileRun",
    "Finished",
    "OnEvent",
    "OnResult",
    "Outcome",
    "Output",
    "Paused",
    "Progress",
    "Queued",
    "Retried",
    "Row",
    "Rows",
    "RunOne",
    "SourceFiles",
    "Started",
    "TaskFile",
    "Tasks",
    "Tracker",
    "each",
    "most_under_way",
    "pair",
    "row",
    "stream",
]
