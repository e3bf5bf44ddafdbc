"""Parses the workflows of claude.json, and collects all faults rather than the first. Pure."""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..agents.front_matter_keys import parse_names
from ..agents.names import is_model_name, is_name, suggest
from ..errors import InvalidOptionError, InvalidWorkflowError
from ..settings import NO_TOOLS
from .models import LIST, SOURCES, TESTS, Condition, ForEach, Step, Workflow, chain

# A project may have any number of steps, keys and faults, and each takes time.
MAX_STEPS, MAX_FAULTS, _MAX_KEYS, _MAX_RETRIES = 2_000, 20, 100, 100
MORE_FAULTS = "and there are more faults like these"
# Keys that authors add for themselves, and that are not misspelled keys of a step.
_OTHER_KEYS = ("name", "title", "description", "comment", "notes")


def read_workflow(name: str, written: Any, pass_output: bool = True) -> Workflow:
    """Returns the workflow of a list of agents, or of an object with `steps`.

    Faults of single fields are in its `faults`, with a default in the place of what is wrong: `check` reports
    them together with those of the graph. Raises InvalidWorkflowError where `written` is neither.
    """
    if isinstance(written, (list, tuple)):
        _expect_few(name, written)
        return chain(name, tuple(str(agent) for agent in written), pass_output)
    steps = written.get("steps") if isinstance(written, dict) else None
    if not isinstance(steps, list) or not steps:
        raise InvalidWorkflowError(
            name, ['it has no steps: write ["an-agent", ...] or {"steps": [{"id": ..., "agent": ...}, ...]}']
        )
    _expect_few(name, steps)
    faults: List[str] = []
    parsed = [_step(number, one, faults) for number, one in enumerate(steps, start=1)]
    inputs = written.get("inputs") or {}
    if not isinstance(inputs, dict):
        raise InvalidWorkflowError(
            name, [*faults, '"inputs" is not an object; write {"NAME": "its default", ...}']
        )
    fail_fast = False
    try:
        fail_fast = _flag(written.get("fail_fast"))
    except ValueError as error:
        faults.append(f'"fail_fast" is {written["fail_fast"]!r:.60}; {error}')
    found = tuple(step for step in parsed if step is not None)
    description = str(written.get("description") or "")
    return Workflow(name, found, description, inputs, fail_fast, tuple(faults))


def _expect_few(name: str, steps: Sequence[Any]) -> None:
    if len(steps) > MAX_STEPS:
        advice = 'divide it, or run one step over a list with "foreach"'
        raise InvalidWorkflowError(
            name, [f"it has {len(steps):,} steps, more than the limit of {MAX_STEPS:,}: {advice}"]
        )


def _step(number: int, written: Any, faults: List[str]) -> Optional[Step]:
    """Returns the step, None where it has no valid id."""
    if not isinstance(written, dict):
        faults.append(f'step {number} is {written!r:.60}; write {{"id": ..., "agent": ...}}')
        return None
    has_id = is_name(written.get("id"))
    prefix = f"step '{written['id']}'" if has_id else f"step {number}"
    if len(faults) <= MAX_FAULTS:
        faults += [f"{prefix}: {fault}" for fault in _misspelled_keys(written)]
    values: Dict[str, Any] = {"agent": ""}
    for key, parse in FIELD_PARSERS.items():
        try:
            values[key] = parse(written.get(key))
        except ValueError as error:
            faults.append(f'{prefix}: "{key}" is {written.get(key)!r:.60}; {error}')
    return Step(**values) if has_id else None


def _misspelled_keys(written: Mapping[str, Any]) -> Iterator[str]:
    for key in islice(written, _MAX_KEYS):
        is_known = key in FIELD_PARSERS or key in _OTHER_KEYS
        for meant in () if is_known else suggest(str(key), list(FIELD_PARSERS), 1):
            yield f'it has no key "{key}"; did you mean "{meant}"?'


def _name(value: Any) -> str:
    if not is_name(value):
        raise ValueError("use letters, digits, '_' and '-', at least one")
    return str(value)


def _agent(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("give an agent's name")
    return value


def _text(value: Any) -> Optional[str]:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError("give a text, or leave it out")
    return value


def _model(value: Any) -> Optional[str]:
    name = _text(value)
    if name is not None and not is_model_name(name.strip()):
        raise ValueError("give one id or alias of a model")
    return name


def _names(value: Any) -> Tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise ValueError('write a list of step ids, such as ["scan"]')
    return tuple(dict.fromkeys(value))


def _integer(
    least: int, default: Optional[int], most: float = float("inf")
) -> Callable[[Any], Optional[int]]:
    wanted = f"from {least} up" if most == float("inf") else f"from {least} to {most:g}"

    def parse(value: Any) -> Optional[int]:
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"give a whole number {wanted}")
        return value

    return parse


def _flag(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ValueError("write true or false")
    return bool(value)


def _tools(value: Any) -> Optional[Tuple[str, ...]]:
    if value is None:
        return None
    names = parse_names(value)
    if names is None or not isinstance(value, (str, list, tuple)):
        raise ValueError('write names of tools, such as ["Read", "Grep"], or a level, such as "read"')
    # Imported here: most workflows name no tools.
    from ..tools.grant import parse_grant

    try:
        parse_grant(names or NO_TOOLS)
    except InvalidOptionError as error:
        raise ValueError(str(error).partition(": ")[2]) from error
    return names


def _conditions(value: Any) -> Tuple[Condition, ...]:
    if value is None:
        return ()
    return tuple(_condition(one) for one in (value if isinstance(value, list) else [value]))


def _condition(value: Any) -> Condition:
    form = f'write {{"step": ID, "contains": TEXT}}; the tests are {", ".join(TESTS)}'
    if not isinstance(value, dict) or len(value) != 2:
        raise ValueError(form)
    sources, tests = set(value) & {"step", "input"}, set(value) & set(TESTS)
    if len(sources) != 1 or len(tests) != 1 or not all(isinstance(one, str) for one in value.values()):
        raise ValueError(form)
    source, test = sources.pop(), tests.pop()
    return Condition(f"{source}s.{value[source]}", test, value[test])


def _foreach(value: Any) -> Optional[ForEach]:
    if value is None:
        return None
    if isinstance(value, list):
        return ForEach(LIST, tuple(value))
    if not isinstance(value, dict) or len(value) != 1 or not set(value) & set(SOURCES):
        raise ValueError('write a list, {"files": PATTERN}, {"lines": FILE}, {"step": ID} or {"input": NAME}')
    source, named = next(iter(value.items()))
    several = source == "files" and isinstance(named, list) and named
    if not all(isinstance(one, str) and one for one in (named if several else [named])):
        raise ValueError(f'"{source}" takes a text')
    return ForEach(source, tuple(named) if several else named)


# The keys of a step. Each parser raises ValueError for a value that its key does not take.
FIELD_PARSERS: Dict[str, Callable[[Any], Any]] = {
    "id": _name,
    "agent": _agent,
    "task": _text,
    "dependencies": _names,
    "model": _model,
    "max_tokens": _integer(1, None),
    "when": _conditions,
    "foreach": _foreach,
    "retries": _integer(0, 0, _MAX_RETRIES),
    "optional": _flag,
    "tools": _tools,
}
