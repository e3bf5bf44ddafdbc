"""Splits a command line of bash into the simple commands that it runs. Pure; linear in the length.

A rule for commands is only as good as its view of what bash would run, so this parser understands less than
bash and refuses the rest: what it can't parse is an error, never a guess. It knows lists (`;`, `&`, `&&`,
`||`, `|`, newlines), groups and subshells, `if`, `while` and `until`, quotes, expansions, substitutions,
redirections, here-documents and comments. It refuses functions, `case`, arrays and arithmetic commands.

Source of the rules: the manual of bash, chapters "Shell Syntax" and "Shell Expansions".
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, NoReturn, Tuple

from ..lazy_pattern import pattern

MOST_CHARACTERS = 20_000
_DEEPEST = 20
# A command counts as several words. More than these take over 20 ms.
_MOST_STEPS, _OF_COMMAND = 4_000, 6
# Words that may stand before a command without being one.
_OPENERS = frozenset(
    ("!", "time", "if", "then", "elif", "else", "while", "until", "do", "{", "fi", "done", "}")
)
_REFUSED = frozenset(("case", "esac", "function", "coproc", "select"))
_ASSIGNMENT = pattern(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_NAME = pattern(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
# Operators of parameters that neither assign (`=`) nor run their value (`@P`).
_PARAMETER = pattern(
    r"\$\{[#!]?(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-])(?:\[[\w@*$]*\])?"
    r"(?:(?::?[-+?]|:|##?|%%?|//?|\^\^?|,,?)[^}`'\"\\$({=]*)?\}"
)
# Without quotes, subscripts and substitutions.
_ARITHMETIC = pattern(r"[\w\s+\-*/%<>=!&|^~?:,$]+|[()]")
_REDIRECTION = pattern(r"&>>|&>|<<<|<<-|<<|<>|<&|>>|>&|>\||<|>")
# Where bash takes a backslash and a newline out, what stands around them may become an operator.
_SPLIT = "it has a word that is split over two lines"
_META = " \t\n;&|<>()"


class ShellSyntaxError(ValueError):
    """The command line has something that is not understood here, or that bash would not accept."""


class Word(NamedTuple):
    """One word of a command.

    Attributes:
        raw: as it is written.
        value: without quotes.
        is_literal: whether bash uses `value` as it stands: no expansion, no pattern for file names.
    """

    raw: str
    value: str
    is_literal: bool


class SimpleCommand(NamedTuple):
    """One command with its arguments.

    Attributes:
        words: name and arguments; empty for a redirection or an assignment alone.
        assignments: `NAME=value` before the name.
        outputs: files that its redirections write.
        is_nested: whether it runs within `$(...)`, backticks or a process substitution.
        is_background: whether it ends what `&` runs in the background, outside of parentheses and braces.
        is_negated: whether `!` stands before it.
    """

    words: Tuple[Word, ...]
    assignments: Tuple[Word, ...] = ()
    outputs: Tuple[Word, ...] = ()
    is_nested: bool = False
    is_background: bool = False
    is_negated: bool = False


def split_commands(text: str) -> List[SimpleCommand]:
    """Returns all simple commands of a command line. Raises ShellSyntaxError.

    >>> [one.words[0].value for one in split_commands("git diff | head -5; echo $(date)")]
    ['git', 'head', 'date', 'echo']
    """
    if len(text) > MOST_CHARACTERS:
        raise ShellSyntaxError(f"it is longer than {MOST_CHARACTERS:,} characters")
    if "\0" in text:
        raise ShellSyntaxError("it has a NUL character")
    return _Parser(text, 0).run()


class _Command:
    """The parts of a command that is being read."""

    def __init__(self) -> None:
        self.words: List[Word] = []
        self.assignments: List[Word] = []
        self.outputs: List[Word] = []
        self.has_redirection = False
        self.is_negated = False
        # A subshell, or the end of a compound command: only redirections may follow.
        self.is_closed = False

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.assignments)

    @property
    def takes_keyword(self) -> bool:
        """Whether `if` and the like would be keywords now, not the name of a command."""
        return not (self.words or self.assignments or self.has_redirection)


class _WordReader:
    """The text of a word that is being read."""

    def __init__(self) -> None:
        self.value: List[str] = []
        self.is_literal = True
        self.has_quotes = False

    def quoted(self, text: str) -> None:
        self.value.append(text)
        self.has_quotes = True

    def expanded(self, text: str) -> None:
        self.value.append(text)
        self.is_literal = False


class _Parser:
    """Reads one text, from left to right."""

    def __init__(self, text: str, depth: int) -> None:
        self._text, self._place = text, 0
        # Of all parentheses around this place, and of those whose output another command takes.
        self._depth = self._substitutions = depth
        # Of all braces around this place.
        self._braces = 0
        self._found: List[SimpleCommand] = []
        # Delimiters of here-documents that begin after the next newline: the word, and whether tabs are cut.
        self._documents: List[Tuple[Word, bool]] = []
        self._steps = 0

    def run(self) -> List[SimpleCommand]:
        self._list("")
        return self._found

    def _list(self, end: str) -> None:
        """Reads commands up to `end`, which is ")" or "" for the end of the text."""
        while True:
            if self._place >= len(self._text):
                if end or self._documents:
                    self._refuse("it ends before it is complete")
                return
            letter = self._text[self._place]
            if letter == ")":
                if not end:
                    self._refuse("it has a ) without a (")
                self._place += 1
                return
            if letter == "\n":
                self._newline()
            elif letter in ";|" or (letter == "&" and not self._at("&>")):
                self._separator(letter)
            else:
                self._command()

    def _separator(self, letter: str) -> None:
        is_outermost = not self._depth and not self._braces
        if letter == "&" and not self._at("&&") and is_outermost and self._found:
            self._found[-1] = self._found[-1]._replace(is_background=True)
        if self._at(";;") or self._at(";&") or self._at(";|"):
            self._refuse("it has a case")
        self._place += 2 if self._at(letter * 2) or self._at("|&") else 1

    def _command(self) -> None:
        command = _Command()
        while self._place < len(self._text):
            letter = self._text[self._place]
            if letter in " \t":
                self._place += 1
            elif self._at("\\\n"):
                self._place += 2
            elif letter in "\n;|)" or (letter == "&" and not self._at("&>")):
                break
            elif letter == "#":
                self._comment()
            elif letter == "(":
                self._subshell(command)
            elif letter in "<>&" and not self._at("<(") and not self._at(">("):
                self._redirection(command)
            else:
                self._add(command, self._word())
        if not command.is_empty or command.outputs:
            parts = tuple(command.words), tuple(command.assignments), tuple(command.outputs)
            is_nested, is_negated = self._substitutions > 0, command.is_negated
            self._spend(_OF_COMMAND)
            self._found.append(SimpleCommand(*parts, is_nested=is_nested, is_negated=is_negated))

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MOST_STEPS:
            self._refuse("it has too many commands or words")

    def _add(self, command: _Command, word: Word) -> None:
        self._spend(1)
        if word.raw.isdigit() and self._text[self._place : self._place + 1] in ("<", ">"):
            return  # The number of a descriptor.
        if not command.words:
            if _ASSIGNMENT.match(word.raw):
                command.assignments.append(word)
                return
            if command.takes_keyword and word.raw in _OPENERS:
                self._braces += (word.raw == "{") - (word.raw == "}")
                command.is_negated ^= word.raw == "!"
                return
            if word.raw in _REFUSED:
                self._refuse(f"it has a {word.raw}")
            if command.takes_keyword and word.raw == "[[":
                self._condition(command)
                return
        if command.is_closed:
            self._refuse("words follow a subshell")
        command.words.append(word)

    def _condition(self, command: _Command) -> None:
        """Reads `[[ ... ]]`, where `<`, `>`, `&&`, `||` and parentheses are not operators of the shell."""
        command.words.append(Word("[[", "[[", True))
        while True:
            self._skip_blanks()
            letter = self._text[self._place : self._place + 1]
            if letter and letter in "<>&|()" and not self._at("<(") and not self._at(">("):
                self._place += 1
                continue
            if letter in "\n;":  # At the end of the text, it is "".
                self._refuse("it has a [[ without a ]]")
            word = self._word()
            command.words.append(word)
            if word.raw == "]]":
                command.is_closed = True
                return

    def _subshell(self, command: _Command) -> None:
        if not command.is_empty or command.is_closed:
            self._refuse("it has a function or an array")
        if self._at("(("):
            self._refuse("it has an arithmetic command")
        self._place += 1
        self._deeper()
        self._list(")")
        self._depth -= 1
        command.is_closed = True

    def _redirection(self, command: _Command) -> None:
        match = _REDIRECTION.match(self._text, self._place)
        if match is None:
            self._refuse("it has a redirection that is not understood")
        operator, command.has_redirection = match.group(), True
        self._place = match.end()
        self._skip_blanks()
        word = self._word()
        if operator in ("<<", "<<-"):
            if "$" in word.raw or "`" in word.raw:
                self._refuse("it has a here-document that is not understood")
            self._documents.append((word, operator == "<<-"))
        elif operator in (">&", "<&") and re.fullmatch(r"[0-9]+-?|-", word.raw):
            return
        elif operator not in ("<", "<<<"):
            command.outputs.append(word)

    def _newline(self) -> None:
        self._place += 1
        documents, self._documents = self._documents, []
        for delimiter, cuts_tabs in documents:
            self._document(delimiter, cuts_tabs)

    def _document(self, delimiter: Word, cuts_tabs: bool) -> None:
        begin = self._place
        while self._place < len(self._text):
            end = self._text.find("\n", self._place)
            end = len(self._text) if end < 0 else end
            line = self._text[self._place : end]
            if (line.lstrip("\t") if cuts_tabs else line) == delimiter.value:
                if delimiter.raw == delimiter.value:
                    self._check_document(self._text[begin : self._place])
                self._place = end
                return
            self._place = end + 1
        self._refuse("it has a here-document without an end")

    def _check_document(self, body: str) -> None:
        """Refuses a document whose expansions run something."""
        if "`" in body or "$(" in body or "$[" in body or "${" in _PARAMETER.sub("", body):
            self._refuse("it has a here-document with a substitution")
        if "\\\n" in body:
            self._refuse(_SPLIT)

    def _word(self) -> Word:
        begin, reader = self._place, _WordReader()
        while self._place < len(self._text):
            letter = self._text[self._place]
            if self._at("<(") or self._at(">("):
                if self._place > begin:
                    break
                self._place += 2
                self._nested(")")
                reader.expanded("")
            elif letter in _META:
                if letter == "(":
                    self._refuse("it has a function, an array or an extended pattern")
                break
            else:
                self._piece(reader, letter)
        raw = self._text[begin : self._place]
        if not raw:
            self._refuse("a word is missing")
        return Word(raw, "".join(reader.value), reader.is_literal)

    def _piece(self, reader: _WordReader, letter: str) -> None:
        """Reads a character, or what it begins."""
        if letter == "\\":
            following = self._text[self._place + 1 : self._place + 2]
            if not following:
                self._refuse("it ends with a backslash")
            if following == "\n":
                self._refuse(_SPLIT)
            self._place += 2
            reader.quoted(following)
        elif letter == "'":
            self._single_quotes(reader)
        elif letter == '"':
            self._place += 1
            self._double_quotes(reader)
        elif letter in "$`":
            self._expansion(reader, quoted=False)
        else:
            if letter in "*?[{" or (letter == "~" and not reader.value):
                reader.is_literal = False
            reader.value.append(letter)
            self._place += 1

    def _single_quotes(self, reader: _WordReader) -> None:
        end = self._text.find("'", self._place + 1)
        if end < 0:
            self._refuse("a quote is not closed")
        reader.quoted(self._text[self._place + 1 : end])
        self._place = end + 1

    def _double_quotes(self, reader: _WordReader) -> None:
        while self._place < len(self._text):
            letter = self._text[self._place]
            if letter == '"':
                self._place += 1
                reader.quoted("")
                return
            if letter == "\\":
                following = self._text[self._place + 1 : self._place + 2]
                if following == "\n":
                    self._refuse(_SPLIT)
                self._place += 2
                reader.quoted(following if following in '"\\$`' else f"\\{following}")
            elif letter in "$`":
                self._expansion(reader, quoted=True)
            else:
                reader.quoted(letter)
                self._place += 1
        self._refuse("a quote is not closed")

    def _expansion(self, reader: _WordReader, quoted: bool) -> None:
        self._spend(1)
        begin = self._place
        if self._at("`"):
            self._backticks()
        elif self._at("$(("):
            self._arithmetic()
        elif self._at("$("):
            self._place += 2
            self._nested(")")
        elif self._at("${"):
            match = _PARAMETER.match(self._text, begin)
            if match is None:
                self._refuse("it has an expansion that is not understood")
            self._place = match.end()
        elif not quoted and self._at("$'"):
            self._escaped_quotes()
        elif not quoted and self._at('$"'):
            self._place += 1
        else:
            match = _NAME.match(self._text, begin + 1)
            self._place = match.end() if match else begin + 1
            if match is None and self._at("["):
                self._refuse("it has an arithmetic expansion of an old kind")
        reader.expanded(self._text[begin : self._place])

    def _nested(self, end: str) -> None:
        """Reads the commands of a substitution, up to `end`."""
        if self._documents:
            self._refuse("a substitution follows a here-document")
        self._deeper()
        self._substitutions += 1
        self._list(end)
        if self._documents:
            self._refuse("it has a here-document without an end")
        self._substitutions -= 1
        self._depth -= 1

    def _backticks(self) -> None:
        end = self._place + 1
        while end < len(self._text) and self._text[end] != "`":
            end += 2 if self._text[end] == "\\" else 1
        if end >= len(self._text):
            self._refuse("a backtick is not closed")
        inner = self._text[self._place + 1 : end]
        if "\\" in inner or '"' in inner:
            # Their meaning differs within double quotes.
            self._refuse("it has quotes or backslashes in backticks")
        self._deeper()
        self._found += _Parser(inner, self._depth).run()
        self._depth -= 1
        self._place = end + 1

    def _arithmetic(self) -> None:
        self._place += 3
        depth = 0
        while depth or not self._at("))"):
            match = _ARITHMETIC.match(self._text, self._place)
            if match is None or "$(" in self._text[self._place : match.end() + 1]:
                self._refuse("it has an arithmetic expansion that is not understood")
            depth += (match.group() == "(") - (match.group() == ")")
            if depth < 0:
                self._refuse("it has an arithmetic expansion that is not understood")
            self._place = match.end()
        self._place += 2

    def _escaped_quotes(self) -> None:
        end = self._place + 2
        while end < len(self._text) and self._text[end] != "'":
            end += 2 if self._text[end] == "\\" else 1
        if end >= len(self._text):
            self._refuse("a quote is not closed")
        self._place = end + 1

    def _comment(self) -> None:
        end = self._text.find("\n", self._place)
        self._place = len(self._text) if end < 0 else end

    def _skip_blanks(self) -> None:
        while self._at(" ") or self._at("\t"):
            self._place += 1

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse("its commands are nested too deeply")

    def _at(self, text: str) -> bool:
        return self._text.startswith(text, self._place)

    def _refuse(self, reason: str) -> NoReturn:
        raise ShellSyntaxError(reason)
