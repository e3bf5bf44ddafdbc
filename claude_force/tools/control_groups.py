"""Bounds the number of processes of a command by a control group of the system, for root.

Of other users' processes the system bounds the number by RLIMIT_NPROC; of root's it does not. Source: the
kernel's documentation, "Process Number Controller", of control groups version 1 and 2.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

_MOUNTS, _OWN_GROUPS = Path("/proc/self/mountinfo"), Path("/proc/self/cgroup")
_NAME = "claude-force-{}-{}"
_PIDS = "pids"


class ProcessGroup:
    """A control group with one command in it.

    group = ProcessGroup.around(process, 2048)
    ...
    group.remove()
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def around(cls, process: int, most: int) -> Optional[ProcessGroup]:
        """Moves a process into a new group, in which there may be `most` processes at a time.

        Returns None where this process may not make groups: without root, and in most containers.
        """
        for parent in _parents():
            group = cls(parent / _NAME.format(os.getpid(), process))
            try:
                group._folder.mkdir()
                (group._folder / "pids.max").write_text(str(most))
                (group._folder / "cgroup.procs").write_text(str(process))
            except OSError:
                group.remove()
                continue
            _remove_left(parent)
            return group
        return None

    def remove(self) -> None:
        """Removes the group. One whose processes have not quite gone is left for `around` of another."""
        with suppress(OSError):
            self._folder.rmdir()


def _parents() -> Iterator[Path]:
    """The groups in which this process may have a group that counts processes, the nearest first."""
    try:
        found = own_groups(_MOUNTS.read_text(), _OWN_GROUPS.read_text())
    except OSError:
        return
    for group, is_unified in found:
        if not is_unified:
            yield group
            continue
        # A group of version 2 with processes in it can have no groups that count; its parent may.
        yield from (one for one in (group, *group.parents) if _counts(one))


def own_groups(mounts: str, groups: str) -> List[Tuple[Path, bool]]:
    """Returns the folders of the groups that may count a process, each with whether it is of version 2.

    `mounts`, `groups`: `mountinfo` and `cgroup` of its folder in /proc.
    """
    found = []
    for line in groups.splitlines():
        _, controllers, name = line.split(":", 2)
        root = _mounted(mounts, not controllers)
        if root is not None and (not controllers or _PIDS in controllers.split(",")):
            found.append((root / name.lstrip("/"), not controllers))
    return found


def _mounted(mounts: str, is_unified: bool) -> Optional[Path]:
    """Where the groups are mounted from their root; None if they are not."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, found = before.split(), after.split()
        if len(fields) < 5 or len(found) < 3 or fields[3] != "/":
            continue
        counts = is_unified or _PIDS in found[2].split(",")
        if counts and found[0] == ("cgroup2" if is_unified else "cgroup"):
            return Path(fields[4])
    return None


def _counts(group: Path) -> bool:
    try:
        return _PIDS in (group / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


def _remove_left(parent: Path) -> None:
    """Removes the groups of processes that were killed before they could."""
    for folder in parent.glob(_NAME.format("*", "*")):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            with suppress(OSError):
                folder.rmdir()
