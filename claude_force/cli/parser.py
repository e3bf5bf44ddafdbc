"""What the parsers of the command have in common. A verb's gets its arguments when the verb is chosen."""

from __future__ import annotations

import argparse
import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, NoReturn, Optional, Sequence, Tuple

from .. import settings
from . import streams

# Verbs of 1.x, and what takes their place.
_OWN_FILES = "copy the agent's file into .claude/agents"
_NO_SUCCESSOR = "it has no successor"
GONE: Mapping[str, str] = {
    "analyze": "use `metrics agents`, which compares agents by what they did",
    "analyze-task": "use `list agents` to choose an agent, and --estimate for the cost",
    "compose": "write the workflow into claude.json, and look at it with `workflow show`",
    "contribute": _NO_SUCCESSOR,
    "diagnose": "use `doctor`",
    "export": _OWN_FILES,
    "gallery": "use `init`, which writes sample agents",
    "import": _OWN_FILES,
    "import-bulk": _OWN_FILES,
    "marketplace": _OWN_FILES,
    "pick-agent": _OWN_FILES,
    "recommend": "use `list agents` to choose an agent",
    "restructure": _NO_SUCCESSOR,
    "review": "use `doctor`, which names every file that can't be used",
    "setup": "use `init`, then `doctor`",
    "shell": "use `completion`, which lets your own shell complete commands",
}

_MARGIN, _COLUMNS_OF_A_FILE = 2, 80
# Where the help of an option begins.
_HELP_COLUMN = 28


class _Help(argparse.HelpFormatter):
    """As wide as the terminal. argparse makes one for each argument, and imports `shutil` to know that."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns(), max_help_position=_HELP_COLUMN)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wraps paragraphs; keeps the lines of a paragraph that has several, such as examples."""
        wrap = super()._fill_text
        paragraphs = text.split("\n\n")
        return "\n\n".join(one if "\n" in one else wrap(one, width, indent) for one in paragraphs)


def _columns() -> int:
    try:
        columns = settings.columns() or os.get_terminal_size(1).columns
    except OSError:
        columns = 0
    return (columns or _COLUMNS_OF_A_FILE) - _MARGIN


class Parser(argparse.ArgumentParser):
    """Reports usage errors as an exception, so that they take the same way out as all others.

    `fill` gives it its arguments right before they are needed: a command pays only for those of its own verb.

    Attributes:
        kinds: the words that it chooses among, each with its parser.
        values: what the shell's completion offers for an argument, by its `dest`: "agents", "workflows",
            "names" (both), "models", "files" or "folders".
    """

    def __init__(self, *, fill: Optional[Callable[[Parser], None]] = None, **more: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **more)
        self._fill = fill
        self.kinds: Dict[str, _Kind] = {}
        self.values: Dict[str, str] = {}

    def parse_known_args(  # type: ignore[override]
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> Tuple[argparse.Namespace, Sequence[str]]:
        """Raises InputError."""
        return super(Parser, self.filled()).parse_known_args(args, namespace)

    def filled(self) -> Parser:
        """This parser with its arguments."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        return self

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        from ..errors import InputError

        raise InputError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        # Help and version, for usage errors are exceptions. argparse says nothing where a disk is full.
        streams.write_raw(message)

    def stray_option(self, words: Sequence[str]) -> Optional[Tuple[Parser, str]]:
        """The first option before a verb that is none of this parser's, with the parser that it was given to.

        argparse would take the value of such an option for the verb.
        """
        takes_value = {flag: one.nargs != 0 for one in self.actions() for flag in one.option_strings}
        rest = iter(words)
        for word in rest:
            if not word.startswith("-"):
                kind = self.kinds.get(word)
                chosen = kind.filled() if kind else None
                return chosen.stray_option(list(rest)) if chosen and chosen.kinds else None
            flag = word.partition("=")[0]
            if not flag.startswith("--"):
                # "-qv" is "-q -v".
                flag = flag[:2]
            if flag not in takes_value:
                return self, word
            if takes_value[flag] and "=" not in word:
                next(rest, None)
        return None

    def unknown(
        self, words: Sequence[str], verbs_with: Callable[[str], List[str]], below: Iterable[str] = ()
    ) -> NoReturn:
        """Raises InputError for arguments that the verb doesn't take, with what the first may have meant.

        `below` are the options of the verbs that this parser chooses among.
        """
        option = words[0].partition("=")[0]
        if not option.startswith("-"):
            self.error(f"unexpected argument {words[0]!r}{self._as_task(words[0])}")
        elsewhere = verbs_with(option)
        if elsewhere:
            text = f"{self.prog} has no option {option}; {join(elsewhere)} {_HAVE[len(elsewhere) > 1]} it"
            self.error(f"{text}: write it after the verb" if self.kinds else text)
        own = (name for one in self.actions() for name in one.option_strings)
        known = {name.lstrip("-"): name for name in (*own, *below)}
        hint = did_you_mean(option.lstrip("-"), known, known.__getitem__)
        self.error(f"{self.prog} has no option {option}{hint}")

    def _as_task(self, word: str) -> str:
        takes_task = any("--task" in one.option_strings for one in self.actions())
        return f"; a task is given as --task {word!r}" if takes_task else ""

    def actions(self) -> List[argparse.Action]:
        """All arguments, in the order of the help."""
        return self.filled()._actions

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            if action.dest == "verb" and value in GONE:
                raise argparse.ArgumentError(action, f"there is no {value!r} since 2.0: {GONE[value]}")
            known = [str(one) for one in action.choices]
            hint = did_you_mean(str(value), known) or f" (choose from {', '.join(known)})"
            raise argparse.ArgumentError(action, f"there is no {value!r}{hint}")

    def add_kinds(self, dest: str, metavar: Optional[str] = None) -> Kinds:
        """What comes next on the command line is one of several words, each with arguments of its own."""
        return Kinds(self, dest, metavar)


class _Kind:
    """A word's parser, which is made when the word is chosen: to make them all takes long.

    argparse takes it for the parser.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._made: Optional[Parser] = None
        self.description: str = settings["description"]

    def filled(self) -> Parser:
        """The parser with its arguments."""
        if self._made is None:
            self._made = Parser(**self._settings)
        return self._made.filled()

    def parse_known_args(
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> Tuple[argparse.Namespace, Sequence[str]]:
        """Raises InputError."""
        return self.filled().parse_known_args(args, namespace)


class Kinds:
    """The words that one parser chooses among."""

    def __init__(self, parser: Parser, dest: str, metavar: Optional[str]) -> None:
        self._parser, self._metavar = parser, metavar
        # Where `prog` is left out, argparse formats a whole usage to find it.
        # Not required: who leaves the word out is told more than argparse would say.
        kind: Any = _Kind
        self._parsers: Any = parser.add_subparsers(
            dest=dest, metavar=metavar, required=False, prog=parser.prog, parser_class=kind
        )

    def add(self, name: str, summary: str, fill: Callable[[Parser], None], epilog: str = "") -> None:
        """The word `name`, whose parser gets its arguments from `fill`."""

        def with_common(parser: Parser) -> None:
            parser.set_defaults(parser=parser)
            fill(parser)
            # Last in the help, below those of the verb.
            add_common(parser)

        self._parser.kinds[name] = self._parsers.add_parser(
            name, help=summary, description=summary, fill=with_common, epilog=epilog
        )
        self._parsers.metavar = self._metavar or f"{{{','.join(self._parser.kinds)}}}"


def add_common(parser: Parser) -> None:
    """The options that may stand before or after the verb."""
    # Without a default of its own, an option left out after the verb doesn't undo one before it.
    options = parser.add_argument_group("common options")
    absent = argparse.SUPPRESS
    options.add_argument("--json", action="store_true", default=absent, help="print JSON, and only JSON")
    options.add_argument(
        "--api-key",
        metavar="KEY",
        default=absent,
        help="prefer ANTHROPIC_API_KEY, as others can read a command line",
    )
    options.add_argument(
        "--config",
        metavar="PATH",
        default=absent,
        help="claude.json, .claude folder or project to use (default: found by walking up)",
    )
    options.add_argument(
        "--model",
        metavar="MODEL",
        type=_model,
        default=absent,
        help="opus, sonnet, haiku, fable or a full model id",
    )
    options.add_argument(
        "-q", "--quiet", action="store_true", default=absent, help="show only errors on stderr"
    )
    options.add_argument("-v", "--verbose", action="store_true", default=absent, help="log to stderr")
    parser.values.update(config="files", model="models")


def _model(text: str) -> str:
    # Not above: few commands name a model.
    from ..agents.model_names import is_model_name

    if text.strip() and not is_model_name(text.strip()):
        raise ValueError(text)
    return text


# argparse names a type by it.
_model.__name__ = "model"

_HAVE = ("has", "have")


def join(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def did_you_mean(word: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """What to add to a message about `word`; "" where nothing known is like it."""
    from ..agents.names import nearest

    close = [shown(one) for one in nearest(word, known)]
    return f"; did you mean {' or '.join(close)}?" if close else ""
