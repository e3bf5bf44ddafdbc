"""The entry point of the command, and `python -m claude_force.cli`.

Ctrl-C ends the command at once, even while its other modules are imported.
"""

from __future__ import annotations

import signal
import sys

from .interrupts import exit_now, handle_ctrl_c


def main() -> int:
    """Runs the command that the process was started with. Returns its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, handle_ctrl_c)
    from .main import main as run

    try:
        return run()
    except KeyboardInterrupt:
        # Before the command began, or while its end was reported.
        exit_now()
        raise


if __name__ == "__main__":
    sys.exit(main())
