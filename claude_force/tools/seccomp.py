"""The filter of system calls for commands in the sandbox: a program of classic BPF. Pure.

Namespaces cut off files, processes and networks. Some ways out have no namespace, and those are closed here:

- The kernel's keyrings: a process inherits the session's, which may hold the user's secrets.
- Sockets of other families than Unix, IP and netlink: a VSOCK reaches the host of a virtual machine,
  Bluetooth a device, whatever network the process is in.
- io_uring makes sockets without the system call that makes them. With it go other parts of the kernel that
  no build or test needs and that have often been a way out.

Calls of another architecture (32-bit programs, x32) are refused: their numbers mean other calls.
"""

from __future__ import annotations

import errno
import struct
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

# Of <linux/bpf_common.h>: load a word of the call's data, compare, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# Of <linux/seccomp.h>, and places in its `struct seccomp_data`: of the first argument, the lower half.
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
_CALL, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
# Of <linux/socket.h>: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
_FAMILIES = (1, 2, 10, 16)
# Numbers from here on are those of x32, on x86-64.
_X32 = 0x40000000
_REFUSED = (
    "add_key",
    "bpf",
    "io_uring_setup",
    "keyctl",
    "perf_event_open",
    "request_key",
    "syslog",
    "userfaultfd",
)


class _Architecture(NamedTuple):
    """Its number in <linux/audit.h>, and the numbers of its system calls."""

    number: int
    calls: Mapping[str, int]


_X86_64 = {
    "socket": 41,
    "syslog": 103,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "perf_event_open": 298,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
}
_ARM_64 = {
    "syslog": 116,
    "socket": 198,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "perf_event_open": 241,
    "bpf": 280,
    "userfaultfd": 282,
    "io_uring_setup": 425,
}
_ARCHITECTURES: Dict[str, _Architecture] = {
    "x86_64": _Architecture(0xC000003E, _X86_64),
    "aarch64": _Architecture(0xC00000B7, _ARM_64),
}

_Instruction = Tuple[int, int, int, int]


def seccomp_filter(machine: str) -> Optional[bytes]:
    """Returns the program for a machine as `platform.machine()` names it; None for one that has no table."""
    architecture = _ARCHITECTURES.get(machine)
    return None if architecture is None else _assemble(_program(architecture))


def _program(architecture: _Architecture) -> List[_Instruction]:
    calls = architecture.calls
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        *_fail(errno.ENOSYS, unless_equal=architecture.number),
        (_LOAD, 0, 0, _CALL),
        (_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS),
        *(one for name in _REFUSED for one in _fail_if_equal(errno.EPERM, calls[name])),
        (_IF_EQUAL, 1, 0, calls["socket"]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        *(one for family in _FAMILIES for one in ((_IF_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW))),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EAFNOSUPPORT),
    ]


def _fail(number: int, unless_equal: int) -> Sequence[_Instruction]:
    return (_IF_EQUAL, 1, 0, unless_equal), (_RETURN, 0, 0, _FAIL_WITH | number)


def _fail_if_equal(number: int, value: int) -> Sequence[_Instruction]:
    return (_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, _FAIL_WITH | number)


def _assemble(program: Sequence[_Instruction]) -> bytes:
    """As `struct sock_filter` of <linux/filter.h>, an instruction each."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
