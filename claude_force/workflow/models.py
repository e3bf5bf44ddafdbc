"""A workflow as its author wrote it: steps, what each waits for, what it is told. Pure."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..errors import InvalidWorkflowError

FILES, LINES, STEP, INPUT, LIST = "files", "lines", "step", "input", "list"
SOURCES = (FILES, LINES, STEP, INPUT)

CONTAINS, NOT_CONTAINS, EQUALS, NOT_EQUALS = "contains", "not_contains", "equals", "not_equals"
TESTS = (CONTAINS, NOT_CONTAINS, EQUALS, NOT_EQUALS)


@dataclass(frozen=True)
class Condition:
    """A step runs only where what `source` names, "steps.ID" or "inputs.NAME", passes the test.

    `test` is "contains", "not_contains", "equals" or "not_equals". Upper and lower case are the same, and
    space around both texts does not count.
    """

    source: str
    test: str
    text: str

    def holds(self, found: str) -> bool:
        """Whether `found` passes."""
        found, wanted = found.strip().lower(), self.text.strip().lower()
        passes = wanted in found if self.test in (CONTAINS, NOT_CONTAINS) else wanted == found
        return passes != (self.test in (NOT_CONTAINS, NOT_EQUALS))

    def __str__(self) -> str:
        return f"{self.source} {self.test.replace('_', ' ')} {self.text!r}"


@dataclass(frozen=True)
class ForEach:
    """What a step is run over, once for each: `source` is one of

    - "files": those that a glob pattern matches, or several patterns
    - "lines": the lines of a file that are not empty
    - "step": the JSON list that a dependency answered
    - "input": a list among the inputs
    - "list": the list that is written here
    """

    source: str
    value: Any


@dataclass(frozen=True)
class Step:
    """One agent's part.

    Attributes:
        task: a template; None for the workflow's task and what the dependencies answered.
        dependencies: ids of the steps that have to succeed before.
        model, max_tokens: None for what the agent, else the workflow's caller, asks for.
        when: all have to hold, else the step is skipped.
        retries: how often a call that failed is made again, beyond the attempts of the call itself.
        optional: those that wait for it run without its answer where it failed or was skipped.
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


@dataclass(frozen=True)
class Workflow:
    """A graph of steps.

    Attributes:
        inputs: values that templates may name beside the task, with their defaults; None for one that has to
            be given.
        fail_fast: no further step begins once one has failed.
        faults: of its form, where it was read from claude.json; none of it is run as long as there are any.
    """

    name: str
    steps: Tuple[Step, ...]
    description: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    fail_fast: bool = False
    faults: Tuple[str, ...] = ()

    def step(self, identity: str) -> Step:
        """The step of this id. Raises KeyError."""
        return {step.id: step for step in self.steps}[identity]

    @property
    def needs(self) -> Dict[str, Tuple[str, ...]]:
        """The ids that each step waits for."""
        return {step.id: step.dependencies for step in self.steps}


def chain(name: str, agents: Tuple[str, ...], pass_output: bool = True) -> Workflow:
    """A list of agents, each of which is told the task and what the one before it answered.

    Raises InvalidWorkflowError where there are none.
    """
    if not agents:
        raise InvalidWorkflowError(name, ["it has no agents: add at least one to its list in claude.json"])
    steps = [Step("1", agents[0], task="${task}")]
    for position, agent in enumerate(agents[1:], start=2):
        before = str(position - 1)
        told = handed_over(agents[position - 2], before) if pass_output else ""
        steps.append(Step(str(position), agent, "${task}" + told, (before,)))
    return Workflow(name, tuple(steps))


def handed_over(agent: str, step: str) -> str:
    """The part of a template that repeats what the agent of a step answered."""
    return f'\n\n<previous_answer agent="{agent}">\n${{steps.{step}}}\n</previous_answer>'


TASK, ITEM = "task", "item"
STEPS, INPUTS = "steps.", "inputs."


class _Template(string.Template):
    pattern = r"""
        \$(?:
          (?P<escaped>\$(?=\{)) |
          \{(?P<braced>[^{}\n]*)\} |
          (?P<named>(?!)) |
          (?P<invalid>(?!))
        )
    """  # type: ignore[assignment]


def template_names(text: str) -> List[str]:
    """The names that a template has values put in for, each once, in the order of their first place."""
    found = (match.group("braced") for match in _Template.pattern.finditer(text))  # type: ignore[attr-defined]
    return list(dict.fromkeys(name for name in found if name is not None))


def fill_template(text: str, values: Mapping[str, str]) -> str:
    """The template with its values. Raises KeyError for a name that has none."""
    return _Template(text).substitute(values)


def split_name(name: str) -> Tuple[str, str]:
    """What kind of value a name stands for, and which: ("steps.", "scan") for `steps.scan`."""
    for kind in (STEPS, INPUTS):
        if name.startswith(kind):
            return kind, name[len(kind) :]
    first, _, rest = name.partition(".")
    return (ITEM, rest) if first == ITEM else (name, "")
