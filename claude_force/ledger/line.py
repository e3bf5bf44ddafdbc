"""An entry as a line of JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import fields

from .entry import Entry

# Absence means "not known" for the first three, and their default says something else; the others are there
# for older readers, who look all of them up.
_ALWAYS = {"wait_ms", "service_time_ms", "attempts", "timestamp", "agent_name", "task_hash", "success"} | {
    *("execution_time_ms", "model", "input_tokens", "output_tokens", "total_tokens", "estimated_cost"),
    *("error_type", "workflow_name", "workflow_position"),
}
_OPTIONAL = [(field.name, field.default) for field in fields(Entry) if field.name not in _ALWAYS]
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def line_of(entry: Entry) -> str:
    """ASCII, without its newline."""
    fields = entry.fields()
    # What is new and has its default is left out, a third of the text.
    for name, default in _OPTIONAL:
        if fields[name] == default:
            del fields[name]
    return _encode(fields)
