"""What Read shows of files of all kinds and sizes."""

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tool_cases import call

from claude_force.conversation import ToolResult
from claude_force.tools.protocol import ToolError
from claude_force.tools.read_tool import MOST_WHOLE, ReadTool
from claude_force.tools.workspace import Workspace

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GIF = b"GIF89a\x01\x00\x02\x00\x00\x00\x00;"
JPEG = b"\xff\xd8\xff\xe0\x00\x04xx\xff\xc0\x00\x11\x08\x00\x02\x00\x03\x03" + bytes(9) + b"\xff\xd9"
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
PDF = b"%PDF-1.4\n1 0 obj <</Type /Page>> endobj\nstartxref\n0\n%%EOF\n"


async def read(folder: Path, data: bytes, name: str = "file", **arguments: Any) -> ToolResult:
    (folder / name).write_bytes(data)
    with Workspace(folder) as workspace:
        return await call(ReadTool(workspace), {"file_path": name, **arguments})


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"a\rb\rc", "1\ta\rb\rc"),
        ("é 漢 😀 \u2028 x\n".encode(), "1\té 漢 😀 \u2028 x\n2\t"),
        (b"\xff\xfeo\x00n\x00e\x00\n\x00", "1\tone\n2\t"),
        (
            b"\xef\xbb\xbf",
            "<system-reminder>Warning: the file exists but the contents are empty.</system-reminder>",
        ),
        (b"not an image\n", "1\tnot an image\n2\t"),
        (b"\x1b[31mred", "1\t\x1b[31mred"),
    ],
)
async def test_text_is_shown_with_its_numbers(tmp_path: Path, data: bytes, shown: str) -> None:
    assert await read(tmp_path, data, "fake.png") == ToolResult(shown)


async def test_a_similar_name_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "main.ts").write_text("")
    (tmp_path / "main.tsx").write_text("")
    with Workspace(tmp_path) as workspace:
        result = await call(ReadTool(workspace), {"file_path": "main.js"})
    assert str(result.content).endswith(f"directory is {tmp_path}. Did you mean main.ts?")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (GIF, "image/gif"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
        (PDF, "application/pdf"),
    ],
)
async def test_images_and_pdfs_are_blocks(tmp_path: Path, data: bytes, media_type: str) -> None:
    (block,) = (await read(tmp_path, data)).content
    assert block["source"]["media_type"] == media_type
    assert base64.b64decode(block["source"]["data"]) == data
    assert block["type"] == ("document" if media_type == "application/pdf" else "image")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PNG[:20], "no complete image"),
        (PNG[:16] + b"\x00\x00\x40\x00" + PNG[20:], "16384x1 pixels"),
        (PNG[:-12] + bytes(5_000_000) + PNG[-12:], "can be sent"),
        (GIF[:7], "no complete image"),
        (JPEG[:12], "no complete image"),
        (b"\xff\xd8\xff" + b"\xff" * 50, "no complete image"),
        (WEBP[:14], "no complete image"),
        (b"%PDF-1.4 no\n", "no complete one"),
        (PDF.replace(b"endobj", b"/Encrypt"), "encrypted"),
        (PDF.replace(b"endobj", b"/Type/Page " * 101), "102 pages"),
        (b"text\0more", "binary"),
        (bytes(MOST_WHOLE + 1), "exceeds maximum allowed size (256KB)"),
    ],
)
async def test_what_the_api_would_refuse_is_an_error_of_the_call(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    result = await read(tmp_path, data)
    assert result.is_error
    assert reason in str(result.content)


async def test_notebooks_are_shown_as_cells(tmp_path: Path) -> None:
    image = base64.b64encode(PNG).decode()
    outputs = [
        {"output_type": "stream", "text": ["hi\n"]},
        {"output_type": "display_data", "data": {"text/plain": "<Figure>", "image/png": image}},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t1", "t2"]},
    ]
    cells = [
        {"cell_type": "code", "id": "c1", "source": ["1\n", "2"], "outputs": outputs},
        {"cell_type": "markdown", "source": "# T"},
    ]
    result = await read(tmp_path, json.dumps({"cells": cells}).encode(), "n.ipynb")
    first, picture, last = result.content
    assert first["text"] == '<cell id="c1">1\n2</cell id="c1">\n\nhi\n\n\n<Figure>'
    assert picture["source"]["data"] == image
    assert (
        last["text"]
        == '\nE: v\nt1\nt2\n<cell id="cell-1"><cell_type>markdown</cell_type># T</cell id="cell-1">'
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [1]}', "[" * 100_000])
async def test_a_broken_notebook_is_an_error(tmp_path: Path, text: str) -> None:
    result = await read(tmp_path, text.encode(), "n.ipynb")
    assert result.is_error
    assert "as a notebook" in str(result.content)


async def test_lines_of_a_huge_file_can_be_read(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        for start in range(0, 2_000_000, 1000):
            file.write(b"".join(b"line %07d\n" % number for number in range(start, start + 1000)))
    with Workspace(tmp_path) as workspace:
        tool = ReadTool(workspace)
        part = await call(tool, {"file_path": "log", "offset": 1_500_001, "limit": 2})
        end = await call(tool, {"file_path": "log", "offset": 2_000_000})
        past = await call(tool, {"file_path": "log", "offset": 9_000_000})
        whole = await call(tool, {"file_path": "log"})
        much = await call(tool, {"file_path": "log", "offset": 5})
    assert part.content == "1500001\tline 1500000\n1500002\tline 1500001"
    assert end.content == "2000000\tline 1999999\n2000001\t"
    assert "The file has 2000001 lines" in str(past.content)
    assert whole.is_error and much.is_error


async def test_a_sparse_file_of_a_terabyte_takes_no_time(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    with Workspace(tmp_path) as workspace:
        result = await call(ReadTool(workspace), {"file_path": "sparse", "offset": 3, "limit": 1})
    assert result.is_error


async def test_the_pages_of_a_pdf_are_not_counted_for_ever(tmp_path: Path) -> None:
    data = b"%PDF-1.4\n" + b"/Type /Page " * 700_000 + b"startxref\n%%EOF"
    (tmp_path / "many.pdf").write_bytes(data)
    begin = time.process_time()
    with Workspace(tmp_path) as workspace, pytest.raises(ToolError, match="5000 pages"):
        await ReadTool(workspace).run({"file_path": "many.pdf"})
    assert time.process_time() - begin < 1
