"""Makes the orchestrator of a command; runs and estimates calls of one agent with it."""

from __future__ import annotations

import argparse
import json
from typing import Any, Callable, Dict, Iterator

from ..agents import Registry, prepare_call
from ..async_orchestrator import AsyncAgentOrchestrator
from ..call_runner import first_request
from ..engine.estimate import Estimate, Range
from ..formatting import format_usd, pluralize
from ..limits.call_context import CallContext
from ..transport.request import request_fields, to_objects, to_request
from ..types import AgentResult, Call
from . import render, signals, streams
from .agent_activity import AgentActivity
from .run_options import call_options, given_limits, request_options


def make_orchestrator(args: argparse.Namespace, **more: Any) -> AsyncAgentOrchestrator:
    """Returns an orchestrator with the given limits and prices. Raises InputError."""
    return AsyncAgentOrchestrator(args.config, stream=not args.no_stream, **given_limits(args), **more)


def request_answer(args: argparse.Namespace, task: str) -> AgentResult:
    """Runs the agent, and shows the result unless it is wanted as JSON. Raises InputError."""
    # What an agent writes between its tool calls is no part of its answer.
    is_live = streams.stdout_is_terminal() and not (args.json or args.no_stream or args.of_tools)
    display = AnswerDisplay(args.name, args.json, is_live)
    try:
        result = signals.run(_execute(args, task, display))
    finally:
        display.end()
    if not args.json:
        render.show_result(result, is_written=display.is_written)
    return result


async def _execute(args: argparse.Namespace, task: str, display: AnswerDisplay) -> AgentResult:
    async with make_orchestrator(args, budget_usd=args.budget) as orchestrator:
        with display.spinner:
            return await orchestrator._calls.execute(
                CallContext(listener=display), args.name, task, cache=args.cache, **request_options(args)
            )


class AnswerDisplay(AgentActivity):
    """Shows a spinner until the answer begins; then, if `is_live`, the answer while it is written.

    Beside the spinner is what an agent does with its tools.
    """

    def __init__(self, name: str, as_json: bool, is_live: bool) -> None:
        super().__init__(name)
        self.spinner, self._is_live = render.Spinner(self._spinner_text, as_json), is_live
        self._last = "\n"
        self.is_written = False

    def _spinner_text(self) -> str:
        return self.line() if self.turn else f"{self._name} is working"

    def wrote(self, text: str) -> None:
        """Writes the next part of the answer."""
        if not self._is_live:
            return
        if not self.is_written:
            self.spinner.stop()
        self.is_written, self._last = True, text
        streams.write_chunk(text)

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        """Says that the answer begins anew: what was written of it is not part of the result."""
        super().retried(attempt, delay, error)
        if self.is_written:
            self.end()
            self.is_written = False
            # The warning that follows says why.
            streams.status("the answer broke off and begins anew")

    def end(self) -> None:
        """Ends the line of the answer."""
        self.spinner.stop()
        if not self._last.endswith("\n"):
            streams.write_chunk("\n")
            self._last = "\n"


def estimate_agent(args: argparse.Namespace, task: str) -> None:
    """Shows the expected tokens and cost of one call. Raises InputError."""
    # An estimate counts calls that can't be made; here the only call is wrong input instead.
    prepare_call(Registry(args.config), args.name, task, **call_options(args))
    show_estimate(signals.run(_estimate(args, task)), "call", args.json, has_tools=bool(args.of_tools))


async def _estimate(args: argparse.Namespace, task: str) -> Estimate:
    async with make_orchestrator(args) as orchestrator:
        calls = orchestrator._calls
        # Raises what would make it a call that can't be run.
        await calls.offered(args.name, calls.tool_options(args.name, args.of_tools))
        return await orchestrator.estimate([(args.name, task)], cache=args.cache, **request_options(args))


def show_first_request(args: argparse.Namespace, task: str) -> None:
    """Shows what the only call of a command would send first. Raises InputError."""
    signals.run(show_request(args, args.name, task))


async def show_request(args: argparse.Namespace, agent_name: str, task: str) -> None:
    """Prints the first request of a call as JSON, and which tools it leaves out. Raises InputError."""
    options = request_options(args)
    async with make_orchestrator(args) as orchestrator:
        calls = orchestrator._calls
        call = calls.prepare(agent_name, task, **options)
        granted = calls.tool_options(call.agent_name, options)
        call = first_request(call, await calls.offered(call.agent_name, granted))
    fields = request_fields_of(args, call)
    write_request({"success": True, "agent": call.agent_name, "request": fields} if args.json else fields)
    if granted is not None:
        from .agent_tools import AgentTools

        left_out = AgentTools(calls.registry, str(granted.grant)).fields(calls.registry.get(agent_name))[
            "left_out"
        ]
        for tool, reason in left_out.items():
            streams.status(f"{tool} is left out: {reason}")


def request_fields_of(args: argparse.Namespace, call: Call) -> Dict[str, Any]:
    """Returns the body of the request for a call."""
    return to_objects(to_request(request_fields(call, not args.no_stream), pins_version=True).body)


def write_request(fields: Dict[str, Any]) -> None:
    """Writes a request as JSON, without the names that are added to figures elsewhere."""
    streams.write_data(json.dumps(fields, indent=2))


def show_estimate(estimate: Estimate, unit: str, as_json: bool, has_tools: bool = False) -> None:
    """Prints an estimate of some rows or calls; `unit` names one of them."""
    if has_tools:
        streams.status("of agents that use tools, the first request is counted; more follow as they use them")
    if as_json:
        streams.write_json({"success": True, **estimate_fields(estimate)})
    else:
        for line in _estimate_lines(estimate, unit):
            streams.write_line(line)


def estimate_fields(estimate: Estimate) -> Dict[str, Any]:
    """Returns an estimate as `--json` shows it."""
    cost = estimate.cost._asdict() if estimate.cost else None
    return {
        "rows": estimate.rows,
        "cached": estimate.cached,
        "unrunnable": estimate.unrunnable,
        "input_tokens": estimate.input_tokens._asdict(),
        "output_tokens": estimate.output_tokens._asdict(),
        "cost": cost,
        "cost_usd": cost,
        "unpriced": list(estimate.unpriced),
    }


def _estimate_lines(estimate: Estimate, unit: str) -> Iterator[str]:
    yield (
        f"{pluralize(estimate.rows, unit)}: {estimate.cached:,} have a cached answer, "
        f"{estimate.unrunnable:,} can't be run"
    )
    yield f"input tokens   {_range(estimate.input_tokens, '{:,.0f}'.format)}"
    yield f"output tokens  {_range(estimate.output_tokens, '{:,.0f}'.format)}"
    if estimate.cost is not None:
        yield f"cost           {_range(estimate.cost, format_usd)}"
    else:
        yield f"cost           unknown for {', '.join(estimate.unpriced)}; give --price MODEL=INPUT,OUTPUT"


def _range(found: Range, formatted: Callable[[float], str]) -> str:
    low, expected, high = map(formatted, found)
    return f"about {expected}, from {low} to {high}"
