"""Every option of every verb, one row each. A new option is a row here and its name in `verbs.py`.

Nothing heavy is imported: each command, `--help` too, starts with this table.
"""

from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Sequence, Tuple, Union

from .. import settings

# Groups of the help, in the order in which it shows them.
INPUT = "what to run"
OTHER = "options"
OUTPUT = "output and resuming"
ANSWER = "the answer"
TOOLS = "tools of agents"
LIMITS = "limits"
COST = "cost"
CACHE = "caches"
WORKERS = "durable runs"
COMMON = "common options"
GROUPS = (INPUT, OTHER, OUTPUT, ANSWER, TOOLS, LIMITS, COST, CACHE, WORKERS, COMMON)


class Option(NamedTuple):
    """An argument of a verb.

    Attributes:
        flags: its spellings, such as ("-o", "--output"); empty for a positional argument.
        metavar: placeholder of its value; "" for a switch.
        help: what it does, with the unit and the default.
        group: heading in the help.
        completes: what shell completion offers: "agents", "workflows", "names" (both), "models", "files" or
            "folders".
        excludes: options with the same word exclude each other.
        choices: the values that it takes; empty where any text may be a value.
        argparse_arguments: further arguments of argparse's `add_argument`.
    """

    flags: Tuple[str, ...]
    metavar: str
    help: str
    group: str
    completes: str
    excludes: str
    choices: Tuple[str, ...]
    argparse_arguments: Mapping[str, Any]


def _option(
    spelling: str,
    help: str,
    completes: str = "",
    *,
    shown: object = None,
    excludes: str = "",
    **argparse_arguments: Any,
) -> Option:
    """Makes an option of its spelling, such as "-o --output FILE", "--cache {use,off}", "--plan" or "NAME".

    `shown` is the default in the help where the engine, not the parser, sets it.
    """
    words = spelling.split()
    flags = tuple(word for word in words if word.startswith("-"))
    metavar = words[-1] if len(words) > len(flags) else ""
    choices = tuple(metavar[1:-1].split(",")) if metavar.startswith("{") else ()
    if choices:
        argparse_arguments.setdefault("type", one_of(choices))
    default = argparse_arguments.get("default")
    if shown is None and default not in (None, argparse.SUPPRESS):
        shown = f"{default:g}" if isinstance(default, float) else default
    text = help if shown is None else f"{help} (default: {shown})"
    return Option(flags, metavar, text, "", completes, excludes, choices, argparse_arguments)


def _group(title: str, **options: Option) -> Dict[str, Option]:
    return {name: one._replace(group=title) for name, one in options.items()}


# argparse names the type in its message about a wrong value by the function's `__name__`.


def concurrency(text: str) -> Union[int, str]:
    """Returns a number of requests, or "auto"."""
    return text if text == "auto" else int(text)


def whole(text: str) -> int:
    """Returns a whole number."""
    return int(text)


def number(text: str) -> float:
    """Returns a finite number."""
    value = float(text)
    if value - value != 0:  # nan, inf
        raise ValueError(text)
    return value


def model(text: str) -> str:
    """Returns a model's alias or id."""
    # Imported here: few commands name a model.
    from ..agents.names import is_model_name

    if text.strip() and not is_model_name(text.strip()):
        raise ValueError(text)
    return text


concurrency.__name__ = "whole number or auto"
whole.__name__ = "whole number"


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Returns a type whose values are these words."""

    def check(text: str) -> str:
        if text in choices:
            return text
        hint = did_you_mean(text, choices) or f" (choose from {', '.join(choices)})"
        raise argparse.ArgumentTypeError(f"there is no {text!r}{hint}")

    return check


def text_or_json(text: str) -> bool:
    """Returns whether `--format` asks for JSON. Version 1.x had it instead of `--json`."""
    return one_of(("text", "json"))(text) == "json"


def did_you_mean(word: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """Returns what to add to a message about `word`: "; did you mean list?", or "" where nothing is near."""
    from ..agents.names import suggest

    close = [shown(one) for one in suggest(word, known)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


_BELOW = "per minute, below the server's limit"
_SHARED = "per minute, shared by all workers"
_DATABASE = "postgresql://user:password@host/name or sqlite:///FILE"

OPTIONS: Mapping[str, Option] = {
    **_group(
        INPUT,
        agent_name=_option("NAME", "name of the agent", "agents", dest="name"),
        workflow_name=_option("NAME", "name of the workflow", "workflows", dest="name"),
        any_name=_option("NAME", "name of an agent or a workflow", "names", dest="name"),
        run_id=_option("RUN", "id of the run, as `runs list` shows it", dest="run"),
        task=_option("--task TEXT", "the task", excludes="task"),
        task_file=_option(
            "--task-file FILE", "UTF-8 file with the task, or - for standard input", "files", excludes="task"
        ),
        tasks=_option(
            "TASKS",
            "task file (.jsonl, .csv, .tsv, .json or .txt), or - for JSON lines on standard input",
            "files",
            dest="tasks",
            nargs="?",
        ),
        row_agent=_option("--agent NAME", "agent of rows that name none", "agents"),
        files=_option(
            "--files PATTERN", "files to make one row each of, such as 'src/**/*.py'", "files", nargs="+"
        ),
        files_task=_option("--task TEXT", "with --files: the task for each file", excludes="task"),
        files_task_file=_option(
            "--task-file FILE", "with --files: UTF-8 file with that task", "files", excludes="task"
        ),
        limit=_option("--limit N", "run only the first N rows", type=whole),
        input=_option("--input NAME=TEXT", "input of the workflow; may be repeated", action="append"),
        inputs=_option("--inputs FILE", "JSON object of inputs; values may be lists", "files"),
        export_file=_option("FILE", "file to write, as -o", "files", dest="file", nargs="?"),
        no_pass_output=_option("--no-pass-output", "give each agent only the task, without earlier answers"),
    ),
    **_group(
        OUTPUT,
        results=_option(
            "-o --output RESULTS",
            "results as JSON lines, or - for standard output; the same command resumes the file",
            "files",
        ),
        answer_file=_option("-o --output FILE", "also write the answer to a file", "files"),
        workflow_file=_option("-o --output FILE", "also write the results to a file, as JSON", "files"),
        retry_failed=_option("--retry-failed", "run the failed rows of the output again"),
        no_resume=_option("--no-resume", "start over: drop the results in the output"),
        resume=_option("--resume RUN", "continue a run: request and pay only for what is missing"),
        as_json=_option(
            "--format {text,json}",
            "json is the same as --json",
            shown="text",
            dest="json",
            type=text_or_json,
            default=argparse.SUPPRESS,
        ),
    ),
    **_group(
        ANSWER,
        max_tokens=_option(
            "--max-tokens N",
            "longest answer, in tokens",
            shown=f"{settings.MAX_TOKENS}; {settings.MAX_TOKENS_THINKING} for a model that thinks",
            type=whole,
        ),
        temperature=_option(
            "--temperature X", "from 0 to 1, for models that take it", shown="the API's", type=number
        ),
        no_stream=_option("--no-stream", "request each answer in one piece"),
    ),
    **_group(
        TOOLS,
        tools=_option(
            "--tools GRANT",
            "what agents may use of the tools that their files name: none, read, edit (read too), bash (edit "
            "too), or a list such as 'Read,Bash(git diff:*)'",
            shown="none, or tools in ~/.claude/claude-force.toml",
        ),
        add_dir=_option(
            "--add-dir DIR",
            "folder outside the project that tools may use too; may be repeated",
            "folders",
            action="append",
        ),
        max_turns=_option(
            "--max-turns N",
            "most requests of an agent that uses tools",
            shown=f"its file's maxTurns, else {settings.MAX_TURNS}",
            type=whole,
        ),
        max_tool_calls=_option("--max-tool-calls N", "most tool calls of an agent", shown="none", type=whole),
        in_place=_option("--in-place", "let tools change the project itself, and not a copy of it"),
        apply=_option("--apply", "apply what agents changed in their copies to the project"),
        patch_file=_option("--patch FILE", "write what the agent changed in its copy to FILE", "files"),
    ),
    **_group(
        LIMITS,
        timeout=_option(
            "--timeout SECONDS",
            "seconds without a byte before an attempt fails",
            shown=f"{settings.TIMEOUT_SECONDS:g}",
            type=number,
        ),
        deadline=_option(
            "--deadline SECONDS", "seconds for a whole call with its retries", shown="none", type=number
        ),
        max_retries=_option(
            "--max-retries N",
            "attempts per call, including the first",
            shown=settings.MAX_ATTEMPTS,
            type=whole,
        ),
        max_concurrent=_option(
            "--max-concurrent N",
            "requests in flight at once, or auto to adapt the number",
            shown=settings.MAX_CONCURRENT,
            type=concurrency,
        ),
        concurrency=_option(
            "--max-concurrent --concurrency N",
            "requests in flight at once",
            default=10,
            dest="concurrency",
            type=whole,
        ),
        rpm=_option("--rpm N", f"requests {_BELOW}", type=number),
        input_tpm=_option("--input-tpm --tpm N", f"input tokens {_BELOW}", type=number),
        output_tpm=_option("--output-tpm N", f"output tokens {_BELOW}", type=number),
        shared_rpm=_option("--rpm N", f"requests {_SHARED}", type=number),
        shared_input_tpm=_option("--input-tpm --tpm N", f"input tokens {_SHARED}", type=number),
        shared_output_tpm=_option("--output-tpm N", f"output tokens {_SHARED}", type=number),
        grace=_option(
            "--grace SECONDS",
            "seconds to let in-flight requests finish after Ctrl-C",
            default=30.0,
            type=number,
        ),
        worker_grace=_option(
            "--grace SECONDS",
            "seconds to let in-flight requests finish when the worker is stopped",
            default=30,
            type=whole,
        ),
        fail_fast=_option("--fail-fast", "start nothing new after a failure", default=None),
    ),
    **_group(
        COST,
        budget=_option("--budget USD", "hard limit on the cost of this command", shown="none", type=number),
        output_budget=_option(
            "--budget USD",
            "hard limit on the cost of the results, including earlier runs of the same output",
            shown="none",
            type=number,
        ),
        call_budget=_option(
            "--call-budget USD",
            "hard limit on the cost of each call; of an agent that uses tools, with all its turns",
            shown="none",
            type=number,
        ),
        price=_option(
            "--price MODEL=IN,OUT",
            "USD per million input and output tokens of a model without a list price; may be repeated",
            action="append",
        ),
        estimate=_option("--estimate", "show expected tokens and cost; send nothing"),
        dry_run=_option("--dry-run", "show the first request, with its tools; send nothing"),
        plan=_option("--plan", "show the order of the steps and the expected cost; send nothing"),
    ),
    **_group(
        CACHE,
        cache=_option("--cache {use,refresh,off}", "answer cache: use, refresh or bypass", default="use"),
        cache_ttl=_option("--cache-ttl {5m,1h}", "lifetime of the API's prompt cache", shown="5m"),
    ),
    **_group(
        WORKERS,
        run_database=_option(
            "--database URL",
            f"let workers make the calls, over this database: {_DATABASE}",
            excludes="database",
        ),
        list_database=_option(
            "--database URL", f"show the runs of this database too: {_DATABASE}", excludes="database"
        ),
        the_database=_option("--database URL", f"database of the runs: {_DATABASE}", excludes="database"),
        workers_database=_option(
            "--database URL", f"database of the workers: {_DATABASE}", excludes="database"
        ),
        durable=_option(
            "--durable", "the same, with the URL in CLAUDE_FORCE_DATABASE_URL", excludes="database"
        ),
        worker_database=_option(
            "--database URL",
            "Postgres of the durable runs; prefer CLAUDE_FORCE_DATABASE_URL: others can read a command line",
        ),
        worker_name=_option(
            "--name ID",
            "unique, and the same after each restart",
            shown="the first free of HOST-1, HOST-2 ...",
        ),
    ),
    **_group(
        OTHER,
        cache_dir=_option("--dir PATH", "cache folder", "folders", shown="~/.claude/cache"),
        cache_agent=_option("--agent NAME", "only the answers of this agent", "agents"),
        remove=_option("--remove", "remove entries with a wrong signature"),
        last=_option("--last N", "number of runs", default=20, type=whole),
        days=_option("--days N", "remove runs that began more than N days ago", default=30.0, type=number),
        hours=_option("--hours N", "only what ended in the last N hours", type=number),
        since=_option("--since WHEN", "only what ended since a date, a time, or 45m, 3h, 2d, 1w ago"),
        export_format=_option(
            "--format {json,csv,prometheus}",
            "json or csv: each execution; prometheus: metrics to scrape",
            default="json",
        ),
        export_output=_option("-o --output FILE", "file to write", "files", shown="standard output"),
        report_run=_option("--run ID", "id of a run, or last", shown="last, without --hours and --since"),
        report_output=_option(
            "-o --output FILE", "file to write", "files", shown=".claude/metrics/report.html"
        ),
        folder=_option(
            "FOLDER", "project folder", "folders", shown="the working directory", dest="folder", nargs="?"
        ),
        offline=_option("--offline", "send nothing to the endpoint", excludes="how"),
        send=_option(
            "--send", "also send a paid request of a few tokens, which shows the rate limits", excludes="how"
        ),
        info_tools=_option(
            "--tools GRANT",
            "show what the agent would be given under this grant: none, read, edit, bash, or names and rules "
            "such as 'Read,Bash(git diff:*)'",
            shown="each level",
        ),
        listed=_option("{agents,workflows}", "what to list", dest="what"),
        drawing=_option(
            "--format {text,mermaid,dot}", "lines, a Mermaid flowchart or Graphviz", default="text"
        ),
        live=_option("--live", "call the real API and pay for it"),
        calls=_option("--calls N", "calls in the last round", default=10, type=whole),
        which_shell=_option("{bash,zsh,fish}", "the shell", dest="shell"),
    ),
    **_group(
        COMMON,
        json=_option("--json", "print JSON, and only JSON"),
        api_key=_option("--api-key KEY", "prefer ANTHROPIC_API_KEY: others can read a command line"),
        config=_option(
            "--config PATH",
            "claude.json, .claude folder or project to use",
            "files",
            shown="found by walking up",
        ),
        model=_option("--model MODEL", "opus, sonnet, haiku, fable or a full model id", "models", type=model),
        quiet=_option("-q --quiet", "show only errors on stderr"),
        verbose=_option("-v --verbose", "log to stderr"),
    ),
}
