"""`run agent`: a kept answer at once, or a fresh one, which a terminal shows as it is written."""

from __future__ import annotations

import argparse

from ..types import AgentResult
from . import render, streams
from .answer_file import AnswerFile
from .cached_answer import kept_answer
from .options import check_budget
from .task import read_task


def run_agent(args: argparse.Namespace) -> int:
    """Returns 0, or 1 when the agent failed. Raises InputError."""
    check_budget(args.budget)
    task = read_task(args)
    if args.estimate:
        from .live_answer import estimate

        estimate(args, task)
        return 0
    with AnswerFile(args.output) as file:
        result = _answered(args, task)
        if args.json:
            streams.as_json(render.result_fields(result))
        if result.success:
            file.write(result.output)
    return _exit_code(result)


def _answered(args: argparse.Namespace, task: str) -> AgentResult:
    result = kept_answer(args, task)
    if result is None:
        from .live_answer import fresh_answer

        return fresh_answer(args, task)
    if not args.json:
        render.answer(result)
    return result


def _exit_code(result: AgentResult) -> int:
    return 0 if result.success else 1
