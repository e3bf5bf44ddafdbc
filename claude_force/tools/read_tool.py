"""Read: shows a file to the model."""

from __future__ import annotations

import os
import stat
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Union

from ..conversation import ToolResult
from ..errors import FileAccessError
from ..formatting import format_bytes
from ..storage.folders import ReplacedError
from ..storage.path_text import one_line
from ..storage.private_files import kind_of
from ..storage.regular_files import checked_descriptor, read_all, unreadable
from .media import MediaError, media_block, media_type_of, most_bytes
from .notebooks import notebook_blocks
from .protocol import ToolError
from .text_files import DecodedText, decode_text, is_binary, line_start
from .threads import run_in_thread
from .workspace import Place, Workspace, failed, replaced

# What one call may show, unless `allow_large` is given.
MOST_SHOWN = 256 * 1024
MOST_LARGE = 4 * 1024 * 1024
# A file up to this size is read whole, and its version noted; of a larger one only lines are looked for.
MOST_WHOLE = 16 * 1024 * 1024
# How far lines of a larger file are looked for.
MOST_SCANNED = 256 * 1024 * 1024
_CHUNK = 1024 * 1024
_NOT_UTF8 = "\n\n[This file is not valid UTF-8: each byte that can't be decoded is shown as U+FFFD.]"
_NARROW = (
    "Use offset and limit parameters to read specific portions of the file, or search for specific content "
    "instead of reading the whole file."
)


class _Part(NamedTuple):
    """The lines that a call asks for. `offset` counts from 1; 0 shows the first lines, numbered from 0."""

    offset: int
    limit: Optional[int]
    is_whole: bool

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> _Part:
        offset, limit = arguments.get("offset"), arguments.get("limit")
        limit = int(limit) if limit and limit > 0 else None
        offset = 1 if offset is None or offset < 0 else int(offset)
        return cls(offset, limit, offset <= 1 and limit is None)

    @property
    def skipped(self) -> int:
        """How many lines come before."""
        return max(self.offset - 1, 0)


class ReadTool:
    """Reads text with line numbers, images and PDFs as blocks, notebooks as cells.

    >>> tool = ReadTool(Workspace("project"))
    >>> (await tool.run({"file_path": "a.txt"})).content
    '1\\tone\\n2\\ttwo\\n3\\t'
    """

    name = "Read"
    description = (
        "Reads a file. Lines come with their numbers, from 1, each followed by a tab. "
        "file_path is absolute, or relative to the working directory. "
        "By default the whole file is read; a file over 256 KB needs offset and limit, or allow_large. "
        "Images (PNG, JPEG, GIF, WebP), PDF files and Jupyter notebooks can be read too. "
        "For a folder use Glob."
    )
    input_schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "file_path": {"type": "string", "description": "The file to read"},
            "offset": {"type": "integer", "description": "The number of the first line to read"},
            "limit": {"type": "integer", "description": "How many lines to read"},
            "allow_large": {"type": "boolean", "description": "Reads a file of over 256 KB whole"},
        },
        "required": ["file_path"],
        "additionalProperties": False,
    }

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        return True

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises ToolError."""
        return await run_in_thread(lambda: self._read(arguments))

    async def close(self) -> None:
        """Does nothing: no file stays open."""

    def _read(self, arguments: Mapping[str, Any]) -> ToolResult:
        part, is_large = _Part.of(arguments), bool(arguments.get("allow_large"))
        with self._workspace.at(arguments["file_path"]) as place:
            descriptor = open_file(self._workspace, place)
            try:
                size = os.fstat(descriptor).st_size
                if size > MOST_WHOLE:
                    return ToolResult(_read_lines(descriptor, size, part))
                data = read_all(descriptor, place.path, MOST_WHOLE)
            except FileAccessError as error:
                raise failed(str(error)) from error
            finally:
                os.close(descriptor)
            content = self._shown(data, place, part, MOST_LARGE if is_large else MOST_SHOWN)
            return ToolResult(content)

    def _shown(self, data: bytes, place: Place, part: _Part, most: int) -> Any:
        """The content of the result; notes the version of the file."""
        media_type = media_type_of(data)
        if media_type is not None:
            return (self._noted(_media(data, media_type, place), place, data, True),)
        if is_binary(data):
            raise failed(f"This tool cannot read binary files. {one_line(place.path)} has NUL bytes.")
        decoded = decode_text(data)
        if place.real.endswith(".ipynb"):
            return self._noted(_notebook(decoded, place, most), place, data, True)
        if part.is_whole and len(data) > most:
            raise ToolError(_too_large(len(data), most))
        text = show_lines(decoded, part.offset, part.skipped, part.limit, 2 * most)
        return self._noted(text, place, data, part.is_whole)

    def _noted(self, content: Any, place: Place, data: bytes, is_whole: bool) -> Any:
        self._workspace.saw(place.real, data, is_whole)
        return content


def open_file(workspace: Workspace, place: Place) -> int:
    """Opens a file of the workspace for reading. Raises ToolError."""
    reached = place.reached
    if reached.missing:
        raise ToolError(workspace.missing_file(similar_name(place)))
    if reached.is_folder:
        raise ToolError(f"EISDIR: illegal operation on a directory, read '{place.path}'")
    if not stat.S_ISREG(reached.info.st_mode):
        raise failed(f"Cannot read '{one_line(place.path)}': it is {kind_of(reached.info)}.")
    try:
        descriptor = place.files.folders.open(reached.parts[:-1], reached.parts[-1])
        return checked_descriptor(descriptor, place.path, None)
    except (ReplacedError, FileNotFoundError) as error:
        raise replaced(place.path) from error
    except OSError as error:
        raise failed(str(unreadable(place.path, error))) from error
    except FileAccessError as error:
        raise failed(str(error)) from error


def show_lines(
    decoded: DecodedText, number: int, skipped: int, limit: Optional[int], most: Optional[int] = None
) -> str:
    """The lines of a text from the one after `skipped`, numbered from `number`; a reminder for none.

    Raises ToolError for more than `most` characters, with their numbers.
    """
    text = decoded.text.replace("\r\n", "\n") if "\r" in decoded.text else decoded.text
    if not text:
        return _reminder("the file exists but the contents are empty.")
    start = line_start(text, 0, skipped)
    if start < 0:
        return _past_the_end(number, text.count("\n") + 1)
    end = -1 if limit is None else line_start(text, start, limit)
    chosen = text[start:] if end < 0 else text[start : end - 1]
    # A number and a tab for each line. Lists of millions of lines would take many times the file's memory.
    count = chosen.count("\n") + 1
    size = len(chosen) + count * (len(str(number + count)) + 1)
    if most is not None and size > most:
        raise ToolError(_too_large(size, most // 2))
    shown = _numbered(chosen.split("\n"), number)
    return shown if decoded.is_valid else shown + _NOT_UTF8


def _numbered(lines: List[str], number: int) -> str:
    return "\n".join([f"{at}\t{line}" for at, line in enumerate(lines, number)])


def _read_lines(descriptor: int, size: int, part: _Part) -> str:
    """Shows lines of a file that is too large to be held in memory. Raises ToolError."""
    if part.is_whole:
        raise ToolError(_too_large(size, MOST_SHOWN))
    found: List[bytes] = []
    shown = seen = 0
    for line in _lines(descriptor):
        seen += 1
        if seen > part.skipped:
            found.append(line)
            shown += len(line) + 1
        if shown > MOST_SHOWN:
            raise ToolError(_too_large(size, MOST_SHOWN))
        if len(found) == part.limit:
            break
    if not found:
        return _past_the_end(part.offset, seen)
    data = b"\n".join(found)
    if is_binary(data):
        raise failed("This tool cannot read binary files. The file has NUL bytes.")
    return show_lines(decode_text(data), part.offset, 0, None)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yields the lines of a large file, the last one too, each cut behind what one call may show.

    Raises ToolError.
    """
    start = b""
    for _ in range(MOST_SCANNED // _CHUNK):
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            yield start
            return
        *lines, rest = chunk.split(b"\n")
        if lines:
            yield start + lines[0]
            yield from lines[1:]
            start = b""
        start = (start + rest)[: MOST_SHOWN + 1]
    raise failed(f"These lines lie behind the first {format_bytes(MOST_SCANNED)} of the file. Use Grep.")


def _media(data: bytes, media_type: str, place: Place) -> Mapping[str, Any]:
    try:
        return media_block(data, media_type)
    except MediaError as error:
        raise failed(f"Cannot read '{one_line(place.path)}': {error}.") from error


def _notebook(decoded: DecodedText, place: Place, most: int) -> Any:
    try:
        blocks = notebook_blocks(decoded.text)
    except (ValueError, RecursionError) as error:
        raise failed(f"Cannot read '{one_line(place.path)}' as a notebook: {error}.") from error
    size = sum(len(block.get("text", "")) for block in blocks)
    if size > most:
        raise ToolError(_too_large(size, most))
    images = sum(len(block["source"]["data"]) for block in blocks if block["type"] == "image")
    if images > most_bytes("application/pdf"):
        raise failed(f"Cannot read '{one_line(place.path)}': its images are too large together.")
    return blocks


def similar_name(place: Place) -> str:
    """The name of a file beside the missing one with another ending; "" where there is none."""
    reached = place.reached
    stem = os.path.splitext(reached.missing[-1])[0]
    if len(reached.missing) > 1 or not reached.is_folder:
        return ""
    try:
        with place.files.folders.scan(reached.parts) as entries:
            names = [entry.name for _, entry in zip(range(10_000), entries)]
    except OSError:
        return ""
    others = (name for name in sorted(names) if os.path.splitext(name)[0] == stem)
    return next((name for name in others if name != reached.missing[-1]), "")


def _too_large(size: int, most: int) -> str:
    return f"File content ({_kilobytes(size)}) exceeds maximum allowed size ({_kilobytes(most)}). {_NARROW}"


def _kilobytes(size: int) -> str:
    for unit, octets in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= octets:
            return f"{size / octets:.1f}".replace(".0", "") + unit
    return f"{size} bytes"


def _reminder(text: str) -> str:
    return f"<system-reminder>Warning: {text}</system-reminder>"


def _past_the_end(offset: Union[int, str], lines: int) -> str:
    return _reminder(
        f"the file exists but is shorter than the provided offset ({offset}). The file has {lines} lines."
    )
