"""What was promised, measured: python -m benchmarks.claims [--out docs/performance-implementation-summary.md]

Each row of the page is a claim of the project's first summary, with the figure that this command measured
and whether it holds. Calls go over HTTP to the stand-in, which answers as a model would: a pause, then tokens
at a pace. Figures of the cache are of a store on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List

from . import cached, calls
from .claim import Claim

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "performance-implementation-summary.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--coverage", type=float, metavar="PERCENT", help="instead of measuring it (minutes)")
    args = parser.parse_args()
    # What is tried again is no news here.
    logging.getLogger("claude_force").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as home:
        # Nothing of the user's own cache or agents has a part in this.
        os.environ["HOME"] = home
        claims = [*asyncio.run(calls.measured()), *cached.measured(Path(home))]
    claims.append(covered(args.coverage if args.coverage is not None else coverage()))
    page = "\n".join(written(claims)) + "\n"
    args.out.write_text(page, encoding="utf-8")
    print(page)


def coverage() -> float:
    """Percent of the lines and branches that the tests run."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        command = [sys.executable, "-m", "pytest", "-q", "tests/", "-n", "auto", "--dist", "worksteal"]
        measure = ["--cov=claude_force", f"--cov-report=json:{report}"]
        subprocess.run([*command, *measure], cwd=str(ROOT), check=True)
        totals = json.loads(report.read_text(encoding="utf-8"))["totals"]
        return float(totals["percent_covered"])


def covered(percent: float) -> Claim:
    return Claim(
        "Test coverage above 90 %", f"{percent:.1f} % of lines and branches", percent > 90, "`make cover`"
    )


def written(claims: List[Claim]) -> Iterator[str]:
    """The page."""
    yield "<!-- Written by `make bench-claims`: edit benchmarks/claims/. -->"
    yield "# What was promised, and what is measured"
    yield ""
    yield (
        f"On {os.cpu_count()} processors, Python {platform.python_version()}, {platform.system()}; the "
        "stand-in server on loopback. `make bench-claims` writes this page."
    )
    yield ""
    yield "| claim | measured | held | how |"
    yield "|---|---|---|---|"
    for one in claims:
        yield f"| {one.text} | {one.figure} | {one.verdict} | {one.how} |"
    yield ""
    yield (
        "What goes beyond them is in [benchmarks/results.md](../benchmarks/results.md), which `make bench` "
        "writes: calls beside the SDK and the frameworks, the cache beside its peers, a fleet against rate "
        "limits, 100,000 rows, graphs beside their critical path, durable calls beside plain DBOS, a "
        "million executions in the ledger, whole commands."
    )


if __name__ == "__main__":
    main()
