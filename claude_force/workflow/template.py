"""Templates of tasks: `${name}` is replaced by a value, and all else stays as it is. Pure.

Built on `string.Template`, which runs no code and does not look into the values that it puts in. Only the
form with braces counts, so that prices and shell variables are text; `$${` stands for `${`.
"""

from __future__ import annotations

import string
from typing import List, Mapping, Tuple

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


def names_in(text: str) -> List[str]:
    """The names that a template has values put in for, each once, in the order of their first place."""
    found = (match.group("braced") for match in _Template.pattern.finditer(text))  # type: ignore[attr-defined]
    return list(dict.fromkeys(name for name in found if name is not None))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The template with its values. Raises KeyError for a name that has none."""
    return _Template(text).substitute(values)


def kind_of(name: str) -> Tuple[str, str]:
    """What kind of value a name stands for, and which: ("steps.", "scan") for `steps.scan`."""
    for kind in (STEPS, INPUTS):
        if name.startswith(kind):
            return kind, name[len(kind) :]
    first, _, rest = name.partition(".")
    return (ITEM, rest) if first == ITEM else (name, "")
