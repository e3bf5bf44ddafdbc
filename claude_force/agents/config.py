"""Parses claude.json: its agents and workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple

from ..errors import ConfigurationError
from .front_matter_keys import closest_key

DEFAULT_PRIORITY = 2
_SECTIONS = ("agents", "workflows")


class AgentEntry(NamedTuple):
    """One agent of claude.json; paths are relative to the file's folder. `problem`: why it can't be used."""

    file: str = ""
    contract: Optional[str] = None
    domains: Tuple[str, ...] = ()
    priority: int = DEFAULT_PRIORITY
    problem: Optional[str] = None


class Config(NamedTuple):
    """A parsed claude.json; `slips` report misspelled keys."""

    agents: Dict[str, AgentEntry]
    workflows: Dict[str, Any]
    slips: Tuple[str, ...] = ()


def load_config(path: Path, text: str) -> Config:
    """Parses `text`. Raises ConfigurationError with the file's name and the line of the fault."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid JSON: {error}. Correct it there.") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path} is nested too deeply.") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} is not a JSON object: begin it with '{{'.")
    agents = _section(path, value, "agents")
    return Config(
        {str(name): _entry(one) for name, one in agents.items()},
        _section(path, value, "workflows"),
        tuple(_slips(value, agents)),
    )


def _slips(value: Dict[str, Any], agents: Dict[str, Any]) -> Iterator[str]:
    for key, meant in _meant(value, _SECTIONS):
        yield f'its key "{key}" has no effect; write "{meant}"'
    for name, entry in agents.items():
        for key, meant in _meant(entry, AgentEntry._fields[:4]) if isinstance(entry, dict) else ():
            yield f'the key "{key}" of the agent \'{name}\' has no effect; write "{meant}"'


def _meant(written: Dict[str, Any], known: Sequence[str]) -> Iterator[Tuple[str, str]]:
    for key in written:
        meant = None if key in known else closest_key(key, known)
        if meant is not None:
            yield key, meant


def _section(path: Path, value: Dict[str, Any], name: str) -> Dict[str, Any]:
    section = value.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigurationError(f'{path}: "{name}" is not a JSON object: write it as {{"NAME": ...}}.')
    return section


def _entry(value: Any) -> AgentEntry:
    if not isinstance(value, dict):
        return AgentEntry(problem='its entry in claude.json is not an object; write {"file": "..."}')
    file, contract = value.get("file"), value.get("contract")
    domains, priority = value.get("domains", ()), value.get("priority", DEFAULT_PRIORITY)
    problem = None
    if not isinstance(file, str) or not file:
        problem = 'its entry in claude.json has no "file"; add one, such as "agents/NAME.md"'
    elif contract is not None and not isinstance(contract, str):
        problem = '"contract" in claude.json is not a path; name a file, or leave it out'
    elif not isinstance(domains, (list, tuple)):
        problem = '"domains" in claude.json is not a list; write ["one", "another"]'
    elif isinstance(priority, bool) or not isinstance(priority, int):
        problem = '"priority" in claude.json is not a whole number; write 1, 2 or 3'
    if problem:
        return AgentEntry(file=str(file or ""), problem=problem)
    return AgentEntry(str(file), contract or None, tuple(str(one) for one in domains), priority)
