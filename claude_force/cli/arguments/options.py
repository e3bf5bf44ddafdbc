"""Every argument of every verb, one entry each. A new option is one entry here and its name in `verbs.py`.

Nothing heavy is imported here: `--help` builds its parsers from this table.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from ... import settings
from .types import TextOrJson, concurrent, number, whole

# The groups of the help, in the order in which it shows them.
INPUT = "what to run"
OTHER = "options"
OUTPUT = "output and resuming"
ANSWER = "the answer"
LIMITS = "limits"
COST = "cost"
CACHE = "caches"
WORKERS = "durable runs"
GROUPS = (INPUT, OTHER, OUTPUT, ANSWER, LIMITS, COST, CACHE, WORKERS)


class Option(NamedTuple):
    """One argument.

    Attributes:
        flags: its spellings; a positional argument has one, without dashes.
        help: what it does; the default is added from `settings` or `default`.
        values: what shell completion offers: "agents", "workflows", "names", "models", "files" or "folders".
        default: the default to show where the parser has none because the engine has it.
        excludes: options with the same word here exclude each other.
        settings: further arguments of argparse's `add_argument`.
    """

    flags: Tuple[str, ...]
    help: str
    group: str
    values: str
    default: Optional[str]
    excludes: str
    settings: Mapping[str, Any]

    def text(self) -> str:
        """The help with the default."""
        default = self.default
        if default is None and self.settings.get("default") not in (None, False, argparse.SUPPRESS):
            value = self.settings["default"]
            default = f"{value:g}" if isinstance(value, float) else str(value)
        return self.help if default is None else f"{self.help} (default: {default})"


def _option(
    *flags: str,
    help: str,
    group: str = OTHER,
    values: str = "",
    shown: Optional[object] = None,
    excludes: str = "",
    **settings: Any,
) -> Option:
    return Option(flags, help, group, values, None if shown is None else str(shown), excludes, settings)


def _switch(*flags: str, help: str, group: str = OTHER, excludes: str = "", **settings: Any) -> Option:
    return _option(*flags, help=help, group=group, excludes=excludes, action="store_true", **settings)


def _output(help: str, group: str = OTHER, shown: Optional[object] = None, metavar: str = "FILE") -> Option:
    flags = ("-o", "--output")
    return _option(*flags, help=help, group=group, values="files", shown=shown, metavar=metavar)


def _tokens_a_minute(which: str, *flags: str, of: str) -> Option:
    return _option(*flags, help=f"{which} tokens {of}", group=LIMITS, metavar="N", type=number)


_BELOW = "per minute, below what the server allows"
_SHARED = "per minute, shared by all workers"
_URL = "postgresql://user:password@host/name or sqlite:///FILE"
_IN_ENVIRONMENT = "the same, with the URL in CLAUDE_FORCE_DATABASE_URL"


def _database(what: str) -> Option:
    return _option("--database", help=f"{what}: {_URL}", group=WORKERS, excludes="database", metavar="URL")


def _grace(help: str, default: float) -> Option:
    return _option("--grace", help=help, group=LIMITS, metavar="SECONDS", type=number, default=default)


OPTIONS: Dict[str, Option] = {
    # What to run.
    "agent_name": _option("name", help="name of an agent", group=INPUT, values="agents", metavar="NAME"),
    "workflow_name": _option(
        "name", help="name of a workflow", group=INPUT, values="workflows", metavar="NAME"
    ),
    "any_name": _option(
        "name", help="name of an agent or a workflow", group=INPUT, values="names", metavar="NAME"
    ),
    "run_id": _option("run", help="id of a run, as `runs list` shows it", group=INPUT, metavar="RUN"),
    "task": _option("--task", help="the task itself", group=INPUT, excludes="task", metavar="TEXT"),
    "task_file": _option(
        "--task-file",
        help="a UTF-8 file that holds the task, or - for standard input",
        group=INPUT,
        values="files",
        excludes="task",
        metavar="FILE",
    ),
    "tasks": _option(
        "tasks",
        help=".jsonl, .csv, .tsv, .json or .txt; - reads JSON lines from standard input",
        group=INPUT,
        values="files",
        nargs="?",
        metavar="TASKS",
    ),
    "row_agent": _option(
        "--agent", help="agent of rows that name none", group=INPUT, values="agents", metavar="NAME"
    ),
    "files": _option(
        "--files",
        help="make a row of each file, such as 'src/**/*.py'",
        group=INPUT,
        values="files",
        nargs="+",
        metavar="PATTERN",
    ),
    "files_task": _option(
        "--task",
        help="with --files: what to do with each file",
        group=INPUT,
        excludes="task",
        metavar="TEXT",
    ),
    "files_task_file": _option(
        "--task-file",
        help="with --files: a UTF-8 file that says what to do with each file",
        group=INPUT,
        values="files",
        excludes="task",
        metavar="FILE",
    ),
    "limit": _option("--limit", help="run only the first N rows", group=INPUT, metavar="N", type=whole),
    "input": _option(
        "--input",
        help="a value that the workflow's tasks name; may be repeated",
        group=INPUT,
        action="append",
        metavar="NAME=TEXT",
    ),
    "inputs": _option(
        "--inputs",
        help="a JSON object of such values; lists are allowed",
        group=INPUT,
        values="files",
        metavar="FILE",
    ),
    "no_pass_output": _switch(
        "--no-pass-output", help="give each agent the task alone, without earlier answers", group=INPUT
    ),
    # Output and resuming.
    "results": _output(
        "results as JSON lines; the same command resumes the file; - is standard output",
        group=OUTPUT,
        metavar="RESULTS",
    ),
    "answer_file": _output("also write the answer to a file", group=OUTPUT),
    "workflow_file": _output("also write the results to a file, as JSON", group=OUTPUT),
    "retry_failed": _switch("--retry-failed", help="run the failed rows of the output again", group=OUTPUT),
    "no_resume": _switch("--no-resume", help="start over: drop the results in the output", group=OUTPUT),
    "resume": _option(
        "--resume",
        help="continue a run: ask and pay only for what is missing",
        group=OUTPUT,
        metavar="RUN",
    ),
    # The answer.
    "max_tokens": _option(
        "--max-tokens",
        help="longest answer, in tokens",
        group=ANSWER,
        shown=f"{settings.MAX_TOKENS}; {settings.MAX_TOKENS_THINKING} for a model that thinks",
        metavar="N",
        type=whole,
    ),
    "temperature": _option(
        "--temperature",
        help="from 0 to 1, for models that take it",
        group=ANSWER,
        shown="the API's",
        metavar="X",
        type=number,
    ),
    "no_stream": _switch("--no-stream", help="ask for each answer in one piece", group=ANSWER),
    # Limits.
    "timeout": _option(
        "--timeout",
        help="longest silence of the server",
        group=LIMITS,
        shown=f"{settings.TIMEOUT_SECONDS:g}",
        metavar="SECONDS",
        type=number,
    ),
    "deadline": _option(
        "--deadline",
        help="longest time of a call with its retries",
        group=LIMITS,
        shown="none",
        metavar="SECONDS",
        type=number,
    ),
    "max_retries": _option(
        "--max-retries",
        help="attempts per call, counting the first",
        group=LIMITS,
        shown=settings.MAX_ATTEMPTS,
        metavar="N",
        type=whole,
    ),
    "max_concurrent": _option(
        "--max-concurrent",
        help="requests in flight at one time, or auto to find the number",
        group=LIMITS,
        shown=settings.MAX_CONCURRENT,
        metavar="N",
        type=concurrent,
    ),
    "rpm": _option("--rpm", help=f"requests {_BELOW}", group=LIMITS, metavar="N", type=number),
    "input_tpm": _tokens_a_minute("input", "--input-tpm", "--tpm", of=_BELOW),
    "output_tpm": _tokens_a_minute("output", "--output-tpm", of=_BELOW),
    "grace": _grace("time for requests in flight to finish after Ctrl-C", 30.0),
    "fail_fast": _switch("--fail-fast", help="start nothing new after a failure", group=LIMITS, default=None),
    # Cost.
    "budget": _option(
        "--budget",
        help="hard limit on what this command spends",
        group=COST,
        shown="none",
        metavar="USD",
        type=number,
    ),
    "output_budget": _option(
        "--budget",
        help="hard limit on what the results cost, earlier runs of the same output included",
        group=COST,
        shown="none",
        metavar="USD",
        type=number,
    ),
    "price": _option(
        "--price",
        help="USD per million input and output tokens of a model without a list price; may be repeated",
        group=COST,
        action="append",
        metavar="MODEL=IN,OUT",
    ),
    "estimate": _switch("--estimate", help="show what it would use and cost; send nothing", group=COST),
    "plan": _switch(
        "--plan", help="show the order of the steps and what they would cost; send nothing", group=COST
    ),
    # Caches.
    "cache": _option(
        "--cache",
        help="answer cache: use, refresh or bypass it",
        group=CACHE,
        choices=["use", "refresh", "off"],
        default="use",
    ),
    "cache_ttl": _option(
        "--cache-ttl",
        help="lifetime of the API's prompt cache",
        group=CACHE,
        shown="5m",
        choices=["5m", "1h"],
    ),
    "cache_dir": _option(
        "--dir", help="folder of the cache", values="folders", shown="~/.claude/cache", metavar="PATH"
    ),
    "cache_agent": _option("--agent", help="only the answers of this agent", values="agents", metavar="NAME"),
    "remove": _switch("--remove", help="remove entries whose signature is wrong"),
    # Durable runs.
    "run_database": _database("let workers make the calls, over this database"),
    "list_database": _database("show the runs of this database too"),
    "the_database": _database("the database of the runs"),
    "workers_database": _database("the database of the workers"),
    "durable": _switch("--durable", help=_IN_ENVIRONMENT, group=WORKERS, excludes="database"),
    "worker_database": _option(
        "--database",
        help="Postgres of the durable runs; prefer CLAUDE_FORCE_DATABASE_URL, as others can read a "
        "command line",
        group=WORKERS,
        metavar="URL",
    ),
    "worker_name": _option(
        "--name",
        help="the same after each restart, and unique",
        group=WORKERS,
        shown="the first free of HOST-1, HOST-2 ...",
        metavar="ID",
    ),
    "concurrency": _option(
        "--max-concurrent",
        "--concurrency",
        help="requests in flight at one time",
        group=LIMITS,
        dest="concurrency",
        default=10,
        metavar="N",
        type=whole,
    ),
    "shared_rpm": _option("--rpm", help=f"requests {_SHARED}", group=LIMITS, metavar="N", type=number),
    "shared_input_tpm": _tokens_a_minute("input", "--input-tpm", "--tpm", of=_SHARED),
    "shared_output_tpm": _tokens_a_minute("output", "--output-tpm", of=_SHARED),
    "worker_grace": _option(
        "--grace",
        help="time for requests in flight to finish when the worker is stopped",
        group=LIMITS,
        default=30,
        metavar="SECONDS",
        type=whole,
    ),
    "last": _option("--last", help="how many runs", default=20, metavar="N", type=whole),
    "days": _option(
        "--days", help="remove runs that began longer ago", default=30.0, metavar="N", type=number
    ),
    # The ledger.
    "hours": _option("--hours", help="what ended in the last N hours", metavar="N", type=number),
    "since": _option(
        "--since", help="what ended since a date, a time, or 45m, 3h, 2d, 1w ago", metavar="WHEN"
    ),
    "export_format": _option(
        "--format",
        help="json or csv: each execution; prometheus: metrics to scrape",
        choices=["json", "csv", "prometheus"],
        default="json",
    ),
    "export_file": _option(
        "file", help="file to write, as -o", group=INPUT, values="files", nargs="?", metavar="FILE"
    ),
    "export_output": _output("file to write", shown="standard output"),
    "report_run": _option(
        "--run", help="a run's id, or last", shown="last, without --hours and --since", metavar="ID"
    ),
    "report_output": _output("file to write", shown=".claude/metrics/report.html"),
    # The other verbs.
    "folder": _option(
        "folder",
        help="the project's folder",
        values="folders",
        shown="the working directory",
        nargs="?",
        metavar="FOLDER",
    ),
    "offline": _switch("--offline", help="send nothing to the endpoint", excludes="how"),
    "send": _switch(
        "--send",
        help="also send a paid request of a few tokens, whose answer tells the rate limits",
        excludes="how",
    ),
    "as_json": _option(
        "--format",
        help="json: the same as --json",
        group=OUTPUT,
        shown="text",
        action=TextOrJson,
        choices=["text", "json"],
        default=argparse.SUPPRESS,
    ),
    "listed": _option(
        "what",
        help="what to list",
        choices=["agents", "workflows"],
        metavar="{agents,workflows}",
    ),
    "drawing": _option(
        "--format",
        help="lines, a Mermaid flowchart or Graphviz",
        choices=["text", "mermaid", "dot"],
        default="text",
    ),
    "live": _switch("--live", help="use the real API and pay for it"),
    "calls": _option("--calls", help="calls in the last round", default=10, metavar="N", type=whole),
    "shell": _option("shell", help="the shell", choices=["bash", "zsh", "fish"]),
}
