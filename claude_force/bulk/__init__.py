"""Many calls: streams of tasks, and how they go."""

from .output import Output, Results
from .progress import Cached, Event, Finished, OnEvent, Paused, Progress, Queued, Retried, Started, Tracker
from .rows import Row, Rows, TaskFile
from .run import FileRun, Outcome
from .sources import SourceFiles
from .standard_streams import STDIN, STDOUT, StdoutResults, spooled
from .stream import OnResult, RunOne, Task, Tasks, each, most_under_way, pair, row, stream

__all__ = [
    "STDIN",
    "STDOUT",
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
    "Results",
    "Retried",
    "Row",
    "Rows",
    "RunOne",
    "SourceFiles",
    "Started",
    "StdoutResults",
    "Task",
    "TaskFile",
    "Tasks",
    "Tracker",
    "each",
    "most_under_way",
    "pair",
    "row",
    "spooled",
    "stream",
]
