"""`python -m claude_force.cli`, as 1.x had it: the same as the command `claude-force`."""

from __future__ import annotations

import sys

from .start import main

if __name__ == "__main__":
    sys.exit(main())
