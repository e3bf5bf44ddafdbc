"""`python -m claude_force`: the same as the command `claude-force`."""

from __future__ import annotations

import sys

from .cli.start import main

if __name__ == "__main__":
    sys.exit(main())
