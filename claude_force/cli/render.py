"""Shows results and tables: as JSON, drawn on a terminal, as plain text in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from ..formatting import format_duration, format_duration_coarse, format_usd, pluralize
from . import streams

if TYPE_CHECKING:
    from ..types import AgentResult

# Columns that a text column keeps at least in a table that is too wide, and those of a cell's frame.
_MIN_TEXT_WIDTH, _FRAME = 14, 3
_TRUNCATED_BECAUSE = {
    "max_tokens": "it reached --max-tokens",
    "model_context_window_exceeded": "the model's context window is full",
    "pause_turn": "the server paused while it ran its tools",
}


def result_fields(result: AgentResult) -> Dict[str, Any]:
    """Returns a result as `--json` shows it."""
    # Imported here: tables need no results.
    from ..types import tool_fields

    more = {
        "stop_reason": result.stop_reason,
        "truncated": result.truncated,
        "refused": result.refused,
        "empty": result.empty,
        "request_id": result.request_id,
        "attempts": result.attempts,
        "shared": result.shared,
        "saved_cost": result.saved_cost,
        # Names that every output has; those of 1.x stay beside them.
        "cost_usd": result.cost,
        "saved_usd": result.saved_cost,
        "duration_seconds": result.duration,
    }
    return {
        "success": result.success,
        "agent": result.agent_name,
        "output": result.output,
        "errors": error_messages(result),
        "metadata": {**result.metadata, **more},
        **tool_fields(result),
    }


def error_messages(result: AgentResult) -> Optional[List[str]]:
    """Returns why there is no answer, naming options instead of arguments."""
    return result.errors if result.error is None else [result.error.for_shell()]


def show_result(result: AgentResult, is_written: bool = False) -> None:
    """Writes the answer to stdout, unless it `is_written` already, and its figures or its error to stderr."""
    _show_tools(result)
    if not result.success:
        streams.error("; ".join(error_messages(result) or ["no reason was given"]), json=False)
        return
    if not is_written:
        streams.write_data(result.output)
    if result.truncated:
        reason = _TRUNCATED_BECAUSE.get(result.stop_reason or "", "raise --max-tokens")
        streams.warn(f"the answer is cut off: {reason}")
    streams.status(_figures(result))


def _show_tools(result: AgentResult) -> None:
    """Says which bound was reached and what was denied; lists the tool calls where all is logged."""
    if not result.turns:
        return
    from .logs import is_verbose
    from .tool_lines import call_line, denied_line, stopped_line

    for call in result.tool_calls if is_verbose() else ():
        streams.status(call_line(call))
    denied = denied_line(result.tool_calls)
    if denied:
        streams.warn(denied)
    if result.stopped_by is not None:
        streams.warn(stopped_line(result.stopped_by, result.success))


def _figures(result: AgentResult) -> str:
    if result.cached:
        return (
            f"{result.model}, from the cache ({format_duration_coarse(result.cache_age or 0.0)} old), "
            f"nothing paid, saved {format_cost(result.saved_cost)}{_turns(result)}"
        )
    return (
        f"{result.model}, {result.usage.total_tokens:,} tokens, {format_cost(result.cost)}, "
        f"{format_duration(result.duration)}, {pluralize(result.attempts, 'attempt')}{_turns(result)}"
    )


def _turns(result: AgentResult) -> str:
    if not result.turns:
        return ""
    from .tool_lines import tool_counts

    failed = sum(call.error is not None for call in result.tool_calls)
    return f", {tool_counts(len(result.turns), len(result.tool_calls), failed)}"


def format_cost(cost: Optional[float]) -> str:
    """Returns an amount of USD, or "cost unknown" for None."""
    return "cost unknown" if cost is None else format_usd(cost)


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a table: drawn on a terminal, as a list if that is narrow, else in plain columns."""
    # A model's name in the ledger is what a server sent.
    rows = [[streams.one_line(cell) for cell in row] for row in rows]
    if streams.stdout_is_terminal():
        _draw(heads, rows)
        return
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        streams.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    if console.width < _min_width(heads, rows, _is_numbers):
        for name, *rest in rows:
            console.print(Text(name, "bold"))
            for head, cell in zip(heads[1:], rest):
                if cell:
                    console.print(Text(f"  {head}: {cell}"))
        return
    is_whole = _is_unbroken if console.width >= _min_width(heads, rows, _is_unbroken) else _is_numbers
    table = Table(
        *(
            Column(head, overflow="fold", no_wrap=is_whole(cells), min_width=len(head))
            for head, *cells in zip(heads, *rows)
        )
    )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def fits_terminal(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether the table fits the terminal without a line break."""
    return _min_width(heads, rows, lambda cells: True) <= _columns()


def fits_names(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether the table fits the terminal without a line break in a name or a number."""
    return _min_width(heads, rows, _is_unbroken) <= _columns()


def _columns() -> int:
    # Imported here: a cached answer does not wait for it.
    import shutil

    return shutil.get_terminal_size().columns


def _min_width(
    heads: Sequence[str], rows: Sequence[Sequence[str]], is_whole: Callable[[Sequence[str]], bool]
) -> int:
    """Returns the columns that a drawn table needs if cells for which `is_whole` holds have no line break."""
    total = 1
    for head, *cells in zip(heads, *rows):
        longest = max(map(len, cells), default=0)
        needed = longest if is_whole(cells) else min(longest, _MIN_TEXT_WIDTH)
        total += max(needed, len(head)) + _FRAME
    return total


def _is_unbroken(cells: Sequence[str]) -> bool:
    """Returns whether a column has only names or numbers, broken only on a narrow terminal."""
    return _is_numbers(cells) or not any(" " in cell for cell in cells)


def _is_numbers(cells: Sequence[str]) -> bool:
    return all(not cell or cell[0] in "0123456789$<-" or cell.startswith("unknown") for cell in cells)


class Spinner:
    """A spinner on stderr with the text of each moment, in one line, if a person reads it."""

    def __init__(self, text: Callable[[], str], as_json: bool) -> None:
        self._status: Any = None
        if sys.stderr.isatty() and not as_json and not streams.is_quiet():
            from rich.console import Console

            self._status = Console(stderr=True).status(_Line(text), refresh_per_second=8)

    def __enter__(self) -> Spinner:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Removes the spinner. Has no effect the second time."""
        if self._status is not None:
            self._status.stop()


class _Line:
    """Text for rich, which asks for it anew for each frame."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text(streams.one_line(self._text()), no_wrap=True, overflow="ellipsis")
