"""Which durable run writes to which output, and its command: notes in `~/.claude/runs/bulk`."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from .. import settings
from ..agents.names import slug
from ..cache.private_dir import cache_folder
from ..errors import CacheError
from ..storage.private_files import open_private, read_private

_LONGEST_NAME = 40
# What a note leaves out of the command: a URL may hold a password, and a run is begun anew only once.
_WITH_A_VALUE, _ALONE = ("--database",), ("--durable", "--no-resume")


@dataclass(frozen=True)
class BulkRunRecord:
    """One durable bulk run. `words` is its command without the database, given in `folder`; `began` is Unix
    time."""

    run: str
    output: str
    folder: str
    words: Tuple[str, ...]
    began: float


def run_of(output: Path, words: Sequence[str], afresh: bool) -> str:
    """The id of the run that writes to `output`: the one that it had, unless that is to begin `afresh`.

    Raises CacheError where it can't be noted down.
    """
    real = os.path.realpath(output)
    place = _folder() / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}.json"
    before = None if afresh else _read(place)
    if before is not None and before.output == real:
        run, began = before.run, before.began
    else:
        run, began = f"{slug(output.stem)[:_LONGEST_NAME] or 'bulk'}-{secrets.token_hex(4)}", time.time()
    _write(place, BulkRunRecord(run, real, str(Path.cwd()), tuple(_plain(words)), began))
    return run


def notes() -> List[BulkRunRecord]:
    """All that there are, the newest first. Raises CacheError."""
    found = [_read(place) for place in sorted(_folder().glob("*.json"))]
    return sorted((one for one in found if one is not None), key=lambda one: one.began, reverse=True)


def note_of(run: str) -> Optional[BulkRunRecord]:
    """The note of one run; None where another machine or another user began it. Raises CacheError."""
    return next((one for one in notes() if one.run == run), None)


def _folder() -> Path:
    return cache_folder(cache_folder(settings.user_folder() / "runs") / "bulk")


def _read(place: Path) -> Optional[BulkRunRecord]:
    try:
        with os.fdopen(read_private(place), "rb") as file:
            found: Any = json.load(file)
        return BulkRunRecord(**{**found, "words": tuple(found["words"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        # None, or one of another version: the output then gets a new run.
        return None


def _write(place: Path, note: BulkRunRecord) -> None:
    try:
        descriptor = open_private(place.with_suffix(f".{os.getpid()}"), os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
        place.with_suffix(f".{os.getpid()}").replace(place)
    except OSError as error:
        raise CacheError(f"The run can't be noted down in {place.parent}: {error.strerror}.") from error


def _plain(words: Sequence[str]) -> Iterator[str]:
    leave = False
    for word in words:
        if leave or word in _ALONE or word.startswith(tuple(f"{name}=" for name in _WITH_A_VALUE)):
            leave = False
            continue
        leave = word in _WITH_A_VALUE
        if not leave:
            yield word
