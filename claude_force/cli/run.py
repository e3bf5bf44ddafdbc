"""The engine that all kinds of `run` share."""

from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, Iterator, List, Optional

from ..async_orchestrator import AsyncAgentOrchestrator
from ..engine.estimate import Estimate, Range
from ..errors import InputError
from ..formatting import format_usd, pluralize
from . import streams
from .arguments import number
from .options import given

_ENGINE_OPTIONS = {
    "timeout": "timeout_seconds",
    "deadline": "deadline_seconds",
    "max_retries": "max_retries",
    "max_concurrent": "max_concurrent",
    "rpm": "rpm",
    "input_tpm": "input_tpm",
    "output_tpm": "output_tpm",
}


def engine(args: argparse.Namespace, **more: Any) -> AsyncAgentOrchestrator:
    """An orchestrator with the limits and prices that were given. Raises InputError for a senseless one."""
    known = prices(getattr(args, "price", None))
    return AsyncAgentOrchestrator(
        args.config, stream=not args.no_stream, prices=known, **given(args, _ENGINE_OPTIONS), **more
    )


def prices(given: Optional[List[str]]) -> Dict[str, Dict[str, float]]:
    """Of `--price MODEL=INPUT,OUTPUT`, as often as it was given. Raises InputError."""
    found: Dict[str, Dict[str, float]] = {}
    for text in given or ():
        model, _, both = text.partition("=")
        try:
            fresh, answer = (number(one) for one in both.split(","))
            if not model or min(fresh, answer) < 0:
                raise ValueError(text)
        except ValueError:
            raise InputError(
                f"--price is {text!r}; write MODEL=INPUT,OUTPUT in USD per million tokens, 0 or more."
            ) from None
        found[model] = {"input": fresh, "output": answer}
    return found


def show_estimate(estimate: Estimate, of: str, as_json: bool) -> None:
    """Prints an estimate; `of` says what one of its rows is."""
    if as_json:
        streams.as_json({"success": True, **estimate_fields(estimate)})
    else:
        for line in estimate_lines(estimate, of):
            streams.write(line)


def estimate_fields(estimate: Estimate) -> Dict[str, Any]:
    """An estimate as `--json` shows it."""
    return {
        "rows": estimate.rows,
        "cached": estimate.cached,
        "unrunnable": estimate.unrunnable,
        "input_tokens": estimate.input_tokens._asdict(),
        "output_tokens": estimate.output_tokens._asdict(),
        "cost": estimate.cost._asdict() if estimate.cost else None,
        "cost_usd": estimate.cost._asdict() if estimate.cost else None,
        "unpriced": list(estimate.unpriced),
    }


def estimate_lines(estimate: Estimate, of: str) -> Iterator[str]:
    """An estimate to be read; `of` says what one of its rows is."""
    yield (
        f"{pluralize(estimate.rows, of)}: {estimate.cached:,} have a cached answer, "
        f"{estimate.unrunnable:,} can't be run"
    )
    yield f"input tokens   {_range(estimate.input_tokens, _whole)}"
    yield f"output tokens  {_range(estimate.output_tokens, _whole)}"
    if estimate.cost is not None:
        yield f"cost           {_range(estimate.cost, format_usd)}"
    else:
        yield f"cost           unknown for {', '.join(estimate.unpriced)}; give --price MODEL=INPUT,OUTPUT"


def _whole(number: float) -> str:
    return f"{number:,.0f}"


def _range(found: Range, spell: Callable[[float], str]) -> str:
    low, expected, high = map(spell, found)
    return f"about {expected}, from {low} to {high}"
