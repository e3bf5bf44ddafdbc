"""Grep: finds lines in files by a regular expression."""

from __future__ import annotations

from itertools import islice
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from ..conversation import ToolResult
from ..formatting import pluralize
from ..storage.path_text import one_line
from .file_types import globs_of_type
from .glob_patterns import GlobError, GlobList
from .glob_tool import shown_path
from .grep_engines import ENGINES, Engine, Query, make_engine
from .grep_files import FileMatches, find_matches, whole_tree
from .pattern_worker import Lines
from .protocol import ToolError
from .regex_syntax import PatternError
from .text_files import line_start
from .threads import Stop, run_stoppable
from .tree_walk import Deadline
from .workspace import Place, Workspace

DEFAULT_LIMIT = 250
# What `head_limit: 0` means: more than a model can read.
MOST_LINES = 20_000
# What `offset` may be at most.
MOST_SKIPPED = 100_000
# Longer lines are left out of a result, as ripgrep does with `--max-columns 500`.
MOST_COLUMNS = 500
_REJECTED = "Search failed — ripgrep rejected the pattern, glob, or file type without searching:\n"
_NUMBER = {"type": "integer"}


class _Page(NamedTuple):
    """Which lines of a result are shown."""

    offset: int
    limit: int

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> _Page:
        limit = arguments.get("head_limit", DEFAULT_LIMIT)
        limit = MOST_LINES if limit is None or limit <= 0 else limit
        offset = max(0, arguments.get("offset") or 0)
        return cls(min(offset, MOST_SKIPPED), min(limit, MOST_LINES))

    @property
    def needed(self) -> int:
        """How many lines tell what is shown, and whether there are more."""
        return self.offset + self.limit + 1

    def cut(self, lines: Sequence[str]) -> Tuple[List[str], str]:
        """The lines of the page, and what is said about it; "" where it is all of them."""
        told = [f"limit: {self.limit}"] * (len(lines) - self.offset > self.limit)
        told += [f"offset: {self.offset}"] * (self.offset > 0)
        return list(lines[self.offset : self.offset + self.limit]), ", ".join(told)


class GrepTool:
    """Finds files, lines or counts of lines that match a regular expression.

    >>> tool = GrepTool(Workspace("project"))
    >>> (await tool.run({"pattern": "def \\\\w+", "output_mode": "content"})).content
    'src/a.py:3:def alpha():'
    """

    name = "Grep"
    description = (
        "Searches the contents of files for a regular expression, in the syntax of ripgrep: no look-around, "
        r"and literal braces are escaped (interface\{\}). "
        'output_mode is "files_with_matches" (the default: paths), "content" (matching lines) or "count". '
        "Paths are sorted. Hidden files are searched; what .gitignore names is not, unless path leads to it. "
        "At most 250 lines are shown; head_limit and offset choose others. "
        "multiline lets a match span lines, and . match line breaks."
    )
    input_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "description": "The regular expression"},
            "path": {
                "type": "string",
                "description": "The file or folder to search; by default the working directory",
            },
            "glob": {
                "type": "string",
                "description": "Only files whose paths match, such as *.js or *.{ts,tsx}",
            },
            "type": {"type": "string", "description": "Only files of a type, such as js, py, rust or go"},
            "output_mode": {"type": "string", "enum": ["content", "files_with_matches", "count"]},
            "-i": {"type": "boolean", "description": "Ignores case"},
            "-n": {"type": "boolean", "description": "Shows line numbers in content (default true)"},
            "-o": {
                "type": "boolean",
                "description": "Shows only the matching parts of lines in content; not with multiline",
            },
            "-A": {**_NUMBER, "description": "How many lines after each match content shows"},
            "-B": {**_NUMBER, "description": "How many lines before each match content shows"},
            "-C": {**_NUMBER, "description": "How many lines before and after each match content shows"},
            "context": {**_NUMBER, "description": "The same as -C"},
            "head_limit": {**_NUMBER, "description": "How many lines of the result are shown; 0: all"},
            "offset": {**_NUMBER, "description": "How many lines of the result are skipped"},
            "multiline": {"type": "boolean", "description": "Lets a match span lines (default false)"},
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }

    def __init__(self, workspace: Workspace, engines: Sequence[Type[Engine]] = ENGINES) -> None:
        """`engines`: what may search, the best first."""
        self._workspace, self._engines = workspace, engines

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        return True

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises ToolError."""
        return await run_stoppable(lambda stop: self._grep(arguments, stop))

    async def close(self) -> None:
        """Does nothing: a search ends with its call."""

    def _grep(self, arguments: Mapping[str, Any], stop: Stop) -> ToolResult:
        path, deadline = arguments.get("path") or ".", Deadline(stop)
        with self._workspace.at(path) as start:
            if start.reached.missing:
                raise ToolError(f"Path does not exist: {one_line(path)}. {self._workspace.where()}")
            try:
                query = Query(
                    arguments["pattern"], bool(arguments.get("-i")), bool(arguments.get("multiline"))
                )
                engine = make_engine(query, deadline, self._engines)
                found = self._found(arguments, start, engine, deadline)
                page, layout = _Page.of(arguments), _Layout.of(arguments, start)
                if arguments.get("-o") and _mode(arguments) == "content" and not query.spans_lines:
                    return ToolResult(_show_parts(found, page, layout, engine))
                return ToolResult(_SHOWN[_mode(arguments)](found, page, layout))
            except (PatternError, GlobError) as error:
                raise ToolError(_REJECTED + str(error)) from error

    def _found(
        self, arguments: Mapping[str, Any], start: Place, engine: Engine, deadline: Deadline
    ) -> Iterator[FileMatches]:
        """The files that match, with their paths as they are shown."""
        globs = _globs(arguments.get("glob"))
        types = globs_of_type(arguments["type"]) if arguments.get("type") else None
        if arguments.get("type") and types is None:
            raise GlobError(f"rg: unrecognized file type: {arguments['type']}")
        files = whole_tree(self._workspace, start, deadline, globs, types)
        most = {"files_with_matches": 1, "content": _Page.of(arguments).needed}.get(_mode(arguments))
        for found in find_matches(start.files.folders, files, engine, deadline, most):
            yield found._replace(path=shown_path(self._workspace, start, found.path))


def _mode(arguments: Mapping[str, Any]) -> str:
    return arguments.get("output_mode") or "files_with_matches"


def _globs(text: Optional[str]) -> Optional[GlobList]:
    """The patterns of the argument `glob`, separated by spaces, or by commas outside of braces."""
    patterns: List[str] = []
    for one in (text or "").split():
        patterns += [one] if "{" in one and "}" in one else [part for part in one.split(",") if part]
    try:
        return GlobList.of(patterns) if patterns else None
    except GlobError as error:
        raise GlobError(f"rg: {error}") from error


def _show_files(found: Iterator[FileMatches], page: _Page, layout: _Layout) -> str:
    shown, told = page.cut([one.path for one in islice(found, page.needed)])
    if not shown:
        return "No files found"
    return "\n".join([f"Found {pluralize(len(shown), 'file')}{' ' * bool(told)}{told}", *shown])


def _show_counts(found: Iterator[FileMatches], page: _Page, layout: _Layout) -> str:
    counts = [(one.path, len(one.lines)) for one in found]
    shown, told = page.cut([f"{path}:{count}" for path, count in counts])
    total = pluralize(sum(count for _, count in counts), "total occurrence")
    where = f"across {pluralize(len(counts), 'file')}."
    pages = f" with pagination = {told}" if told else ""
    return "\n".join([*(shown or ["No matches found"]), "", f"Found {total} {where}{pages}"])


def _show_content(found: Iterator[FileMatches], page: _Page, layout: _Layout) -> str:
    lines: List[str] = []
    for one in found:
        if lines and layout.has_context:
            lines.append("--")
        lines.extend(layout.lines(one, page.needed - len(lines)))
        if len(lines) >= page.needed:
            break
    return _content(lines, page)


def _show_parts(found: Iterator[FileMatches], page: _Page, layout: _Layout, engine: Engine) -> str:
    rows: List[Tuple[str, int, bytes]] = []
    for one in found:
        numbers = [number for number, _ in one.lines]
        rows += [(one.path, *row) for row in zip(numbers, _lines_of(one.text, numbers))]
        if len(rows) >= page.needed:
            break
    parts = engine.parts([text for _, _, text in rows])
    lines = [layout.line(*row[:2], True, part) for row, several in zip(rows, parts) for part in several]
    return _content(lines, page)


def _lines_of(text: bytes, numbers: Iterable[int]) -> Iterator[bytes]:
    """The lines of these numbers, which ascend; without a list of all lines, which takes a lot of memory."""
    place = at = 0
    for number in numbers:
        place, at = max(place, line_start(text, place, number - at)), number
        end = text.find(b"\n", place)
        yield text[place : len(text) if end < 0 else end]


def _content(lines: Sequence[str], page: _Page) -> str:
    shown, told = page.cut(lines)
    if not shown:
        return "No matches found"
    pages = ["", f"[Showing results with pagination = {told}]"] if told else []
    return "\n".join([*shown, *pages])


class _Layout(NamedTuple):
    """How the lines of a file are shown."""

    before: int
    after: int
    has_numbers: bool
    has_paths: bool

    @classmethod
    def of(cls, arguments: Mapping[str, Any], start: Place) -> _Layout:
        around = arguments.get("context", arguments.get("-C"))
        before, after = (around, around) if around is not None else (arguments.get("-B"), arguments.get("-A"))
        has_numbers = arguments.get("-n", True) is not False
        return cls(max(0, before or 0), max(0, after or 0), has_numbers, start.reached.is_folder)

    @property
    def has_context(self) -> bool:
        return bool(self.before or self.after)

    def lines(self, found: FileMatches, most: int) -> Iterator[str]:
        """The lines of one file, at most `most`."""
        text, last = found.text, -1
        count = text.count(b"\n") + (not text.endswith(b"\n"))
        # As many at most, so that a large text has its lines looked up once.
        chosen = list(islice(self._chosen(found.lines, count), max(0, most)))
        for (number, is_match), line in zip(chosen, _lines_of(text, [number for number, _ in chosen])):
            if most <= 0:
                return
            if self.has_context and last >= 0 and number > last + 1:
                yield "--"
            yield self.line(found.path, number, is_match, line)
            most, last = most - 1, number

    def _chosen(self, lines: Lines, count: int) -> Iterator[Tuple[int, bool]]:
        """The numbers of the lines that are shown, in order, and whether each of them matches."""
        place = 0
        for (first, last), (following, _) in zip(lines, (*lines[1:], (count, count))):
            for number in range(max(place, first - self.before), min(count, last + 1)):
                yield number, number >= first
                place = number + 1
            for number in range(place, min(count, last + self.after + 1, following)):
                yield number, False
                place = number + 1

    def line(self, path: str, number: int, is_match: bool, text: bytes) -> str:
        """One line as it is shown; `number` counts from 0."""
        mark = ":" if is_match else "-"
        start = f"{path}{mark}" if self.has_paths else ""
        start += f"{number + 1}{mark}" if self.has_numbers else ""
        if len(text) > MOST_COLUMNS:
            return f"{start}[Omitted long {'matching' if is_match else 'context'} line]"
        shown = text[:-1] if text.endswith(b"\r") else text
        return start + shown.decode("utf-8", "replace")


_SHOWN = {"files_with_matches": _show_files, "count": _show_counts, "content": _show_content}
