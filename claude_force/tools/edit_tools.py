"""Edit and Write: change files of the workspace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Optional

from ..conversation import ToolResult
from .file_writes import ChangedError, OpenFile, open_for_writing, refuse_other_kinds
from .read_tool import MOST_WHOLE, similar_name
from .replacing import NoReplacementError, replace_in
from .text_files import decode_text
from .threads import run_in_thread
from .workspace import WRITE, FileVersion, OutsideDeniedError, Place, Workspace, failed

_CURRENT = " (file state is current in your context — no need to Read it back)"
_MODIFIED = (
    " (note: the file had been modified on disk since you last read it — the edit was applied to its current "
    "content; Read it again to see the other changes)"
)
_CHANGED = (
    "File has been modified since read, either by the user or by a linter. "
    "Read it again before attempting to write it."
)
_UNREAD = "File has not been read yet. Read it first before writing to it."
_NOT_UTF8 = "File is not valid UTF-8, and editing it would lose bytes. It is left as it was."
_FILE_PATH = {"type": "string", "description": "The file, absolute or relative to the working directory"}


class EditTool:
    """Replaces a string in a file.

    >>> tool = EditTool(Workspace("project", writable=True))
    >>> (await tool.run({"file_path": "a.txt", "old_string": "one", "new_string": "1"})).content
    'The file a.txt has been updated successfully.'
    """

    name = "Edit"
    description = (
        "Replaces old_string by new_string in a file. old_string must be in the file exactly once, with its "
        "spaces and line breaks, unless replace_all is true. Leave out the line numbers that Read shows. "
        "An empty old_string makes a new file, or fills an empty one."
    )
    input_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "file_path": _FILE_PATH,
            "old_string": {"type": "string", "description": "The text to replace"},
            "new_string": {"type": "string", "description": "The text to put in its place"},
            "replace_all": {"type": "boolean", "description": "Replaces all occurrences (default false)"},
        },
        "required": ["file_path", "old_string", "new_string"],
        "additionalProperties": False,
    }

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        return False

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises ToolError."""
        return await run_in_thread(lambda: self._edit(arguments))

    async def close(self) -> None:
        """Does nothing: no file stays open."""

    def _edit(self, arguments: Mapping[str, Any]) -> ToolResult:
        old, new = arguments["old_string"], arguments["new_string"]
        if old == new:
            raise failed("No changes to make: old_string and new_string are exactly the same.")
        with _place(self._workspace, arguments["file_path"], is_edit=True) as place:
            if place.reached.is_folder and not place.reached.missing:
                raise failed("Error calling tool (Edit): EISDIR: illegal operation on a directory, read")
            if place.reached.missing and old:
                raise failed(self._workspace.missing_file(similar_name(place)))
            with open_for_writing(place, self.name, reads=True) as file:
                replace_all = bool(arguments.get("replace_all"))
                note = self._put(place, file, old, new, replace_all)
        done = ". All occurrences were successfully replaced." if replace_all else " successfully."
        return ToolResult(f"The file {arguments['file_path']} has been updated{done}{note}")

    def _put(self, place: Place, file: OpenFile, old: str, new: str, replace_all: bool) -> str:
        """Writes the edited file. Returns what the model is told about its version."""
        before = file.data or b""
        version = self._workspace.versions.get(place.real)
        has_changed = self._workspace.has_changed(place.real, before)
        data = _edited(before, old, new, replace_all, has_changed)
        _write(file, data)
        is_whole = not old or (version is not None and version.is_whole and not has_changed)
        self._workspace.saw(place.real, data, is_whole)
        return _note(version, has_changed, is_whole)


class WriteTool:
    """Writes a whole file, and makes the folders that it needs.

    >>> tool = WriteTool(Workspace("project", writable=True))
    >>> (await tool.run({"file_path": "new/a.txt", "content": "one\\n"})).content
    'File created successfully at: new/a.txt (file state is current in your context — no need to Read it...'
    """

    name = "Write"
    description = (
        "Writes a file with the given content, in place of the content that it had. Makes missing folders. "
        "A file that has changed since it was read must be read again before. "
        "To change a part of a file use Edit."
    )
    input_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "file_path": _FILE_PATH,
            "content": {"type": "string", "description": "The whole content of the file"},
        },
        "required": ["file_path", "content"],
        "additionalProperties": False,
    }

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        return False

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises ToolError."""
        return await run_in_thread(lambda: self._write(arguments))

    async def close(self) -> None:
        """Does nothing: no file stays open."""

    def _write(self, arguments: Mapping[str, Any]) -> ToolResult:
        path = arguments["file_path"]
        with _place(self._workspace, path, is_edit=False) as place:
            if place.reached.is_folder and not place.reached.missing:
                how = "To create a file inside it, include the file name in file_path."
                raise failed(f"{place.path} is a directory, not a file. {how}")
            reads = place.real in self._workspace.versions
            with open_for_writing(place, self.name, reads) as file:
                before = file.data
                if before is not None and reads and self._workspace.has_changed(place.real, before):
                    raise failed(_CHANGED)
                data = arguments["content"].encode("utf-8")
                _write(file, data)
            self._workspace.saw(place.real, data, is_whole=True)
        done = (
            f"The file {path} has been updated successfully."
            if before
            else f"File created successfully at: {path}"
        )
        return ToolResult(done + _CURRENT)


@contextmanager
def _place(workspace: Workspace, path: str, is_edit: bool) -> Iterator[Place]:
    """Where a file that is to be written lies. Raises ToolError."""
    try:
        with workspace.at(path, WRITE) as place:
            refuse_other_kinds(place, "Edit" if is_edit else "Write")
            yield place
    except OutsideDeniedError as error:
        # The command looks at what was read first, and only then at where a file lies.
        if workspace.writable and (is_edit or error.is_link):
            raise failed(_UNREAD) from error
        raise


def _edited(before: bytes, old: str, new: str, replace_all: bool, has_changed: bool) -> bytes:
    decoded = decode_text(before)
    if not decoded.is_valid:
        raise failed(_NOT_UTF8)
    if not old:
        if decoded.text.strip():
            raise failed("Cannot create new file - file already exists.")
        return decoded.encode(new)
    try:
        return decoded.encode(replace_in(decoded.text, old, new, replace_all, MOST_WHOLE))
    except NoReplacementError as error:
        raise failed(_CHANGED if has_changed else str(error)) from error


def _write(file: OpenFile, data: bytes) -> None:
    try:
        file.write(data)
    except ChangedError as error:
        raise failed(_CHANGED) from error


def _note(version: Optional[FileVersion], has_changed: bool, is_whole: bool) -> str:
    if has_changed:
        return _MODIFIED
    return _CURRENT if is_whole else ""
