"""A workflow as its author wrote it: its steps, their dependencies and the templates of tasks. Pure."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..errors import InvalidWorkflowError

FILES, LINES, STEP, INPUT, LIST = "files", "lines", "step", "input", "list"
SOURCES = (FILES, LINES, STEP, INPUT)

CONTAINS, NOT_CONTAINS, EQUALS, NOT_EQUALS = "contains", "not_contains", "equals", "not_equals"
TESTS = (CONTAINS, NOT_CONTAINS, EQUALS, NOT_EQUALS)

# What names in templates begin with, or are.
TASK, ITEM, STEPS, INPUTS = "task", "item", "steps.", "inputs."


@dataclass(frozen=True)
class Condition:
    """A test on an answer or an input; a step with conditions runs only where all of them hold.

    Attributes:
        source: "steps.ID" or "inputs.NAME".
        test: "contains", "not_contains", "equals" or "not_equals". The case of letters and space around both
            texts are ignored.

    Example:
        is_critical = Condition("steps.scan", "contains", "critical")
        Step("alarm", "pager", dependencies=("scan",), when=(is_critical,))
    """

    source: str
    test: str
    text: str

    def holds(self, found: str) -> bool:
        """Returns whether `found` passes the test."""
        found, wanted = found.strip().lower(), self.text.strip().lower()
        passes = wanted in found if self.test in (CONTAINS, NOT_CONTAINS) else wanted == found
        return passes != (self.test in (NOT_CONTAINS, NOT_EQUALS))

    def __str__(self) -> str:
        return f"{self.source} {self.test.replace('_', ' ')} {self.text!r}"


@dataclass(frozen=True)
class ForEach:
    """Runs a step once for each item of `value`, whose meaning depends on `source`:

    - "files": a glob pattern of files, or several patterns
    - "lines": a file; its lines that are not empty are the items
    - "step": a dependency that answers with a JSON list
    - "input": the name of an input that is a list
    - "list": the list itself

    Example:
        Step("review", "code-reviewer", foreach=ForEach("files", "src/**/*.py"))
    """

    source: str
    value: Any


@dataclass(frozen=True)
class Step:
    """One agent's part of a workflow.

    Attributes:
        task: a template; None for the workflow's task and the answers of the dependencies.
        dependencies: ids of the steps that must have succeeded before.
        model, max_tokens: None for those of the workflow's caller, else of the agent.
        when: conditions that must all hold, or the step is skipped.
        retries: how often a failed call is made again, besides the attempts within a call.
        optional: where the step failed or was skipped, steps that wait for it run without its answer.
        tools: names of tools, rules, or a level such as "read": what the step is limited to, of what the run
            grants and its agent has; None for no limit.

    Example:
        Step("summary", "summary-writer", "Sum up: ${steps.review}", dependencies=("review",))
    """

    id: str
    agent: str
    task: Optional[str] = None
    dependencies: Tuple[str, ...] = ()
    model: Optional[str] = None
    max_tokens: Optional[int] = None
    when: Tuple[Condition, ...] = ()
    foreach: Optional[ForEach] = None
    retries: int = 0
    optional: bool = False
    tools: Optional[Tuple[str, ...]] = None


@dataclass(frozen=True)
class Workflow:
    """A graph of steps.

    Attributes:
        inputs: values that templates may use besides the task, with their defaults; None for a required one.
        fail_fast: starts no further step after a step has failed.
        faults: what is wrong with its definition in claude.json; a workflow with faults is not run.

    Example:
        Workflow("review", (Step("bugs", "code-reviewer"), Step("tests", "test-writer")))
    """

    name: str
    steps: Tuple[Step, ...]
    description: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    fail_fast: bool = False
    faults: Tuple[str, ...] = ()

    def step(self, identity: str) -> Step:
        """Returns the step with this id. Raises KeyError."""
        return {step.id: step for step in self.steps}[identity]

    @property
    def needs(self) -> Dict[str, Tuple[str, ...]]:
        """The ids that each step waits for."""
        return {step.id: step.dependencies for step in self.steps}


def chain(name: str, agents: Tuple[str, ...], pass_output: bool = True) -> Workflow:
    """Returns a workflow of agents that run one after the other, each on the task and the answer before it.

    Raises InvalidWorkflowError where there are no agents.
    """
    if not agents:
        raise InvalidWorkflowError(name, ["it has no agents: add at least one to its list in claude.json"])
    steps = [Step("1", agents[0], task="${task}")]
    for number, (before, agent) in enumerate(zip(agents, agents[1:]), start=1):
        answer = f'\n\n<previous_answer agent="{before}">\n${{steps.{number}}}\n</previous_answer>'
        task = "${task}" + (answer if pass_output else "")
        steps.append(Step(str(number + 1), agent, task, (str(number),)))
    return Workflow(name, tuple(steps))


class _Template(string.Template):
    """Runs no code and does not look into values. Only `${name}` is a name, so that prices and shell
    variables are text; `$${` is replaced by `${`."""

    pattern = r"""
        \$(?:
          (?P<escaped>\$(?=\{)) |
          \{(?P<braced>[^{}\n]*)\} |
          (?P<named>(?!)) |
          (?P<invalid>(?!))
        )
    """  # type: ignore[assignment]


def template_names(template: str) -> List[str]:
    """Returns the names that a template uses, each once, in order."""
    found = (match.group("braced") for match in _Template.pattern.finditer(template))  # type: ignore[attr-defined]
    return list(dict.fromkeys(name for name in found if name is not None))


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Returns the template with its values. Raises KeyError for a name without a value."""
    return _Template(template).substitute(values)


def split_name(name: str) -> Tuple[str, str]:
    """Splits a template's name into its kind and the rest: `steps.scan` into ("steps.", "scan")."""
    for kind in (STEPS, INPUTS):
        if name.startswith(kind):
            return kind, name[len(kind) :]
    first, _, rest = name.partition(".")
    return (ITEM, rest) if first == ITEM else (name, "")
