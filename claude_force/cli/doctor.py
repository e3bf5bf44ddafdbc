"""`doctor`: what is wrong here, and what mends it."""

from __future__ import annotations

import argparse
from typing import Iterator, List

from ..agents import Registry, resolve_model
from ..errors import ConfigurationError, InvalidOptionError
from ..formatting import pluralize
from . import render, streams
from .checks import machine
from .checks.finding import PROBLEM, WARNING, CheckResult
from .checks.project import project


def doctor(args: argparse.Namespace) -> int:
    """Returns 0, or 1 where something is a problem."""
    found: List[CheckResult] = []
    for finding in _checked(args):
        found.append(finding)
        if not args.json:
            _show(finding)
    problems = sum(one.state == PROBLEM for one in found)
    if args.json:
        checks = [one._asdict() for one in found]
        streams.as_json({"success": not problems, "problems": problems, "checks": checks})
    else:
        warnings = sum(one.state == WARNING for one in found)
        streams.write(f"{pluralize(problems, 'problem')}, {pluralize(warnings, 'warning')}")
    return 1 if problems else 0


def _checked(args: argparse.Namespace) -> Iterator[CheckResult]:
    yield machine.python()
    yield machine.sdk()
    yield from _of_project(args)
    yield from machine.cache()
    if args.offline:
        yield machine.credentials()
        return
    from .checks.endpoint import endpoint

    try:
        model = resolve_model(call=args.model, agent=None)
    except InvalidOptionError as error:
        yield CheckResult("endpoint", PROBLEM, f"it was not asked, as there is no model to ask for: {error}")
        return
    with render.Spinner("asking the endpoint", args.json):
        found = endpoint(model, args.send)
    yield from found


def _of_project(args: argparse.Namespace) -> Iterator[CheckResult]:
    try:
        registry = Registry(args.config)
        yield from project(registry)
    except ConfigurationError as error:
        yield CheckResult("project", PROBLEM, str(error), "Nothing of it can be run before that.")
        return
    yield machine.metrics(registry.ledger)


def _show(finding: CheckResult) -> None:
    streams.write(f"{finding.state:8} {finding.name:12} {streams.one_line(finding.text)}")
    if finding.advice:
        streams.write(f"{'':21} {streams.one_line(finding.advice)}")
