"""Shows the cells of a Jupyter notebook to a model. Pure."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from itertools import groupby
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from .media import MediaError, media_block

# Beyond it the outputs of a cell are left out.
MOST_OUTPUT = 10_000
# With their commas and brackets. Parsing more holds up the other threads, and takes a lot of memory.
_MOST_VALUES = 200_000

Block = Dict[str, Any]


def notebook_blocks(text: str) -> Tuple[Block, ...]:
    """Returns the cells with their outputs as content blocks. Raises ValueError for what is no notebook."""
    if sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values")
    notebook = json.loads(text)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("it has no list of cells")
    language = _at(notebook, "metadata", "language_info", "name") or "python"
    found = [block for number, cell in enumerate(cells) for block in _cell(cell, number, str(language))]
    blocks: List[Block] = []
    for is_text, group in groupby(found, lambda block: bool(block["type"] == "text")):
        some = list(group)
        blocks += [_text("\n".join(block["text"] for block in some))] if is_text else some
    return tuple(blocks) or ({"type": "text", "text": "The notebook has no cells."},)


def _cell(cell: Mapping[str, Any], number: int, language: str) -> Iterator[Block]:
    name = cell.get("id") or f"cell-{number}"
    kind = cell.get("cell_type")
    tags = "" if kind == "code" else f"<cell_type>{kind}</cell_type>"
    if kind == "code" and language != "python":
        tags = f"<language>{language}</language>"
    yield _text(f'<cell id="{name}">{tags}{_joined(cell.get("source"))}</cell id="{name}">')
    outputs = cell.get("outputs")
    if kind != "code" or not isinstance(outputs, list):
        return
    found = [block for output in outputs if isinstance(output, dict) for block in _output(output)]
    if sum(len(block.get("text", "")) for block in found) > MOST_OUTPUT:
        yield _text(f"\n[The outputs of this cell are over {MOST_OUTPUT:,} characters, and left out.]")
        return
    yield from found


def _output(output: Mapping[str, Any]) -> Iterator[Block]:
    kind, data = output.get("output_type"), output.get("data")
    text = ""
    if kind == "stream":
        text = _joined(output.get("text"))
    elif kind == "error":
        text = f"{output.get('ename')}: {output.get('evalue')}\n{_joined(output.get('traceback'), chr(10))}"
    elif isinstance(data, dict):
        text = _joined(data.get("text/plain"))
    if text:
        yield _text(f"\n{text}")
    for media_type in ("image/png", "image/jpeg"):
        image = _joined(data.get(media_type)) if isinstance(data, dict) else ""
        if image:
            yield _image(image, media_type)
            return


def _image(image: str, media_type: str) -> Block:
    try:
        return media_block(b64decode(image), media_type)
    except (MediaError, binascii.Error, ValueError) as error:
        return _text(f"\n[An image is left out: {error}.]")


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _joined(lines: Any, between: str = "") -> str:
    """A text of a notebook: a string, or a list of them."""
    if isinstance(lines, list):
        return between.join(line for line in lines if isinstance(line, str))
    return lines if isinstance(lines, str) else ""


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
