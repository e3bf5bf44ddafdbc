"""Bulk runs: streams of tasks, their progress, and runs from a file of tasks to a file of results."""

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
    ToolEnded,
    ToolStarted,
    TurnBegan,
    TurnEnded,
)
from .results_file import STDOUT, Results, ResultsFile, StdoutResults
from .resumable_run import ResumableRun
from .run_summary import RunSummary
from .sources import SourceFiles
from .task_file import STDIN, TaskFile, TaskRow, TaskRows, spool
from .task_stream import (
    OnResult,
    RunOne,
    Tasks,
    aiter_any,
    parse_task,
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
    "TaskFile",
    "TaskRow",
    "TaskRows",
    "Tasks",
    "ToolEnded",
    "ToolStarted",
    "TurnBegan",
    "TurnEnded",
    "aiter_any",
    "parse_task",
    "spool",
    "stream_results",
    "task_limit",
]
