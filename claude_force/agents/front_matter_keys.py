"""The known keys of front matter: what each does here, and which key a typo meant. Pure.

Source of the keys: Claude Code's documentation of sub-agents, slash commands and skills.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

OBEYED, SHOWN, UNUSED = "obeyed", "shown", "unused"
AGENT, COMMAND = "agent", "command"


class KeyInfo(NamedTuple):
    """One key of front matter.

    Attributes:
        use: OBEYED; SHOWN if it only affects display; UNUSED if it would change the agent's work but has no
            effect here.
        meaning: what the key means, in Claude Code or here.
        one_line: whether its value ends with its line.
    """

    use: str
    meaning: str
    one_line: bool = True


AGENT_KEYS: Mapping[str, KeyInfo] = {
    "name": KeyInfo(OBEYED, "the agent's name"),
    "description": KeyInfo(OBEYED, "what the agent is for", one_line=False),
    "model": KeyInfo(OBEYED, "the model that is asked"),
    "max_tokens": KeyInfo(OBEYED, "the longest answer, in tokens"),
    "temperature": KeyInfo(OBEYED, "how much the answers vary"),
    "effort": KeyInfo(OBEYED, "how much the model thinks"),
    "skills": KeyInfo(OBEYED, "skills whose text is part of the instructions", one_line=False),
    "tools": KeyInfo(OBEYED, "the tools that the agent may use, where the run grants them", one_line=False),
    "disallowedTools": KeyInfo(OBEYED, "tools that the agent may not use", one_line=False),
    "permissionMode": KeyInfo(OBEYED, "plan restricts the agent to reading; no value grants anything here"),
    "maxTurns": KeyInfo(OBEYED, "the most requests of a run with tools"),
    "mcpServers": KeyInfo(
        UNUSED, "it names servers of tools, which are not available here yet", one_line=False
    ),
    "hooks": KeyInfo(
        UNUSED, "it names commands to run around tool calls; no command is run here", one_line=False
    ),
    "memory": KeyInfo(UNUSED, "it gives the agent notes that outlive a run; agents here have no memory"),
    "isolation": KeyInfo(
        UNUSED, "it gives the agent a worktree of the repository; here the run decides about worktrees"
    ),
    "initialPrompt": KeyInfo(
        UNUSED, "it is the first message of a session; here the task is the message", one_line=False
    ),
    "prompt": KeyInfo(
        UNUSED,
        "it is the instructions in JSON; here they are the text below the front matter",
        one_line=False,
    ),
    "schema": KeyInfo(
        UNUSED, "it is the JSON Schema of the answer, which is not supported yet", one_line=False
    ),
    "context": KeyInfo(UNUSED, "it decides what the agent sees of a session; here an agent sees its task"),
    "background": KeyInfo(SHOWN, "it lets the agent run beside a session"),
    "color": KeyInfo(SHOWN, "it is the color of the agent's name"),
    "disable-model-invocation": KeyInfo(SHOWN, "it keeps a model from starting the command"),
    "argument-hint": KeyInfo(SHOWN, "it shows which arguments a command takes", one_line=False),
}

COMMAND_KEYS: Mapping[str, KeyInfo] = {
    **{name: AGENT_KEYS[name] for name in ("description", "model", "skills", "effort")},
    **{name: AGENT_KEYS[name] for name in ("max_tokens", "temperature")},
    **{name: AGENT_KEYS[name] for name in ("hooks", "schema", "disable-model-invocation", "argument-hint")},
    "name": KeyInfo(SHOWN, "a command is named after its file"),
    "allowed-tools": KeyInfo(
        OBEYED, "the tools that the command may use, where the run grants them", one_line=False
    ),
    "disallowed-tools": KeyInfo(OBEYED, "tools that the command may not use", one_line=False),
    "context": KeyInfo(SHOWN, "it runs the command apart from the session, as every run here is"),
    "agent": KeyInfo(UNUSED, "it names the agent that the command runs as; here it runs without one"),
    "arguments": KeyInfo(
        UNUSED, "it names the arguments; here they are $1, $2 and $ARGUMENTS", one_line=False
    ),
    "user-invocable": KeyInfo(SHOWN, "it hides the command from a menu"),
    "when_to_use": KeyInfo(SHOWN, "it tells a model when to start the command", one_line=False),
    "paths": KeyInfo(SHOWN, "it limits the files for which a model may start the command", one_line=False),
    "shell": KeyInfo(SHOWN, "it names the shell of commands within the text, which are not run here"),
}

# Common keys without meaning here; not typos.
_OTHERS = frozenset(
    ("version", "author", "tags", "category", "domains", "priority", "license", "metadata", "mode", "type")
)
# These start a field even in the middle of a text. "prompt: ..." or "agent: ..." may belong to the text.
IN_TEXT = frozenset((*AGENT_KEYS, *COMMAND_KEYS, *_OTHERS)) - {
    "prompt",
    "agent",
    "shell",
    "paths",
    "arguments",
}
ONE_LINE = frozenset(
    (
        *(name for name, key in (*COMMAND_KEYS.items(), *AGENT_KEYS.items()) if key.one_line),
        *("version", "author", "category", "priority", "license", "mode", "type"),
    )
)

# Lists of names: a line with a key ends them.
LISTS = frozenset(
    ("tools", "disallowedTools", "skills", "allowed-tools", "disallowed-tools", "argument-hint")
)

# Spellings found in real agent files, and Claude Code's key for each.
_MEANT = {
    "allowed-tools": "tools",
    "allowedtools": "tools",
    "allowed_tools": "tools",
    "disallowed-tools": "disallowedTools",
    "disallowed_tools": "disallowedTools",
}
# In shorter keys, one letter off is another word.
_SHORTEST_SLIP = 4


def keys_of(kind: str) -> Mapping[str, KeyInfo]:
    """Returns the table for "agent" or "command"."""
    return COMMAND_KEYS if kind == COMMAND else AGENT_KEYS


def unused(fields: Mapping[str, Any], kind: str) -> Iterator[Tuple[str, KeyInfo]]:
    """Yields the front matter keys that have no effect here, with their meanings."""
    table = keys_of(kind)
    for name in fields:
        key = table.get(name)
        if key is not None and key.use != OBEYED:
            yield name, key


def misspelled_keys(fields: Iterable[str], kind: str) -> Iterator[Tuple[str, str]]:
    """Yields pairs of an unknown key and the key that it probably meant."""
    table = keys_of(kind)
    for name in fields:
        if name not in table and name not in _OTHERS:
            meant = (_MEANT.get(name.lower()) if kind == AGENT else None) or closest_key(name, table)
            if meant is not None:
                yield name, meant


def closest_key(name: str, known: Iterable[str]) -> Optional[str]:
    """Returns the known key that `name` probably meant: one letter off or spelled differently; else None."""
    plain = _plain(name)
    if len(plain) < _SHORTEST_SLIP:
        return None
    by_plain: Dict[str, str] = {_plain(one): one for one in known}
    if plain in by_plain:
        return by_plain[plain]
    return next((by_plain[one] for one in sorted(by_plain) if is_one_off(plain, one)), None)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def is_one_off(one: str, other: str) -> bool:
    """Whether one letter added, removed, changed or swapped with its neighbour turns `one` into `other`."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = next((n for n, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    left, right = one[start:], other[start:]
    if len(left) == len(right):
        return left[1:] == right[1:] or (left[:2] == right[1::-1] and left[2:] == right[2:])
    return left[1:] == right or left == right[1:]


def parse_names(value: Any) -> Optional[Tuple[str, ...]]:
    """Returns the names in a list or in comma-separated text; None for any other value.

    A comma inside parentheses belongs to a name: "Bash(git log, git diff), Read" has two.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(_split(value.strip().strip("[]")))
    if not isinstance(value, (list, tuple)):
        return None
    names: List[str] = []
    for one in value:
        if not isinstance(one, (str, int, float)):
            return None
        names.append(str(one).strip())
    return tuple(name for name in names if name)


def _split(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for place, letter in enumerate(f"{text},"):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth = max(depth - 1, 0)
        elif letter in ",\n" and (depth == 0 or place == len(text)):
            name = text[start:place].strip().lstrip("-").strip().strip("'\"")
            start = place + 1
            if name:
                yield name
