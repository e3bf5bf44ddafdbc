"""How Ctrl-C ends the process while nothing can be lost. Imports as little as possible."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Optional

INTERRUPTED = 130
_LINE = b"claude-force: error: interrupted\n"
_JSON = b'{\n  "success": false,\n  "error": "interrupted"\n}\n'
# Takes away what a live display has drawn in the line of the cursor, and shows the cursor again.
_CLEAN_LINE = b"\r\x1b[K\x1b[?25h"
_IMPORT = "<frozen importlib"


def on_ctrl_c(number: int, frame: Optional[FrameType]) -> None:
    """Raises KeyboardInterrupt. Within an import, where that could be lost or leave half a module, it ends
    the process: nothing is in flight then."""
    if _is_importing(frame):
        leave()
    raise KeyboardInterrupt


def _is_importing(frame: Optional[FrameType]) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORT):
            return True
        frame = frame.f_back
    return False


def leave() -> None:
    """Ends the process, for one that has sent nothing yet."""
    if "--json" in sys.argv:
        _write(1, _JSON)
    else:
        _write(2, (_CLEAN_LINE if _has_display() else b"") + _LINE)
    os._exit(INTERRUPTED)


def _has_display() -> bool:
    # rich draws live displays; what is not there has drawn nothing.
    return "rich" in sys.modules and os.isatty(2)


def _write(descriptor: int, text: bytes) -> None:
    try:
        os.write(descriptor, text)
    except OSError:
        # Nobody reads it, and the exit code says the same.
        return
