"""Arguments that several verbs share, and the types of their values."""

from __future__ import annotations

import argparse
from typing import Any, Dict, Mapping, Union

from .parser import Parser

_CALL_OPTIONS = {"model": "model", "max_tokens": "max_tokens", "temperature": "temperature"}

TASK_HELP = "The task is --task TEXT, --task-file FILE, or standard input (a pipe, or - for it by name)."


def add_name(parser: Parser, of: str) -> None:
    """The name of something of the project's: `of` is "agents", "workflows" or "names", which is both."""
    parser.add_argument("name", metavar="NAME")
    parser.values["name"] = of


def add_task(parser: Parser) -> None:
    """Where the task of one call comes from."""
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--task", metavar="TEXT", help="the task itself")
    task.add_argument("--task-file", metavar="FILE", help="a UTF-8 file that holds the task")
    parser.values["task_file"] = "files"


def add_cache_policy(parser: Parser) -> None:
    """Whether kept answers are used."""
    parser.add_argument(
        "--cache", choices=["use", "refresh", "off"], default="use", help="kept answers (use)"
    )


def add_call_options(parser: Parser) -> None:
    """What changes an answer, and what bounds a call."""
    add = parser.add_argument
    add("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")
    add("--temperature", type=number, metavar="X", help="where the model and the SDK still take it")
    add("--timeout", type=number, metavar="S", help="longest silence of the server, in seconds")
    add("--deadline", type=number, metavar="S", help="bound of a whole call with its retries, in seconds")
    add("--max-retries", type=int, metavar="N", help="attempts per call, the first among them")
    add("--max-concurrent", type=concurrent, metavar="N", help="attempts on the wire at one time, or auto")
    add("--no-stream", action="store_true", help="ask for each answer in one piece")


def add_database(parser: Parser, what: str) -> None:
    """Which database is to be used, if any; `what` says for what. The environment alone asks for none."""
    which = parser.add_mutually_exclusive_group()
    url = f"{what}: postgresql://user:password@host/name, or sqlite:///FILE"
    which.add_argument("--database", metavar="URL", help=url)
    which.add_argument(
        "--durable", action="store_true", help="the same, with the URL that CLAUDE_FORCE_DATABASE_URL holds"
    )


def concurrent(text: str) -> Union[int, str]:
    """A number of attempts, or "auto"."""
    return text if text == "auto" else int(text)


concurrent.__name__ = "number of attempts"  # argparse names it in its message


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if value - value != 0:  # nan, inf
        raise ValueError(text)
    return value


def call_options(args: argparse.Namespace) -> Dict[str, Any]:
    """Those that change the answer, under the engine's names."""
    return given(args, _CALL_OPTIONS)


def given(args: argparse.Namespace, names: Mapping[str, str]) -> Dict[str, Any]:
    """The options that were set; for the others the engine has its own defaults."""
    values = {name: getattr(args, option) for option, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}
