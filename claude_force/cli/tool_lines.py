"""Words for tool calls: one line each, with nothing in it that a terminal obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, Mapping

from ..formatting import format_bytes, format_duration, option, pluralize
from . import streams

if TYPE_CHECKING:
    from ..types import AgentResult, ToolCall

# The arguments that say what a call is about, the first that it has.
_TELLING = ("command", "pattern", "file_path", "notebook_path", "path", "url", "query", "prompt")
_MOST_SHOWN = 60
_LONGEST_READ = 500
_MOST_KINDS = 3


def call_text(name: str, given: Any) -> str:
    """Returns a tool and its short input, such as "Grep TODO in src", in at most about 80 characters."""
    about = _about(given) if isinstance(given, Mapping) else str(given)[:_LONGEST_READ]
    return f"{_short(name, 30)} {_short(about, _MOST_SHOWN)}".rstrip()


def _about(given: Mapping[str, Any]) -> str:
    found = next((given[name] for name in _TELLING if isinstance(given.get(name), str)), "")
    if not found:
        found = next((value for value in given.values() if isinstance(value, str)), "")
    text = str(found)[:_LONGEST_READ]
    folder = given.get("path")
    is_search = isinstance(given.get("pattern"), str) and isinstance(folder, str) and folder
    return f"{text} in {folder[:_LONGEST_READ]}" if is_search and isinstance(folder, str) else text


def _short(text: str, most: int) -> str:
    """Returns the text in one line; a model wrote it."""
    line = streams.one_line(text)
    return line if len(line) <= most else f"{line[: most - 3]}..."


def call_line(call: ToolCall) -> str:
    """Returns a tool call that has ended, with its turn, its time and the size or the error of its result."""
    ended = format_bytes(call.bytes) if call.error is None else f"failed: {_short(_untagged(call.error), 80)}"
    return f"turn {call.turn}: {call_text(call.name, call.input)}, {format_duration(call.seconds)}, {ended}"


def _untagged(error: str) -> str:
    """Removes the tag that errors of tools have for models; its end may be cut off."""
    return error.replace("<tool_use_error>", "").replace("</tool_use_error>", "")


def denied_line(calls: Iterable[ToolCall]) -> str:
    """Returns what was not permitted, by tool; "" for nothing."""
    counts: Dict[str, int] = {}
    for call in calls:
        if call.is_denied:
            counts[call.name] = counts.get(call.name, 0) + 1
    return denied_text(counts)


def denied_text(counts: Mapping[str, int]) -> str:
    """Returns how many calls of which tools were not permitted; "" for none."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = ", ".join(f"{_short(name, 30)} {count:,}" for name, count in ordered[:_MOST_KINDS])
    more = len(ordered) - _MOST_KINDS
    rest = f" and {pluralize(more, 'other tool')}" if more > 0 else ""
    number = sum(counts.values())
    return f"{pluralize(number, 'tool call was', 'tool calls were')} not permitted: {shown}{rest}"


def stopped_line(bound: str, is_answered: bool) -> str:
    """Returns that a bound ended the use of tools."""
    flag = bound_name(bound)
    ended = "the agent had to answer without further tools" if is_answered else "the agent was ended"
    return f"{flag} was reached: {ended}; raise it for more"


def bound_name(bound: str) -> str:
    """Returns the option that sets a bound of `AgentResult.stopped_by`; two set the budget."""
    return "the budget" if bound == "budget_usd" else option(bound)


class ToolTally:
    """Counts what agents that used tools did, over the rows of a run.

    Attributes:
        turns, calls, failed: requests, tool calls, and those of the calls that failed or were denied.
        denied: the number of denied calls by tool.
        stopped_by: the number of agents by the bound that they reached.
    """

    def __init__(self) -> None:
        self.turns = self.calls = self.failed = 0
        self.denied: Dict[str, int] = {}
        self.stopped_by: Dict[str, int] = {}

    def add(self, result: AgentResult) -> None:
        """Counts an agent that has ended."""
        self.turns += len(result.turns)
        self.calls += len(result.tool_calls)
        for call in result.tool_calls:
            self.failed += call.error is not None
            if call.is_denied:
                self.denied[call.name] = self.denied.get(call.name, 0) + 1
        if result.stopped_by is not None:
            self.stopped_by[result.stopped_by] = self.stopped_by.get(result.stopped_by, 0) + 1

    def lines(self) -> Iterator[str]:
        """Yields what a summary says; nothing where no agent used tools."""
        if not self.turns:
            return
        yield f"{tool_counts(self.turns, self.calls, self.failed)}"
        for bound, count in sorted(self.stopped_by.items()):
            yield f"{pluralize(count, 'row')} reached {bound_name(bound)}"
        if self.denied:
            yield denied_text(self.denied)

    def fields(self) -> Dict[str, Any]:
        """Returns the counts as `--json` shows them; {} where no agent used tools."""
        if not self.turns:
            return {}
        counts = {"turns": self.turns, "tool_calls": self.calls, "failed_tool_calls": self.failed}
        return {**counts, "denied_tool_calls": dict(self.denied), "stopped_by": dict(self.stopped_by)}


def tool_counts(turns: int, calls: int, failed: int) -> str:
    """Returns "4 turns, 6 tool calls (1 failed)"."""
    of_these = f" ({failed:,} failed)" if failed else ""
    return f"{pluralize(turns, 'turn')}, {pluralize(calls, 'tool call')}{of_these}"
