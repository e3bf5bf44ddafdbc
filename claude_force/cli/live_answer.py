"""A fresh answer of one agent: on a terminal it appears as the server writes it."""

from __future__ import annotations

import argparse

from ..agents import Registry, prepare_call
from ..engine.estimate import Estimate
from ..limits.call_context import CallContext, CallListener
from ..types import AgentResult
from . import render, signals, streams
from .options import call_options
from .run import engine, show_estimate


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
            return await running.execute_agent(
                args.name, task, cache=args.cache, context=CallContext(listener=page), **call_options(args)
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
