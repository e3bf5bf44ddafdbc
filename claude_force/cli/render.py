"""How agents, workflows and results look: as JSON, as a table on a terminal, as plain text in a pipe."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence

from .. import formatting as spelled
from ..formatting import format_duration, format_duration_coarse, pluralize
from . import streams

if TYPE_CHECKING:
    from ..types import AgentResult

# A text column gets no narrower than this in a table that is too wide; a cell takes so much for its frame.
_NARROW_TEXT, _FRAME = 14, 3
_LABEL = 17
# Letters of an agent's description in a table.
_MOST_SHOWN = 100
_CUT_OFF = {
    "max_tokens": "it reached --max-tokens",
    "model_context_window_exceeded": "the model's context window is full",
    "pause_turn": "the server paused the turn of its own tools",
}


def result_fields(result: AgentResult) -> Dict[str, Any]:
    """A result as `--json` shows it."""
    more = {
        "stop_reason": result.stop_reason,
        "truncated": result.truncated,
        "refused": result.refused,
        "empty": result.empty,
        "request_id": result.request_id,
        "attempts": result.attempts,
        "shared": result.shared,
        "saved_cost": result.saved_cost,
        # The names of every other output; those of 1.x stay beside them.
        "cost_usd": result.cost,
        "saved_usd": result.saved_cost,
        "duration_seconds": result.duration,
    }
    return {
        "success": result.success,
        "agent": result.agent_name,
        "output": result.output,
        "errors": errors_of(result),
        "metadata": {**result.metadata, **more},
    }


def errors_of(result: AgentResult) -> Optional[List[str]]:
    """Why there is no answer, in the words of the command."""
    return result.errors if result.error is None else [result.error.for_shell()]


def agents(found: List[Dict[str, Any]], as_json: bool) -> None:
    """The list of agents."""
    if as_json:
        streams.as_json(found)
    elif streams.on_terminal():
        heads = ("agent", "model", "description", "file")
        rows = [(a["name"], a["model"] or "?", _short(a["description"]), a["file"]) for a in found]
        without = heads[:-1], [row[:-1] for row in rows]
        # A broken name or path can't be copied, and `info` shows the file too.
        has_room = _is_wide_enough(heads, rows) or not _is_wide_enough(*without)
        table(*((heads, rows) if has_room else without))
    else:
        for agent in found:
            cells = (agent["name"], agent["priority"], ",".join(agent["domains"]), agent["file"])
            streams.write("\t".join(map(streams.one_line, cells)))


def _short(text: str) -> str:
    """The first line of a description, which may have pages of examples."""
    line = text.strip().partition("\n")[0].partition("\\n")[0].strip()
    return line if len(line) <= _MOST_SHOWN else line[: _MOST_SHOWN - 3].rstrip() + "..."


def workflows(found: Dict[str, Any], as_json: bool) -> None:
    """The workflows and their agents."""
    if as_json:
        streams.as_json(found)
        return
    rows = [(name, _steps(value)) for name, value in found.items()]
    if streams.on_terminal():
        table(("workflow", "steps"), rows)
    else:
        for name, steps in rows:
            streams.write(f"{streams.one_line(name)}\t{streams.one_line(steps)}")


def _steps(workflow: Any) -> str:
    if isinstance(workflow, list):
        return " -> ".join(str(agent) for agent in workflow)
    steps = workflow.get("steps", []) if isinstance(workflow, dict) else []
    return f"a graph of {pluralize(len(steps), 'step')}"


def info(found: Dict[str, Any], as_json: bool) -> None:
    """What is known of one agent or workflow."""
    if as_json:
        streams.as_json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            lines = [streams.one_line(f"{key}: {text}") for key, text in value.items()]
            shown = f"\n{'':{_LABEL}} ".join(lines)
        elif isinstance(value, list):
            shown = _listed(value)
        else:
            shown = streams.one_line("" if value is None else value)
        streams.write(f"{name + ':':{_LABEL}} {shown or '-'}")


def _listed(values: Sequence[Any]) -> str:
    if not all(isinstance(one, dict) for one in values):
        return streams.one_line(", ".join(values))
    return f"\n{'':{_LABEL}} ".join(
        streams.one_line(
            f"{step['id']}. {step['agent']}"
            + (f" (after {', '.join(step['dependencies'])})" if step["dependencies"] else "")
        )
        for step in values
    )


def answer(result: AgentResult, written: bool = False) -> None:
    """The answer alone on stdout, unless it is `written`; its figures, or why there is none, on stderr."""
    if not result.success:
        streams.error("; ".join(errors_of(result) or ["no reason was given"]), json=False)
        return
    if not written:
        streams.data(result.output)
    _remarks(result)


def _remarks(result: AgentResult) -> None:
    if result.truncated:
        streams.warn(f"the answer is cut off: {_CUT_OFF.get(result.stop_reason or '', 'raise --max-tokens')}")
    streams.status(_figures(result))


def _figures(result: AgentResult) -> str:
    if result.cached:
        return (
            f"{result.model}, from the cache ({format_duration_coarse(result.cache_age or 0.0)} old), "
            f"nothing paid, saved {dollars(result.saved_cost)}"
        )
    return (
        f"{result.model}, {result.usage.total_tokens:,} tokens, {dollars(result.cost)}, "
        f"{format_duration(result.duration)}, {pluralize(result.attempts, 'attempt')}"
    )


def dollars(cost: Optional[float]) -> str:
    """USD, or that they are not known."""
    return "cost unknown" if cost is None else spelled.format_usd(cost)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, as a list where that is narrow; in plain columns elsewhere."""
    # A name in the ledger may be what a server called its model.
    rows = [[streams.one_line(cell) for cell in row] for row in rows]
    if streams.on_terminal():
        _drawn(heads, rows)
        return
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        streams.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _drawn(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    if console.width < _least_width(heads, rows, _is_figures):
        for name, *rest in rows:
            console.print(Text(name, "bold"))
            for head, cell in zip(heads[1:], rest):
                if cell:
                    console.print(Text(f"  {head}: {cell}"))
        return
    is_whole = _is_unbroken if console.width >= _least_width(heads, rows, _is_unbroken) else _is_figures
    drawn = Table(
        *(
            Column(head, overflow="fold", no_wrap=is_whole(cells), min_width=len(head))
            for head, *cells in zip(heads, *rows)
        )
    )
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def fits(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the terminal is so wide that the table needs no line break."""
    # Not above: nobody else needs it, and a cached answer is not to wait for it.
    import shutil

    widths = (max(map(len, cells)) for cells in zip(heads, *rows))
    return sum(width + _FRAME for width in widths) + 1 <= shutil.get_terminal_size().columns


def _is_wide_enough(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the terminal has room for the table without a break in a name."""
    import shutil

    return _least_width(heads, rows, _is_unbroken) <= shutil.get_terminal_size().columns


def _least_width(
    heads: Sequence[str], rows: Sequence[Sequence[str]], is_whole: Callable[[Sequence[str]], bool]
) -> int:
    """Columns of a terminal that a drawn table needs where the cells that are `is_whole` are not broken."""
    total = 1
    for head, *cells in zip(heads, *rows):
        longest = max(map(len, cells), default=0)
        needed = longest if is_whole(cells) else min(longest, _NARROW_TEXT)
        total += max(needed, len(head)) + _FRAME
    return total


def _is_unbroken(cells: Sequence[str]) -> bool:
    """Whether a column has only names and figures, which are broken in a narrow terminal alone."""
    return _is_figures(cells) or not any(" " in cell for cell in cells)


def _is_figures(cells: Sequence[str]) -> bool:
    return all(not cell or cell[0] in "0123456789$<-" or cell.startswith("unknown") for cell in cells)


class Spinner:
    """Shows on stderr that something is under way, where a person reads it."""

    def __init__(self, text: str, as_json: bool) -> None:
        self._status: Any = None
        if sys.stderr.isatty() and not as_json and not streams.is_quiet():
            from rich.console import Console
            from rich.text import Text

            self._status = Console(stderr=True).status(Text(streams.one_line(text)))

    def __enter__(self) -> Spinner:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes it away; a second time does nothing."""
        if self._status is not None:
            self._status.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For as long as something else is printed."""
        self.stop()
        try:
            yield
        finally:
            self.__enter__()
