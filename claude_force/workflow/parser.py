"""From claude.json to a workflow. Pure: each fault is found, and all are told at once."""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..agents.names import is_model_name, is_name, suggest
from ..errors import InvalidWorkflowError
from .models import LIST, SOURCES, TESTS, Condition, ForEach, Step, Workflow, chain

_KEYS = (
    *("id", "agent", "task", "dependencies", "model", "max_tokens"),
    *("when", "foreach", "retries", "optional"),
)
# A project may have any number of steps, keys and faults, and each takes time.
MAX_STEPS, MAX_FAULTS, _MOST_KEYS, _MOST_RETRIES = 2_000, 20, 100, 100
MORE_FAULTS = "and there are more faults like these"
# Words that authors add for themselves and that are no slip of the keys above.
_OTHER_KEYS = ("name", "title", "description", "comment", "notes")


def read_workflow(name: str, written: Any, pass_output: bool = True) -> Workflow:
    """A list of agents, or an object with `steps`. Raises InvalidWorkflowError where it is neither.

    Faults of single steps are in its `faults`, with a default in the place of what is wrong: `check` tells
    them together with those of the graph.
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
    read = [_step(number, one, faults) for number, one in enumerate(steps, start=1)]
    inputs = written.get("inputs") or {}
    if not isinstance(inputs, dict):
        raise InvalidWorkflowError(
            name, [*faults, '"inputs" is no object; write {"NAME": "its default", ...}']
        )
    fail_fast = False
    try:
        fail_fast = _flag(written.get("fail_fast"))
    except ValueError as error:
        faults.append(f'"fail_fast" is {written["fail_fast"]!r:.60}; {error}')
    found = tuple(step for step in read if step is not None)
    description = str(written.get("description") or "")
    return Workflow(name, found, description, inputs, fail_fast, tuple(faults))


def _expect_few(name: str, steps: Sequence[Any]) -> None:
    """Raises InvalidWorkflowError for very many steps."""
    if len(steps) > MAX_STEPS:
        mend = 'divide it, or run one step over a list with "foreach"'
        raise InvalidWorkflowError(
            name, [f"it has {len(steps):,} steps, and {MAX_STEPS:,} are taken: {mend}"]
        )


def _step(number: int, written: Any, faults: List[str]) -> Optional[Step]:
    """None for one without an id by which others could name it."""
    if not isinstance(written, dict):
        faults.append(f'step {number} is {written!r:.60}; write {{"id": ..., "agent": ...}}')
        return None
    has_name = is_name(written.get("id"))
    place = f"step '{written['id']}'" if has_name else f"step {number}"

    def fault(text: str) -> None:
        faults.append(f"{place}: {text}")

    if len(faults) <= MAX_FAULTS:
        _check_keys(written, fault)
    values: Dict[str, Any] = {"agent": ""}
    for key, read in FIELD_PARSERS.items():
        try:
            values[key] = read(written.get(key))
        except ValueError as error:
            fault(f'"{key}" is {written.get(key)!r:.60}; {error}')
    return Step(**values) if has_name else None


def _check_keys(written: Mapping[str, Any], fault: Callable[[str], None]) -> None:
    for key in islice(written, _MOST_KEYS):
        meant = [] if key in (*_KEYS, *_OTHER_KEYS) else suggest(str(key), _KEYS, 1)
        if meant:
            fault(f'it has no key "{key}"; did you mean "{meant[0]}"?')


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


def _from(least: int, otherwise: Optional[int], most: float = float("inf")) -> Callable[[Any], Optional[int]]:
    wanted = f"from {least} up" if most == float("inf") else f"from {least} to {most:g}"

    def read(value: Any) -> Optional[int]:
        if value is None:
            return otherwise
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"give a whole number {wanted}")
        return value

    return read


def _flag(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ValueError("write true or false")
    return bool(value)


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


# Each raises ValueError for a value that its key does not take.
FIELD_PARSERS: Dict[str, Callable[[Any], Any]] = {
    "id": _name,
    "agent": _agent,
    "task": _text,
    "dependencies": _names,
    "model": _model,
    "max_tokens": _from(1, None),
    "when": _conditions,
    "foreach": _foreach,
    "retries": _from(0, 0, _MOST_RETRIES),
    "optional": _flag,
}
