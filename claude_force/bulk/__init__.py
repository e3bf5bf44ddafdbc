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
from .result_lines import STDIN, STDOUT, StdoutResults, spool
from .results_file import Results, ResultsFile
from .resumable_run import ResumableRun, RunSummary
from .sources import SourceFiles
from .task_file import TaskFile, TaskRow, TaskRows
from .task_stream import (
    OnResult,
    RunOne,
    Task,
    Tasks,
    aiter_any,
    parse_task,
    run_row,
    stream_results,
    task_limit,
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
    "RunOne",
    "RunSummary",
    "SourceFiles",
    "Started",
    "StdoutResults",
    "Task",
    "TaskFile",
    "TaskRow",
    "TaskRows",
    "Tasks",
    "aiter_any",
    "parse_task",
    "run_row",
    "spool",
    "stream_results",
    "task_limit",
]
