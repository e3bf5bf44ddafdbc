"""Every verb of the command: what it does, its options, its examples, and the function that runs it."""

from __future__ import annotations

from typing import Iterator, List, Mapping, NamedTuple, Tuple

from .arguments import COMMON, OPTIONS, Option

PROGRAM = "claude-force"


class Verb(NamedTuple):
    """A command line without its arguments, such as `run agent`.

    Attributes:
        summary: one or two sentences for the help.
        handler: "module:function" of this package; the function takes the parsed arguments and returns the
            exit code. "" for a verb that only has kinds.
        option_names: keys of `OPTIONS`, in the order of the help.
        notes: paragraphs below the options.
        examples: command lines, without the leading `claude-force`.
        kinds: the words that may follow, each a verb.
    """

    summary: str
    handler: str = ""
    option_names: str = ""
    notes: str = ""
    examples: Tuple[str, ...] = ()
    kinds: Mapping[str, Verb] = {}

    @property
    def options(self) -> List[Option]:
        """Its arguments, with those that all verbs have."""
        return [*(OPTIONS[name] for name in self.option_names.split()), *_COMMON]

    @property
    def flags(self) -> List[str]:
        """The spellings of its options."""
        return [flag for one in self.options for flag in one.flags]


_COMMON = [one for one in OPTIONS.values() if one.group == COMMON]
_TASK = "Without --task and --task-file the task is read from standard input: a pipe, or - to name it."
_CODES = (
    "Exit codes: 0 every row succeeded, 1 no further row can be run, 2 wrong input, 3 some rows failed, "
    "4 the budget is used up, 130 stopped."
)
_ROWS = (
    'A row has "task" and "agent"; its other fields are copied to its result. The results of one run can be '
    "the tasks of another: with --agent, the output of each result is the task."
)

# What changes an answer or bounds a call, for every verb that makes calls.
_CALL = "max_tokens temperature timeout deadline max_retries max_concurrent no_stream"
_SHOWN = "answer_file as_json"
_TOOLS = "tools add_dir max_turns max_tool_calls"
_RATES = "rpm input_tpm output_tpm"
_DATABASE = "run_database durable"
_WORKFLOW_RUN = (
    f"no_pass_output fail_fast budget call_budget price cache cache_ttl {_RATES} {_DATABASE} {_CALL} "
    f"{_TOOLS} apply"
)

_RUN = {
    "agent": Verb(
        "Run one agent on one task.",
        "run_agent:run_agent",
        f"agent_name task task_file {_SHOWN} {_CALL} {_TOOLS} in_place apply patch_file {_RATES} budget "
        "price estimate dry_run cache cache_ttl",
        _TASK,
        (
            'run agent code-reviewer --task "Review: def f(): pass"',
            "git diff | claude-force run agent code-reviewer --json",
            "run agent code-reviewer --task-file task.txt --budget 0.10",
            'run agent code-reviewer --task "Review src/" --tools read --max-turns 20',
            'run agent bug-fixer --task "Fix the tests" --tools bash --apply',
        ),
    ),
    "workflow": Verb(
        "Run a workflow, each step as soon as its inputs are there. --resume continues a run.",
        "run_workflow:run_workflow",
        f"workflow_name task task_file input inputs resume workflow_file as_json plan estimate dry_run "
        f"{_WORKFLOW_RUN}",
        _TASK,
        (
            'run workflow release --task "Release 1.2" --plan',
            "run workflow release --task-file notes.txt --budget 2",
            "run workflow release --resume RUN",
        ),
    ),
    "many": Verb(
        "Run a file of tasks, or one task for each of many files. The same command resumes it.",
        "run_many:run_many",
        "tasks row_agent files files_task files_task_file limit results retry_failed no_resume "
        f"{_CALL} {_TOOLS} apply {_RATES} grace fail_fast output_budget call_budget price estimate dry_run "
        f"cache cache_ttl {_DATABASE}",
        f"{_ROWS}\n\n{_CODES}",
        (
            "run many tasks.jsonl --estimate",
            "run many tasks.jsonl -o results.jsonl --max-concurrent auto --budget 5",
            "run many --files 'src/**/*.py' --agent code-reviewer --task 'Find bugs' -o bugs.jsonl",
            "run many results.jsonl --agent summarizer -o summaries.jsonl",
            "run many tasks.jsonl --tools read --call-budget 0.50 -o results.jsonl",
            "run many tasks.jsonl --tools edit -o results.jsonl --apply",
            "cat tasks.jsonl | claude-force run many - -o - > results.jsonl",
        ),
    ),
}
_RUNS = {
    "list": Verb(
        "List the last runs of workflows, and durable runs, newest first.",
        "runs:list_runs",
        "last list_database durable",
    ),
    "show": Verb(
        "Show one run: its input, its answers and what failed.",
        "runs:show_run",
        "run_id list_database durable",
    ),
    "resume": Verb(
        "Continue a run: ask and pay only for what is missing.", "runs:resume_run", f"run_id {_WORKFLOW_RUN}"
    ),
    "cancel": Verb(
        "Cancel a durable run: its open calls are not made.", "runs:cancel_run", "run_id the_database durable"
    ),
    "prune": Verb(
        "Remove old durable runs from their database.",
        "runs:prune_runs",
        "days the_database durable",
        examples=("runs prune --days 7 --durable",),
    ),
    "workers": Verb(
        "List the workers of a database. Exit code 1 if none is alive.",
        "runs:list_workers",
        "workers_database durable",
    ),
}
_CACHE = {
    "stats": Verb("Show what the answer cache holds.", "cache:show_stats", "cache_dir"),
    "clear": Verb("Remove all answers, or those of one agent.", "cache:clear", "cache_agent cache_dir"),
    "verify": Verb("Check every signature. Exit code 1 if one is wrong.", "cache:verify", "remove cache_dir"),
    "explain": Verb(
        "Say why an answer is found or not. Sends nothing.",
        "cache:explain",
        f"agent_name task task_file cache_dir {_CALL}",
        _TASK,
        ('cache explain code-reviewer --task "Review: def f(): pass"',),
    ),
}


_METRICS = {
    "summary": Verb("Show counts, times, costs and errors.", "metrics:show_summary", "hours since"),
    "agents": Verb("Show the metrics of each agent.", "metrics:show_agents", "hours since"),
    "models": Verb("Show the metrics of each model.", "metrics:show_models", "hours since"),
    "costs": Verb(
        "Show what was spent and saved, by agent, model, workflow and day.",
        "metrics:show_costs",
        "hours since",
    ),
    "errors": Verb("Count errors by type, with advice for each.", "metrics:show_errors", "hours since"),
    "export": Verb(
        "Export all executions, or metrics for Prometheus.",
        "metrics:export",
        "export_file hours since export_format export_output",
        examples=("metrics export --format csv -o executions.csv --since 7d",),
    ),
}

VERBS: Mapping[str, Verb] = {
    "init": Verb(
        "Make a .claude folder with sample agents. Existing files are kept.", "project:init", "folder"
    ),
    "doctor": Verb(
        "Check Python, SDK, key, endpoint, agents and cache. Exit code 1 if one is a problem.",
        "doctor:doctor",
        "offline send",
    ),
    "list": Verb(
        "List the project's agents or workflows.",
        "project:show_list",
        "listed as_json",
        examples=("list agents", "list workflows --json"),
    ),
    "info": Verb("Show an agent or a workflow.", "project:show_info", "any_name info_tools as_json"),
    "run": Verb("Run an agent, a workflow, or many tasks.", kinds=_RUN),
    "workflow": Verb(
        "Show what a workflow does, and in which order.",
        kinds={
            "show": Verb(
                "Show the steps of a workflow and its faults. Exit code 1 if it has any.",
                "run_workflow:show_workflow",
                "workflow_name drawing",
            )
        },
    ),
    "runs": Verb(
        "List, show, resume, cancel and remove runs; list the workers of durable ones.", kinds=_RUNS
    ),
    "worker": Verb(
        "Make the calls of durable runs, for drivers on any machine.",
        "durable_runs:work",
        "worker_database worker_name concurrency shared_rpm shared_input_tpm shared_output_tpm worker_grace",
    ),
    "cache": Verb("Inspect, check and clear the answer cache.", kinds=_CACHE),
    "metrics": Verb("Show time, cost, savings and errors of what was run.", kinds=_METRICS),
    "report": Verb(
        "Make one HTML file that shows a run or a span of time.",
        "report:report",
        "report_run hours since report_output",
    ),
    "demo": Verb("Measure three agents, one by one and at once. Needs no key.", "demo:demo", "live calls"),
    "completion": Verb(
        "Print the script that completes commands in bash, zsh or fish.",
        "completion:show_script",
        "which_shell",
        examples=("completion bash >> ~/.bashrc",),
    ),
}


# What stands before the first verb.
ROOT = Verb(
    "Run a fleet of Claude agents from the shell.",
    notes="Exit codes: 0 done, 1 an agent failed, 2 wrong input, 130 stopped; `run many` has more.",
    examples=(
        "init",
        'run agent code-reviewer --task "Review: def f(): pass"',
        "run many tasks.jsonl -o results.jsonl",
        "help run many",
    ),
    kinds=VERBS,
)


def walk(verbs: Mapping[str, Verb] = VERBS, before: str = "") -> Iterator[Tuple[str, Verb]]:
    """Yields every verb with its whole name, such as "run agent"."""
    for name, verb in verbs.items():
        yield f"{before}{name}", verb
        yield from walk(verb.kinds, f"{before}{name} ")


def verbs_with(flag: str) -> List[str]:
    """Returns the names of the verbs that have an option of this spelling, such as "--budget"."""
    return [name for name, verb in walk() if verb.handler and flag in verb.flags]
