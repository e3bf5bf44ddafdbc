"""What the parsers of the command have in common. A verb's gets its arguments when the verb is chosen."""

from __future__ import annotations

import argparse
from typing import Any, Callable, NoReturn, Optional, Sequence, Tuple


class Parser(argparse.ArgumentParser):
    """Reports usage errors as an exception, so that they take the same way out as all others.

    `fill` gives it its arguments right before they are needed: a command pays only for those of its own verb.
    """

    def __init__(self, *, fill: Optional[Callable[[Parser], None]] = None, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)
        self._fill = fill

    def parse_known_args(  # type: ignore[override]
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> Tuple[argparse.Namespace, Sequence[str]]:
        """Raises InputError."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        from ..errors import InputError

        raise InputError(f"{message} (see {self.prog} --help)")

    def add_kinds(self, dest: str, metavar: Optional[str] = None) -> Kinds:
        """What comes next on the command line is one of several words, each with arguments of its own."""
        return Kinds(self, dest, metavar)


class Kinds:
    """The words that one parser chooses among."""

    def __init__(self, parser: Parser, dest: str, metavar: Optional[str]) -> None:
        self._parsers = parser.add_subparsers(dest=dest, metavar=metavar, required=True)

    def add(self, name: str, summary: str, fill: Callable[[Parser], None], epilog: str = "") -> None:
        """The word `name`, whose parser gets its arguments from `fill`."""

        def with_common(parser: Parser) -> None:
            add_common(parser)
            fill(parser)

        self._parsers.add_parser(name, help=summary, description=summary, fill=with_common, epilog=epilog)


def add_common(parser: Parser) -> None:
    """The options that may stand before or after the verb."""
    # Without a default of its own, an option left out after the verb doesn't undo one before it.
    options = parser.add_argument_group("common options")
    absent = argparse.SUPPRESS
    options.add_argument("--json", action="store_true", default=absent, help="print JSON, and only JSON")
    options.add_argument("--config", metavar="PATH", default=absent, help="claude.json of the project")
    model = "opus, sonnet, haiku or a full model id"
    options.add_argument("--model", metavar="MODEL", default=absent, help=model)
    only_errors = "nothing on stderr but errors"
    options.add_argument("-q", "--quiet", action="store_true", default=absent, help=only_errors)
    options.add_argument("-v", "--verbose", action="store_true", default=absent, help="log to stderr")
