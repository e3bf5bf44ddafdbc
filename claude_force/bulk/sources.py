"""The rows of a run over source files: one for each file that a pattern or a name matches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Sequence

from ..errors import FileAccessError, InputError
from ..storage.file_walk import FileWalk, Match, has_magic, split_pattern
from ..storage.input_paths import InputPath, InputPaths
from ..storage.path_text import printable
from ..storage.project_files import ProjectFiles
from .task_file import TaskRow

# In bytes. A smaller file may still be too long for a task.
_LARGEST = 16 * 1024 * 1024
_MAX_NOTICES, _MAX_NOTICES_IN_ERROR = 10, 3
_NO_MATCH = "matches no file."
_UNREADABLE = "a file that can't be read"


class _Source(NamedTuple):
    """A file by its label, and the root that its links may not leave."""

    label: str
    root: Path
    match: Match


class SourceFiles:
    """Iterates over a row for each file that `patterns` name or match, sorted by name.

    An argument that names an existing file is that file, even if it has characters of a pattern, such as
    `app/[id]/page.tsx`. The task is `instruction`, followed by the file's path and text. A file that can't be
    read, such as a link out of the project or a FIFO, is a row with that problem. `output` is never a row.
    Raises InputError where nothing matches.

    Attributes:
        notices: texts on arguments that match nothing, files that can't be read, and links not followed.

    Example:
        for row in SourceFiles(["src/**/*.py"], "code-reviewer", "Find bugs."):
            print(row.fields["file"], row.problem)
    """

    def __init__(
        self, patterns: Sequence[str], agent: str, instruction: str = "", output: Optional[Path] = None
    ) -> None:
        self._agent, self._instruction = agent, instruction
        found = _Search(output)
        for pattern in patterns:
            found.add(pattern)
        self._sources = [found.sources[label] for label in sorted(found.sources)]
        self.notices = tuple(found.notices())
        if not self._sources:
            raise InputError(" ".join((f"No file matches {_listed(patterns)}.", *found.notices(of_all=True))))

    def __iter__(self) -> Iterator[TaskRow]:
        for index, source in enumerate(self._sources):
            # On one line for the model too, whatever bytes the name has.
            name = printable(source.label)
            fields = {"file": name}
            try:
                text = _text(source)
            except FileAccessError as error:
                yield TaskRow(index, self._agent, "", fields, problem=str(error), kind=_UNREADABLE)
            else:
                task = f'<file path="{name}">\n{text}\n</file>'
                if self._instruction:
                    task = f"{self._instruction}\n\n{task}"
                yield TaskRow(index, self._agent, task, fields)


class _Search:
    """Collects the sources of one argument after another."""

    def __init__(self, output: Optional[Path]) -> None:
        self.sources: Dict[str, _Source] = {}
        self._output = output.resolve() if output is not None else None
        self._paths = InputPaths()
        self._empty: Dict[str, str] = {}
        self._skipped: Dict[str, FileAccessError] = {}

    def add(self, pattern: str) -> None:
        """Raises FileAccessError where the folder of a pattern can't be used."""
        if not self._named(pattern) and not (has_magic(pattern) and self._matched(pattern)):
            self._empty[pattern] = _why_empty(pattern)

    def notices(self, of_all: bool = False) -> Iterator[str]:
        """Yields what was not found or skipped: the first ones, and how many more there are.

        With `of_all`, where nothing was found, only those that say more than that.
        """
        texts = [
            f"{printable(one)} {why}" for one, why in self._empty.items() if not of_all or why != _NO_MATCH
        ]
        texts += [str(one.match.problem) for one in self.sources.values() if one.match.problem is not None]
        texts += [f"Skipped: {error}" for label, error in self._skipped.items() if label not in self.sources]
        most = _MAX_NOTICES_IN_ERROR if of_all else _MAX_NOTICES
        yield from texts[:most]
        if len(texts) > most:
            yield f"... and {len(texts) - most:,} more like these."

    def _named(self, path: str) -> bool:
        """Adds the file that the argument names; returns whether there is one."""
        try:
            found = self._paths.file(path)
            with ProjectFiles(found.root) as files:
                match = FileWalk(files).match(found.spot)
        except FileAccessError:
            return False
        # A pattern may not be a valid path, such as one with too long a name.
        if match is None or (match.place is None and has_magic(path) and not _is_outside(match)):
            return False
        self._take(found.root, match)
        return True

    def _matched(self, pattern: str) -> bool:
        """Adds the files that match; returns whether there are any."""
        folder, rest = split_pattern(pattern)
        start: InputPath = self._paths.folder(folder)
        with ProjectFiles(start.root) as files:
            walk = FileWalk(files)
            matches = list(walk.matches(start.spot, rest))
        for match in matches:
            self._take(start.root, match)
        self._skipped.update((spot.label, error) for spot, error in walk.skipped.items())
        return bool(matches)

    def _take(self, root: Path, match: Match) -> None:
        is_output = match.place is not None and root.joinpath(*match.place.parts) == self._output
        if not is_output:
            self.sources.setdefault(match.spot.label, _Source(match.spot.label, root, match))


def _why_empty(pattern: str) -> str:
    if not has_magic(pattern) and os.path.isdir(pattern):  # noqa: PTH112
        return "is a folder: name its files with a pattern in quotes, such as 'FOLDER/**/*.py'."
    return _NO_MATCH


def _text(source: _Source) -> str:
    """Raises FileAccessError."""
    if source.match.problem is not None:
        raise source.match.problem
    spot = source.match.spot
    with ProjectFiles(source.root) as files:
        data = files.read(spot.name, _LARGEST, spot.label)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = "can't be read: it is not UTF-8"
        raise FileAccessError(printable(source.label), what, "Convert it to UTF-8.") from error


def _is_outside(match: Match) -> bool:
    return match.problem is not None and match.problem.is_outside


def _listed(patterns: Sequence[str]) -> str:
    names = ", ".join(map(printable, patterns[:_MAX_NOTICES]))
    return names if len(patterns) <= _MAX_NOTICES else f"{names}, ..."
