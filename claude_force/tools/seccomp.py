"""The filter of system calls for commands in the sandbox: a program of classic BPF. Pure.

Namespaces cut off files, processes and networks. Some ways out have no namespace, and those are closed here:

- The kernel's keyrings: a process inherits the session's, which may hold the user's secrets.
- Sockets of other families than Unix, IP and netlink: a VSOCK reaches the host of a virtual machine,
  Bluetooth a device, whatever network the process is in.
- A file with the set-user-ID bit lies in the project, which other users of the machine may run.
- io_uring makes sockets without the system call that makes them. With it go other parts of the kernel that
  no build or test needs and that have often been a way out.

Calls of another architecture (32-bit programs, x32) are refused: their numbers mean other calls.
"""

from __future__ import annotations

import errno
import struct
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

# Of <linux/bpf_common.h>: load a word of the call's data, compare, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Of <linux/seccomp.h>, and places in its `struct seccomp_data`: of the first argument, the lower half.
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
_CALL, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
# Of <linux/socket.h>: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
_FAMILIES = (1, 2, 10, 16)
# Numbers from here on are those of x32, on x86-64.
_X32 = 0x40000000
# S_ISUID and S_ISGID of a mode. O_CREAT and O_TMPFILE: only with one of them a call has a mode.
_SET_ID, _CREATES = 0o6000, 0o20000100
# Calls that take a mode: which argument it is, and which one the flags, if there are any.
_MODES: Dict[str, Tuple[int, Optional[int]]] = {
    "chmod": (1, None),
    "creat": (1, None),
    "fchmod": (1, None),
    "fchmodat": (2, None),
    "fchmodat2": (2, None),
    "mknod": (1, None),
    "mknodat": (2, None),
    "open": (2, 1),
    "openat": (3, 2),
}
# Its mode is behind a pointer; programs that find it missing use openat.
_MISSING = "openat2"
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
    "open": 2,
    "socket": 41,
    "creat": 85,
    "chmod": 90,
    "fchmod": 91,
    "syslog": 103,
    "mknod": 133,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "perf_event_open": 298,
    "openat": 257,
    "mknodat": 259,
    "fchmodat": 268,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "openat2": 437,
    "fchmodat2": 452,
}
_ARM_64 = {
    "mknodat": 33,
    "fchmod": 52,
    "fchmodat": 53,
    "openat": 56,
    "syslog": 116,
    "socket": 198,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "perf_event_open": 241,
    "bpf": 280,
    "userfaultfd": 282,
    "io_uring_setup": 425,
    "openat2": 437,
    "fchmodat2": 452,
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
        *_fail_if_equal(errno.ENOSYS, calls[_MISSING]),
        *(one for name in _MODES if name in calls for one in _checked_mode(calls[name], *_MODES[name])),
        (_IF_EQUAL, 1, 0, calls["socket"]),
        (_RETURN, 0, 0, _ALLOW),
        _load_argument(0),
        *(one for family in _FAMILIES for one in ((_IF_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW))),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EAFNOSUPPORT),
    ]


def _checked_mode(call: int, mode: int, flags: Optional[int]) -> Sequence[_Instruction]:
    """Refuses a call whose mode has a bit of _SET_ID, unless its flags say that it has no mode."""
    checks = [
        _load_argument(mode),
        (_IF_ANY_BIT, 0, 1, _SET_ID),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    if flags is not None:
        checks[:0] = [_load_argument(flags), (_IF_ANY_BIT, 1, 0, _CREATES), (_RETURN, 0, 0, _ALLOW)]
    return [(_IF_EQUAL, 0, len(checks), call), *checks]


def _load_argument(number: int) -> _Instruction:
    return _LOAD, 0, 0, _ARGUMENTS + 8 * number


def _fail(number: int, unless_equal: int) -> Sequence[_Instruction]:
    return (_IF_EQUAL, 1, 0, unless_equal), (_RETURN, 0, 0, _FAIL_WITH | number)


def _fail_if_equal(number: int, value: int) -> Sequence[_Instruction]:
    return (_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, _FAIL_WITH | number)


def _assemble(program: Sequence[_Instruction]) -> bytes:
    """As `struct sock_filter` of <linux/filter.h>, an instruction each."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
