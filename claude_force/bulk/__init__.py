"""Many calls: streams of tasks, and how they go."""

from .progress import (
    Cached,
    Event,
    Finished,
    OnEvent,
    Paused,
    Progress,
    ProgressTracker,
    Queued,
    Retried,
    Started,
)
from .results_file import Results, ResultsFile
from .resumable_run import ResumableRun, RunSummary
from .sources import SourceFiles
from .standard_streams import STDIN, STDOUT, StdoutResults, spooled
from .task_file import Row, Rows, TaskFile
from .task_stream import (
    OnResult,
    RunOne,
    Task,
    Tasks,
    aiter_any,
    most_under_way,
    parse_task,
    run_row,
    stream_results,
)

__all__ = [
    "STDIN",
    "STDOUT",
    "Cached",
    "Event",
    "Finished",
    "OnEvent",
    "OnResult",
    "Paused",
    "Progress",
    "ProgressTracker",
    "Queued",
    "Results",
    "ResultsFile",
    "ResumableRun",
    "Retried",
    "Row",
    "Rows",
    "RunOne",
    "RunSummary",
    "SourceFiles",
    "Started",
    "StdoutResults",
    "Task",
    "TaskFile",
    "Tasks",
    "aiter_any",
    "most_under_way",
    "parse_task",
    "run_row",
    "spooled",
    "stream_results",
]
