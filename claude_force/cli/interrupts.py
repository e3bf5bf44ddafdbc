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
# Clears the line that a live display has drawn, and shows the cursor again.
_CLEAN_LINE = b"\r\x1b[K\x1b[?25h"
_IMPORT = "<frozen importlib"


def handle_ctrl_c(number: int, frame: Optional[FrameType]) -> None:
    """Raises KeyboardInterrupt, or ends the process during an import.

    An import could swallow the exception or leave half a module behind; nothing is in flight then.
    """
    if _is_importing(frame):
        exit_now()
    raise KeyboardInterrupt


def _is_importing(frame: Optional[FrameType]) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORT):
            return True
        frame = frame.f_back
    return False


def exit_now() -> None:
    """Ends the process at once. For a process that has sent nothing yet."""
    if "--json" in sys.argv:
        _write(1, _JSON)
    else:
        _write(2, (_CLEAN_LINE if _has_display() else b"") + _LINE)
    os._exit(INTERRUPTED)


def _has_display() -> bool:
    # rich draws the live displays.
    return "rich" in sys.modules and os.isatty(2)


def _write(descriptor: int, text: bytes) -> None:
    try:
        os.write(descriptor, text)
    except OSError:
        # Nobody reads the message; the exit code says the same.
        return
