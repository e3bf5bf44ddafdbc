"""The engine that all kinds of `run` share."""

from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, Iterator, List, Optional

from ..agents import Registry, prepare_call
from ..async_orchestrator import AsyncAgentOrchestrator
from ..engine.estimate import Estimate, Range
from ..errors import InputError
from ..formatting import format_usd, pluralize
from ..limits.call_context import CallContext, CallListener
from ..types import AgentResult
from . import render, signals, streams
from .arguments import number
from .run_options import call_options, given

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


def fresh_answer(args: argparse.Namespace, task: str) -> AgentResult:
    """Asks the model, and shows what came of it unless that is to be JSON. Raises InputError."""
    page = Page(render.Spinner(f"{args.name} is working", args.json), live=_is_live(args))
    try:
        result = signals.run(_asked(args, task, page))
    finally:
        page.end()
    if not args.json:
        render.answer(result, written=page.is_written)
    return result


def _is_live(args: argparse.Namespace) -> bool:
    return streams.on_terminal() and not args.json and not args.no_stream


async def _asked(args: argparse.Namespace, task: str, page: Page) -> AgentResult:
    async with engine(args, budget_usd=args.budget) as running:
        with page.spinner:
            return await running._calls.execute(
                CallContext(listener=page), args.name, task, cache=args.cache, **call_options(args)
            )


def estimate(args: argparse.Namespace, task: str) -> None:
    """Shows what the call would use and cost. Raises InputError."""
    # An estimate only counts calls that can't be made; this one call is all that was asked about.
    prepare_call(Registry(args.config), args.name, task, **call_options(args))
    show_estimate(signals.run(_estimated(args, task)), "call", args.json)


async def _estimated(args: argparse.Namespace, task: str) -> Estimate:
    async with engine(args) as running:
        return await running.estimate([(args.name, task)], cache=args.cache, **call_options(args))


class Page(CallListener):
    """Writes an answer on the terminal, where it is `live`; a spinner turns until its first word is there."""

    def __init__(self, spinner: render.Spinner, live: bool) -> None:
        self.spinner, self._live = spinner, live
        self._last = "\n"
        self.is_written = False

    def wrote(self, text: str) -> None:
        """The next piece of the answer."""
        if not self._live:
            return
        if not self.is_written:
            self.spinner.stop()
        self.is_written, self._last = True, text
        streams.write_raw(text)

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        """What was written of the answer is worth nothing: it begins anew."""
        if self.is_written:
            self.end()
            self.is_written = False
            # Why is said by the warning that follows.
            streams.status("the answer broke off and begins anew")

    def end(self) -> None:
        """Whatever comes next begins on a line of its own."""
        self.spinner.stop()
        if not self._last.endswith("\n"):
            streams.write_raw("\n")
            self._last = "\n"
