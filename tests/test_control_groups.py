"""Groups that bound how many processes a command of root's may have."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from claude_force.tools.control_groups import ProcessGroup, own_groups

OLD = "30 25 0:26 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
NEW = "31 25 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
PART = "31 25 0:27 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
FORKS = (
    "import os, sys; sys.stdin.readline()\n"
    "for number in range(20):\n"
    "    try:\n"
    "        if not os.fork(): os.read(0, 1); os._exit(0)\n"
    "    except OSError: print(number, flush=True); break\n"
)


@pytest.mark.parametrize(
    ("mounts", "groups", "expected"),
    [
        (OLD, "8:pids:/a/b\n0::/\n", [("/sys/fs/cgroup/pids/a/b", False)]),
        (NEW, "0::/user.slice/x.scope\n", [("/sys/fs/cgroup/user.slice/x.scope", True)]),
        (OLD + NEW, "8:pids:/\n0::/a\n", [("/sys/fs/cgroup/pids", False), ("/sys/fs/cgroup/a", True)]),
        (PART, "0::/\n", []),
        ("", "8:pids:/\n7:memory:/\n0::/\n", []),
        (OLD, "7:memory:/\n", []),
        ("nonsense\n - \n", "", []),
    ],
)
def test_groups_are_found(mounts, groups, expected) -> None:
    assert own_groups(mounts, groups) == [(Path(path), is_unified) for path, is_unified in expected]


@pytest.fixture
def process() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True
    ) as started:
        yield started
        started.kill()


def group_of(process: "subprocess.Popen[str]", most: int) -> ProcessGroup:
    group = ProcessGroup.around(process.pid, most)
    if group is None:
        pytest.skip("this process may not make control groups")
    return group


def is_left(process: "subprocess.Popen[str]") -> bool:
    name = f"claude-force-{os.getpid()}-{process.pid}"
    return any(name in folders for _, folders, _ in os.walk("/sys/fs/cgroup"))


def test_processes_are_bounded(process: "subprocess.Popen[str]") -> None:
    group = group_of(process, 5)
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "4\n"
    process.stdin.close()
    process.wait()
    group.remove()


def test_group_is_removed(process: "subprocess.Popen[str]") -> None:
    group = group_of(process, 5)
    assert is_left(process)
    process.kill()
    process.wait()
    group.remove()
    assert not is_left(process)
