"""Write docs/reference.md from signatures and docstrings, docs/commands.md from the command's parsers.

    python scripts/reference.py [--check]

With --check nothing is written; the exit code is 1 where a page is not what it would be.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from claude_force.cli.arguments import COMMON, GROUPS, Option  # noqa: E402
from claude_force.cli.verbs import PROGRAM, Verb, walk  # noqa: E402
from claude_force.cli.verbs import ROOT as COMMAND  # noqa: E402

# Headings of the reference, each with the names that it tells of, by their modules.
PUBLIC: Dict[str, List[Tuple[str, List[str]]]] = {
    "Orchestrators": [
        ("claude_force", ["AsyncAgentOrchestrator", "AgentOrchestrator"]),
    ],
    "Results": [
        ("claude_force", ["AgentResult"]),
        ("claude_force.types", ["Usage", "Attempt", "PatchNote", "CallCompleted", "Call"]),
        ("claude_force", ["apply_patch"]),
        ("claude_force.engine.estimate", ["Estimate", "Range"]),
        ("claude_force.limits.admission", ["Load"]),
        ("claude_force.limits.rate_limiter", ["Rates"]),
    ],
    "Events of a bulk run": [
        (
            "claude_force.bulk",
            ["Event", "Queued", "Started", "Retried", "Paused", "Cached", "Finished", "Progress"],
        )
    ],
    "Workflows": [
        ("claude_force", ["Workflow", "Step"]),
        ("claude_force.workflow", ["ForEach", "Condition"]),
        ("claude_force", ["WorkflowResult"]),
        ("claude_force.workflow", ["StepResult", "StepEvent"]),
        ("claude_force.workflow.plan", ["Plan", "PlannedStep"]),
        ("claude_force.workflow.checkpoints", ["RunRecord"]),
    ],
    "Errors": [("claude_force", ["ClaudeForceError"]), ("claude_force.errors", ["CallError"])],
    "Cache": [("claude_force", ["ResponseCache"])],
    "Ledger": [
        ("claude_force.performance_tracker", ["PerformanceTracker"]),
        ("claude_force.ledger.entry", ["Entry"]),
    ],
    "Logs and OpenTelemetry": [
        ("claude_force.integrations.json_logs", ["log_as_json", "JsonLogs", "JsonFormatter"]),
        ("claude_force.integrations.otel", ["instrument", "OpenTelemetry"]),
    ],
    "Durable runs": [
        ("claude_force.durable", ["Worker", "Runs"]),
        ("claude_force.durable.runs", ["RunState", "WorkerState", "Failure"]),
    ],
    "The stand-in": [
        ("claude_force.testing", ["MessagesServer", "RateLimit", "RecordedRequest", "BilledRequest"]),
        ("claude_force.testing.request_log", ["RequestLog"]),
        (
            "claude_force.testing.faults",
            [
                *("Fault", "status", "reset", "silence_before_first_byte", "silence_in_mid_stream"),
                *("truncated_stream", "overloaded_in_stream", "malformed_json", "wrong_content_type"),
            ],
        ),
    ],
}
# Bases of a public class that users need not know: what they have is shown as the class's own.
UNSEEN = {"Configurable"}
# Public for other modules of the package, not for users.
HIDDEN = {"after_fork"}
LISTS = ("Args", "Attributes", "Raises")
EXIT_CODES = (
    "The exit code is 0 when all went well, 1 when an agent or a check failed, 2 for wrong input and 130 "
    "after Ctrl-C; `run many` has [more](ci.md#what-decides-whether-the-job-fails)."
)
_BUILT_IN = (
    "| `-h, --help` | show this help message and exit |",
    "| `--version` | show program's version number and exit |",
)
NOTICE = "<!-- Written by `make docs` from the sources: edit those. -->"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference pages of docs/ from the sources.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args().check
    stale = []
    for name, text in (("reference.md", reference()), ("commands.md", commands())):
        page = ROOT / "docs" / name
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            page.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"docs/{', docs/'.join(stale)}: not what the sources say; `make docs` writes them anew")
        return 1
    return 0


def reference() -> str:
    """The page of classes and functions."""
    lines = ["# Reference", NOTICE, "What may be imported, with what it takes, gives and raises."]
    for heading, modules in PUBLIC.items():
        lines.append(f"## {heading}")
        if heading == "Errors":
            lines += _errors()
        for module, names in modules:
            for name in names:
                lines += _described(module, getattr(import_module(module), name), name)
    return _page(lines)


def _errors() -> Iterator[str]:
    errors = import_module("claude_force.errors")
    yield _block(inspect.cleandoc(errors.__doc__ or ""))
    classes = filter(inspect.isclass, vars(errors).values())
    found = [one for one in classes if issubclass(one, errors.CallError)]
    rows = [f"| `{one.__name__}` | {_line(one.__doc__)} | {one.advice} |" for one in found[1:]]
    yield "What a failed call's error says by itself, beside the server's own words:"
    yield "\n".join(["| error | when | advice |", "|---|---|---|", *rows])


def _line(text: Optional[str]) -> str:
    return " ".join((text or "").split())


def _described(module: str, value: Any, name: str) -> Iterator[str]:
    yield f"### {name}"
    yield f"`from {module} import {name}`{_other_names(module, value, name)}"
    yield from _docstring(value)
    if not inspect.isclass(value):
        yield _signature(value, name)
        return
    if dataclasses.is_dataclass(value):
        yield _block(_fields(value))
    elif hasattr(value, "_fields"):
        yield _block(f"{name}({', '.join(value._fields)})")
    elif "__init__" in _own(value) and not issubclass(value, BaseException):
        yield _signature(value.__init__, name)
        yield from _docstring(value.__init__)
    for member in _members(value):
        yield from member


def _other_names(module: str, value: Any, name: str) -> str:
    home = import_module(module)
    others = [one for one in getattr(home, "__all__", ()) if one != name and getattr(home, one) is value]
    return "".join(f", also as `{one}`" for one in others)


def _own(cls: type) -> Dict[str, Any]:
    bases = (base for base in reversed(cls.__mro__) if base is cls or base.__name__ in UNSEEN)
    return {name: member for base in bases for name, member in vars(base).items()}


def _members(cls: type) -> Iterator[List[str]]:
    for name, member in _own(cls).items():
        if name.startswith("_") or name in HIDDEN or not getattr(member, "__doc__", None):
            continue
        if isinstance(member, property):
            yield [f"#### {cls.__name__}.{name}", "A property.", *_docstring(member)]
        elif inspect.isfunction(member):
            shown = f"await {name}" if inspect.iscoroutinefunction(member) else name
            yield [f"#### {cls.__name__}.{name}", _signature(member, shown), *_docstring(member)]


def _fields(cls: Any) -> str:
    lines = [
        f"    {field.name}: {field.type}{_default_of(field)},"
        for field in dataclasses.fields(cls)
        if not field.name.startswith("_")
    ]
    return "\n".join([f"{cls.__name__}(", *lines, ")"])


def _default_of(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {_plain(field.default)}"
    return "" if field.default_factory is dataclasses.MISSING else f" = {field.default_factory()!r}"


def _signature(function: Any, name: str) -> str:
    signature = inspect.signature(function)
    parts, star = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        parts.append(_parameter(parameter))
    returned = "" if signature.return_annotation in ("None", inspect.Signature.empty) else "-> "
    ending = f" {returned}{signature.return_annotation}" if returned else ""
    line = f"{name}({', '.join(parts)}){ending}"
    if len(line) > 100:
        line = "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){ending}"])
    return _block(line)


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}: {parameter.annotation}"
    return text if parameter.default is parameter.empty else f"{text} = {_plain(parameter.default)}"


def _plain(value: Any) -> str:
    """A default as a reader would write it; "..." for an object that has no such form."""
    if inspect.isclass(value) or inspect.isbuiltin(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__name__}"
    if isinstance(value, (bool, int, float, str, type(None))) or not value:
        return repr(value)
    return "..."


def _docstring(value: Any) -> Iterator[str]:
    """Paragraphs; under a heading such as "Args:" an item for each name."""
    # Not inspect.getdoc: it takes the docstring of a base where there is none.
    own = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    parts = re.split(r"^(Args|Attributes|Raises|Returns):\n", own, flags=re.M)
    yield from _paragraphs(parts[0])
    for heading, text in zip(parts[1::2], parts[2::2]):
        # What belongs to a heading is indented; other paragraphs may follow it.
        _, body, after = re.split(r"\A((?:    .*\n?|\n)+)", text, maxsplit=1)
        yield f"{heading}:"
        yield _items(inspect.cleandoc(body)) if heading in LISTS else inspect.cleandoc(body)
        yield from _paragraphs(after)


def _items(body: str) -> str:
    items = re.split(r"\n(?=\S)|\n\n", body)
    return "\n".join(f"- {_item(item)}" for item in items if item.strip())


def _item(text: str) -> str:
    names, colon, rest = text.partition(": ")
    if not colon or not re.fullmatch(r"\w+(, \w+)*", names):
        return _line(text)
    return f"`{names.replace(', ', '`, `')}`: " + _line(rest)


def _paragraphs(text: str) -> Iterator[str]:
    if text.strip():
        yield text.strip("\n")


def commands() -> str:
    """The page of the command line."""
    common = [_row(one) for one in COMMAND.options]
    lines = [
        "# Commands",
        NOTICE,
        f"{COMMAND.summary} `claude-force VERB --help` says the same.",
        EXIT_CODES,
    ]
    lines += [
        "Options that stand before or after any verb:",
        _table([*_BUILT_IN, *common]),
    ]
    for name, verb in walk():
        lines += _verb(name, verb)
    return _page(lines)


def _verb(name: str, verb: Verb) -> Iterator[str]:
    yield f"{'###' if ' ' in name else '##'} claude-force {name}"
    yield verb.summary
    if verb.kinds:
        return
    options = [one for one in verb.options if one.group != COMMON]
    words = [_word(one) for one in options if not one.flags]
    more = ["[OPTIONS]"] if len(words) < len(options) else []
    yield _block(" ".join([f"claude-force {name}", *words, *more]))
    if options:
        yield _table([_row(one) for title in GROUPS for one in options if one.group == title])
    yield from filter(None, verb.notes.split("\n\n"))
    if verb.examples:
        examples = [f"{'' if PROGRAM in one else PROGRAM + ' '}{one}" for one in verb.examples]
        yield "Examples:\n\n" + _block("\n".join(examples))


def _table(rows: List[str]) -> str:
    return "\n".join(["| | |", "|---|---|", *rows])


def _row(option: Option) -> str:
    spelling = f"{', '.join(option.flags)} {_value(option)}".strip()
    return f"| `{_escaped(spelling)}` | {_escaped(option.help)} |"


def _word(option: Option) -> str:
    """A positional argument as the usage shows it."""
    return f"[{_value(option)}]" if option.argparse_arguments.get("nargs") == "?" else _value(option)


def _value(option: Option) -> str:
    value = "|".join(option.choices) or option.metavar
    return f"{value}..." if option.argparse_arguments.get("nargs") == "+" else value


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _page(parts: List[str]) -> str:
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
