"""Finds the submodules that an index of git has. Pure.

Source of the format: git's own documentation, gitformat-index, versions 2 to 4.
"""

from __future__ import annotations

from typing import List, Tuple

# The mode of an entry that is a submodule, as it stands in the file.
_SUBMODULE = b"\x00\x00\xe0\x00"
# Where in an entry its mode and its hash stand, and the sizes of SHA-1 and SHA-256.
_MODE, _HASH, _HASH_SIZES = 24, 40, (20, 32)
# Upper bits of the modes of files, links, submodules and folders.
_KINDS = frozenset((0o10, 0o12, 0o16, 0o04))
_HEADER, _EXTENDED = 12, 0x4000


def submodules(data: bytes) -> List[bytes]:
    """Returns the paths of the submodules in `data`, the beginning of an index.

    As it does not tell the size of its hashes, paths that are none may be among them.
    """
    if data[:4] != b"DIRC" or _SUBMODULE not in data:
        return []
    return [path for size in _HASH_SIZES for path in _read(data, size)]


def _read(data: bytes, hash_size: int) -> List[bytes]:
    """Reads the entries up to one that is none, as with another size of hashes."""
    version, count = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    if version not in (2, 3, 4):
        return []
    found: List[bytes] = []
    place, path = _HEADER, b""
    for _ in range(count):
        begin, flags = place, place + _HASH + hash_size
        kind = int.from_bytes(data[place + _MODE : place + _MODE + 4], "big") >> 12
        if kind not in _KINDS:
            break
        place = flags + 2 + 2 * bool(int.from_bytes(data[flags : flags + 2], "big") & _EXTENDED)
        kept = 0
        if version == 4:
            cut, place = _number(data, place)
            kept = len(path) - cut
        end = data.find(b"\0", place)
        if end < 0 or kept < 0:
            break
        path = path[:kept] + data[place:end]
        # Up to version 3, one to eight zeros fill an entry up.
        place = end + 1 if version == 4 else begin + (end - begin + 8) // 8 * 8
        if kind == 0o16:
            found.append(path)
    return found


def _number(data: bytes, place: int) -> Tuple[int, int]:
    """Reads a number of varying length; returns it and the place behind it."""
    value = 0
    for byte in data[place : place + 10]:
        place += 1
        value = (value << 7) | (byte & 0x7F)
        if not byte & 0x80:
            break
        value += 1
    return value, place
