"""Glob: finds files by their names."""

from __future__ import annotations

import os
from typing import Any, List, Mapping, Optional, Tuple

from ..conversation import ToolResult
from ..errors import FileAccessError
from ..storage.path_text import one_line
from .glob_patterns import GlobError, GlobList, literal_start
from .protocol import ToolError
from .threads import Stop, run_stoppable
from .tree_walk import Deadline, TreeWalk
from .workspace import Place, Workspace, failed

# How many names a result has.
MOST_NAMES = 100
_TOO_DEEP = "(Folders that lie very deep were left out.)"


class GlobTool:
    """Lists the files that match a pattern, sorted by their paths.

    >>> tool = GlobTool(Workspace("project"))
    >>> (await tool.run({"pattern": "**/*.py"})).content
    'src/a.py\\nsrc/b.py'
    """

    name = "Glob"
    description = (
        "Finds files by a pattern of their paths, such as **/*.js or src/**/*.{ts,tsx}. "
        "A pattern without a slash matches at any depth. Paths are sorted, and at most 100 are shown. "
        "Hidden and ignored files are found too, folders and links are not."
    )
    input_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "description": "The pattern of the paths"},
            "path": {
                "type": "string",
                "description": "The folder to search in; by default the working directory",
            },
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        return True

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises ToolError."""
        return await run_stoppable(lambda stop: self._glob(arguments, stop))

    async def close(self) -> None:
        """Does nothing: no folder stays open."""

    def _glob(self, arguments: Mapping[str, Any], stop: Stop) -> ToolResult:
        folder, pattern = _split(arguments["pattern"], arguments.get("path"))
        with self._workspace.at(folder) as start:
            expect_folder(self._workspace, start, folder)
            try:
                globs = GlobList.of([pattern])
            except GlobError as error:
                raise failed(str(error)) from error
            walk = TreeWalk(self._workspace, start, Deadline(stop), globs)
            found = [file.path for file in walk.files(_narrowed(start, pattern))]
            names = [shown_path(self._workspace, start, path) for path in found[:MOST_NAMES]]
        return ToolResult("\n".join([*_lines(names, len(found)), *([_TOO_DEEP] if walk.is_cut else [])]))


def expect_folder(workspace: Workspace, place: Place, name: str) -> None:
    """Raises ToolError unless `place` is a folder."""
    if place.reached.missing:
        raise ToolError(f"Directory does not exist: {one_line(name)}. {workspace.where()}")
    if not place.reached.is_folder:
        raise ToolError(f"Path is not a directory: {one_line(name)}")


def shown_path(workspace: Workspace, start: Place, path: str) -> str:
    """A path below the start of a search as the model sees it: relative where it can be, on one line."""
    return one_line(workspace.relative(os.path.join(start.path, path) if path else start.path))


def _lines(names: List[str], count: int) -> List[str]:
    if not names:
        return ["No files found"]
    if count <= len(names):
        return names
    left = count - len(names)
    return [
        *names,
        f"(Showing {len(names)} of {count} matching files; {left} more are not listed. "
        "Narrow the pattern or path to see the rest.)",
    ]


def _split(pattern: str, path: Optional[str]) -> Tuple[str, str]:
    """The folder to search in, and the pattern below it: of an absolute pattern, its literal beginning."""
    if not pattern.startswith("/"):
        return path or ".", pattern
    start = literal_start(pattern[1:])
    return "/" + "/".join(start), "/".join(pattern[1:].split("/")[len(start) :])


def _narrowed(start: Place, pattern: str) -> List[str]:
    """The folders that all matches lie in, one in the other; fewer where a link is on the way."""
    names = literal_start(pattern)
    if not names:
        return []
    try:
        reached = start.files.reach("/".join([*start.reached.parts, *names]))
    except FileAccessError:
        return []
    return names if not reached.missing and reached.parts == (*start.reached.parts, *names) else []
