"""What a sandbox shows of the system: its folders, and the parts of /etc that programs need.

Private keys (/etc/ssl/private), passwords and the configuration of services stay outside, and users have the
same names on every machine. Mounts take most of the time of a start, so links and small files are made anew.
"""

from __future__ import annotations

import os
from functools import lru_cache
from glob import glob
from typing import Dict, List, NamedTuple, Optional, Tuple

from .toolchains import SYSTEM_FOLDERS

_ETC = (
    *("alternatives", "ca-certificates", "crypto-policies", "debian_version", "fonts", "host.conf", "java*"),
    *("ld.so.cache", "localtime", "magic", "maven", "mime.types", "os-release", "php", "pki/ca-trust"),
    *("pki/java", "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf", "protocols", "services"),
    *("ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "static", "timezone"),
)
_ETC_OF_NETWORK = ("gai.conf", "hosts", "resolv.conf")
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
_LOOKUPS = "passwd: files\ngroup: files\nhosts: files dns\n"
# A pipe holds as much.
_MOST_COPIED = 32 * 1024


class SystemFiles(NamedTuple):
    """What is shown of the system.

    Attributes:
        arguments: those of bubblewrap.
        files: small files of /etc, with their content.
    """

    arguments: Tuple[str, ...]
    files: Tuple[Tuple[str, bytes], ...]


@lru_cache(maxsize=8)
def system_files(user: str, home: str, shell: str, has_network: bool) -> SystemFiles:
    """Looks at the system's folders, once for the same arguments.

    `user`: the name of the only user beside root; `home`, `shell`: theirs.
    """
    arguments: List[str] = []
    files: Dict[str, bytes] = {"/etc/nsswitch.conf": _LOOKUPS.encode(), **_users(user, home, shell)}
    for folder in SYSTEM_FOLDERS:
        arguments += _shown(folder)
    for name in _ETC:
        for path in sorted(glob(f"/etc/{name}")):
            content = _small_file(path)
            if content is None:
                arguments += _shown(path)
            else:
                files[path] = content
    if has_network:
        for name in _ETC_OF_NETWORK:
            arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    else:
        files["/etc/hosts"] = _HOSTS.encode()
    return SystemFiles(tuple(arguments), tuple(files.items()))


def _shown(path: str) -> List[str]:
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path] if os.path.exists(path) else []


def _small_file(path: str) -> Optional[bytes]:
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_COPIED + 1)
    except OSError:
        return None
    return content if len(content) <= _MOST_COPIED else None


def _users(user: str, home: str, shell: str) -> Dict[str, bytes]:
    uid, gid = os.geteuid(), os.getegid()
    passwd = f"{user}:x:{uid}:{gid}::{home}:{shell}\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
    group = f"{user}:x:{gid}:\nnogroup:x:65534:\n"
    if uid:
        passwd += "root:x:0:0::/root:/bin/sh\n"
    if gid:
        group += "root:x:0:\n"
    return {"/etc/passwd": passwd.encode(), "/etc/group": group.encode()}
