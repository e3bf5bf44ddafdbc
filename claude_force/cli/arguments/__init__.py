"""The verbs. Each has a module of its name here, whose `add` gives a parser the verb's arguments.

These modules import nothing heavy: what carries a verb out is imported when the verb was chosen. A new verb
is a line in this table and a module.
"""

from __future__ import annotations

from typing import Mapping

VERBS: Mapping[str, str] = {
    "init": "Make a .claude folder with sample agents; keeps what is there.",
    "doctor": "Check Python, SDK, key, endpoint, agents and cache. Exit code 1 if one is a problem.",
    "list": "List the project's agents or workflows.",
    "info": "Show what is known of an agent or a workflow.",
    "run": "Run an agent, a workflow, or many tasks.",
    "workflow": "Show what a workflow does, and in which order.",
    "runs": "List, show, resume, cancel and remove runs; list the workers of durable ones.",
    "worker": "Make the calls of durable runs, for drivers on any machine.",
    "cache": "Look after the answers that are kept.",
    "metrics": "Show the figures of what was run: time, cost, saving, errors.",
    "report": "Make one HTML file that shows a run or a span of time.",
    "demo": "Measure three agents, one by one and at once. Needs no key.",
    "completion": "Print the script that completes commands in bash, zsh or fish.",
}
