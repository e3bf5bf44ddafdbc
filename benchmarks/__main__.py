"""The benchmarks: python -m benchmarks [PART ...]

    make bench                      all usual parts, in under half an hour on two cores
    make bench PARTS="calls cache"  only these; the page keeps what was found of the others

Writes benchmarks/results.json, and from it alone the page benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, List

from .page import written
from .part import Part
from .parts import PARTS

HERE = Path(__file__).resolve().parent
KEPT, PAGE = HERE / "results.json", HERE / "results.md"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure, and write the page.")
    known = {part.name: part for part in PARTS}
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(known))
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    options = parser.parse_args()
    unknown = set(options.parts) - set(known)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; take {', '.join(known)}")
    asked = [known[name] for name in options.parts] or [part for part in PARTS if part.usual]
    for part in [] if options.page else asked:
        measure(part)
    PAGE.write_text("\n".join(written(kept())) + "\n", encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    return 0


def kept() -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    return found


def measure(part: Part) -> None:
    """Kept at once: what was measured is not lost where a later part fails."""
    print(part.title, file=sys.stderr, flush=True)
    load, began = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        # Nothing of the user's own cache or agents has a part in this.
        os.environ["HOME"] = home
        found = part.measure()
    results = kept()
    results[part.name] = {
        "machine": machine(),
        "versions": {name: version(name) for name in part.versions},
        "load_before": round(load, 2),
        "seconds": round(time.monotonic() - began),
        "found": found,
    }
    KEPT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def machine() -> str:
    return f"{platform.platform()}, {os.cpu_count()} processors{_model()}, Python {platform.python_version()}"


def _model() -> str:
    """As Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines: List[str] = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({names[0]})" if names else ""


if __name__ == "__main__":
    sys.exit(main())
