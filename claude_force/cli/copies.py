"""What agents changed in their copies of the project: shown, saved, or applied to the project."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Tuple

from ..errors import InputError, WorktreeError
from ..formatting import format_bytes, pluralize
from ..storage.path_text import printable
from . import streams

if TYPE_CHECKING:
    from ..types import AgentResult, PatchNote

_OPTIONS = {"in_place": "--in-place", "apply": "--apply", "patch": "--patch"}
_MOST_NAMES = 5
_MOST_CONFLICTS = 10


def check_copies(args: argparse.Namespace) -> None:
    """Checks the options of copies. Raises InputError."""
    given = [option for name, option in _OPTIONS.items() if getattr(args, name, None)]
    if given and not args.of_tools:
        raise InputError(f"{given[0]} is for agents that change files: add --tools edit or --tools bash.")
    if len(given) > 1 and "--in-place" in given:
        raise InputError(f"{given[0]} and {given[1]} exclude each other: in place, there is no patch.")


def finish_agent(args: argparse.Namespace, result: AgentResult) -> bool:
    """Shows or applies the patch of a result. Returns False where it does not fit. Raises InputError."""
    if result.patch_note is not None:
        streams.warn(_why_none(result.patch_note))
    if not result.patch:
        return True
    names, is_kept = _names(result.changed_files), bool(args.patch or args.json)
    if args.apply and result.success:
        outcome = apply_rows([(0, result.patch)], args.config)
        if outcome.applied:
            streams.status(f"changed: {names}")
            return True
        streams.warn(outcome.conflicts[0][1])
    # It was paid for.
    if not is_kept:
        _show(result.patch)
    advice = "" if args.apply or is_kept else "; --apply changes the project, --patch FILE saves the patch"
    streams.status(f"changed in a copy: {names}{advice}")
    return not (args.apply and result.success)


def _show(patch: str) -> None:
    """Writes a patch for people, beside an answer in a pipe."""
    if streams.stdout_is_terminal():
        streams.write_line(patch)
    else:
        for line in patch.splitlines():
            streams.status(line)


def _names(files: Sequence[str]) -> str:
    more = len(files) - _MOST_NAMES
    shown = ", ".join(map(printable, files[:_MOST_NAMES]))
    return f"{shown} and {pluralize(more, 'other file')}" if more > 0 else shown


def _why_none(note: PatchNote) -> str:
    if note.most:
        return f"there is no patch: it is over {format_bytes(note.most)}; use --in-place to keep such changes"
    return f"there is no patch: {note.text}"


class Outcome(NamedTuple):
    """What was done with the patches of rows, by the indexes of the rows.

    Attributes:
        applied: the rows whose changes are in the project.
        conflicts: the rows whose patches do not fit, each with the reason.
    """

    applied: Tuple[int, ...] = ()
    conflicts: Tuple[Tuple[int, str], ...] = ()

    def fields(self) -> Dict[str, Any]:
        """As `--json` shows it."""
        conflicts = [{"index": index, "reason": reason} for index, reason in self.conflicts]
        return {"applied": list(self.applied), "conflicts": conflicts}

    def lines(self, thing: str = "row") -> Iterator[str]:
        """Yields a line for the patches that were applied, and one for each conflict."""
        yield f"{pluralize(len(self.applied), 'patch was', 'patches were')} applied"
        for index, reason in self.conflicts[:_MOST_CONFLICTS]:
            yield f"{thing} {index + 1:,} is left out: {reason}"
        more = len(self.conflicts) - _MOST_CONFLICTS
        if more > 0:
            yield f"and {pluralize(more, f'other {thing}')}"


def finish_workflow(args: argparse.Namespace, results: Sequence[AgentResult]) -> Optional[Outcome]:
    """Applies the patches of a workflow if that is asked, in the order of its answers. Raises InputError."""
    patches = [(number, one.patch) for number, one in enumerate(results) if one.success and one.patch]
    if not patches:
        return None
    if not args.apply:
        have = pluralize(len(patches), "answer has", "answers have")
        streams.status(f"{have} a patch: --resume with --apply changes the project, --json shows them")
        return None
    outcome = apply_rows(patches, args.config)
    for line in outcome.lines("answer"):
        streams.status(line)
    return outcome


def apply_rows(patches: Iterable[Tuple[int, str]], config: Optional[str]) -> Outcome:
    """Applies patches to the project, in their order. Raises InputError."""
    from ..agents import Registry
    from ..tools.patches import apply_patches
    from ..tools.tools_root import tools_root

    done = apply_patches(patches, tools_root(Registry(config).project))
    return Outcome(done.applied, done.conflicts)


def finish_rows(args: argparse.Namespace, path: Path, is_complete: bool) -> Tuple[int, Optional[Outcome]]:
    """Applies the patches of a results file if that is asked, and all rows have run.

    Returns how many rows have a patch, and what was done with them. Raises InputError.
    """
    grant = args.of_tools.get("tools")
    if grant is None or not any(grant.grants(tool) for tool in ("Edit", "Write", "Bash")):
        return 0, None
    if args.apply and is_complete:
        outcome = apply_results(path, args.config)
        return len(outcome.applied) + len(outcome.conflicts), outcome
    return len(_places(path)), None


def apply_results(path: Path, config: Optional[str]) -> Outcome:
    """Applies the patches of the rows of a results file, in the order of the rows. Raises InputError."""
    places = _places(path)
    with path.open("rb") as lines:

        def patches() -> Iterator[Tuple[int, str]]:
            for index, position in sorted(places.items()):
                lines.seek(position)
                yield index, json.loads(lines.readline())["patch"]

        return apply_rows(patches(), config)


def _places(path: Path) -> Dict[int, int]:
    """Where the lines of rows with a patch begin, in bytes, by the index of the row."""
    from ..bulk.result_lines import complete_lines

    found: Dict[int, int] = {}
    try:
        with path.open("rb") as lines:
            for end, line, fields in complete_lines(lines, path):
                found.pop(fields["index"], None)
                if fields["success"] and isinstance(fields.get("patch"), str) and fields["patch"]:
                    found[fields["index"]] = end - len(line)
    except OSError as error:
        raise WorktreeError(f"{printable(path)} can't be read: {error.strerror}.") from error
    return found
