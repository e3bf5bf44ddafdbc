"""Reads the git repository of a project, as files, for the copies of agents that have Bash.

A copy's `.git` has the branches, the index and the state of a merge, so that `git status`, `git log` and
`git commit` work in it, and a configuration of its own. The objects are those of the project, which the
sandbox shows read-only; new ones stay in the copy. Nothing is written to the project's repository, and no git
is started in it.

A `.git` that is a file leads elsewhere, as in a worktree. It is followed only where the repository there
names this project as its worktree: a project of somebody else can't lead to another repository.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

from ..errors import FileAccessError, WorktreeError
from ..lazy_pattern import pattern
from ..storage.project_files import FolderEntry, ProjectFiles
from .git_commands import SHA256, PrivateGit, config_line

# Where commands see the objects of the project; in a folder of the sandbox.
SHOWN_OBJECTS = Path("/run/project-objects")
_MOST_TEXT = 64 * 1024
_MOST_INDEX = 256 * 1024**2
_MOST_PACKED = 64 * 1024**2
_MOST_REFS = 10_000
_MOST_DEPTH = 16
# Of one worktree; the other files belong to all worktrees of a repository.
_OF_WORKTREE = (
    *("HEAD", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "CHERRY_PICK_HEAD"),
    *("REVERT_HEAD", "REBASE_HEAD", "SQUASH_MSG", "AUTO_MERGE"),
)
_REF = re.compile(rb"\A(?:[0-9a-f]{40}|[0-9a-f]{64})\s*\Z")
_GITDIR = pattern(r"\Agitdir:\s*(.+?)\s*\Z")
# What changes how git sees the files, and names no program and no file.
_SAFE_KEYS = (
    *("core.autocrlf", "core.eol", "core.filemode", "core.ignorecase", "core.symlinks"),
    *("user.name", "user.email", "merge.conflictstyle", "init.defaultbranch"),
)
_CONFIG = """\
[core]
\trepositoryFormatVersion = {version}
\tbare = false
\tlogAllRefUpdates = true
\ttrustCtime = false
\tcheckStat = minimal
{more}"""


class Repository(NamedTuple):
    """The repository of a project.

    Attributes:
        own: the folder with its HEAD and index.
        common: that with branches, configuration and objects; the same but for a worktree.
        is_sha256: whether objects are named by SHA-256.
    """

    own: Path
    common: Path
    is_sha256: bool = False

    @property
    def objects(self) -> Path:
        return self.common / "objects"


def find_repository(root: Path) -> Optional[Repository]:
    """Returns the repository of a project, given its real path; None where it has none that can be used."""
    at = root / ".git"
    with suppress(OSError, FileAccessError):
        own = at if not at.is_symlink() and at.is_dir() else _named_by(at)
        if own is None:
            return None
        common = _common(own)
        config = _read(common, "config", _MOST_TEXT)
        found = Repository(own, common, re.search(rb"(?i)objectformat\s*=\s*sha256", config) is not None)
        # A link would lead to the objects of another repository.
        if os.path.realpath(found.objects) == str(found.objects) and found.objects.is_dir():
            return found
    return None


def _named_by(at: Path) -> Optional[Path]:
    """The folder that a `.git` file names, if it names this project too."""
    found = _GITDIR.match(_read(at.parent, at.name, _MOST_TEXT).decode("utf-8", "surrogateescape"))
    if found is None:
        return None
    own = Path(os.path.realpath(at.parent / found[1]))
    with suppress(FileAccessError):
        back = _read(own, "gitdir", _MOST_TEXT).decode("utf-8", "surrogateescape").strip()
        return own if os.path.realpath(own / back) == str(at) else None
    # A submodule has no such file, and names its folder in the configuration.
    text = _read(own, "config", _MOST_TEXT).decode("utf-8", "surrogateescape")
    names = re.findall(r"^\s*worktree\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    return own if any(os.path.realpath(own / name) == str(at.parent) for name in names) else None


def _common(own: Path) -> Path:
    try:
        text = _read(own, "commondir", _MOST_TEXT).decode("utf-8", "surrogateescape").strip()
    except FileAccessError:
        return own
    common = Path(os.path.realpath(own / text))
    # As git makes it: `.git/worktrees/NAME`. Any other would be an invented one.
    return common if own.parent.name == "worktrees" and own.parent.parent == common else own


def tracked_files(repository: Repository, root: Path, git: PrivateGit) -> List[str]:
    """Returns the paths that the index has. Raises WorktreeError, OSError."""
    index = _read_or_none(repository.own, "index", _MOST_INDEX)
    if index is None:
        return []
    (git.folder / "index").write_bytes(index)
    for name in _split_indexes(repository.own):
        (git.folder / name).write_bytes(_read(repository.own, name, _MOST_INDEX))
    try:
        output = git.run("ls-files", "--cached", "--sparse", "-z", work_tree=root)
    except WorktreeError:
        # Before 2.36, git has no such option.
        output = git.run("ls-files", "--cached", "-z", work_tree=root)
    return [os.fsdecode(name) for name in output.split(b"\0") if name and not name.endswith(b"/")]


def copy_excludes(repository: Repository, git: PrivateGit) -> None:
    """Gives the private repository the patterns of the project's `info/exclude`."""
    data = _read_or_none(repository.common, "info/exclude", _MOST_TEXT)
    if data is not None:
        (git.folder / "info" / "exclude").write_bytes(data)


def copy_repository(repository: Repository, git: PrivateGit, target: Path) -> None:
    """Makes the `.git` of a copy. Raises WorktreeError, OSError."""
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "hooks"):
        (target / name).mkdir(parents=True)
    (target / "objects/info/alternates").write_text(f"{SHOWN_OBJECTS}\n", encoding="utf-8")
    (target / "config").write_bytes(_safe_config(repository, git))
    small = {name: _read_or_none(repository.own, name, _MOST_TEXT) for name in _OF_WORKTREE}
    small["info/exclude"] = _read_or_none(repository.common, "info/exclude", _MOST_TEXT)
    small["shallow"] = _read_or_none(repository.common, "shallow", _MOST_PACKED)
    small["index"] = _read_or_none(repository.own, "index", _MOST_INDEX)
    small["packed-refs"] = _all_refs(repository)
    for name in _split_indexes(repository.own):
        small[name] = _read(repository.own, name, _MOST_INDEX)
    for name, data in small.items():
        if data is not None:
            (target / name).write_bytes(data)


def _split_indexes(own: Path) -> List[str]:
    return sorted(one.name for one in own.iterdir() if one.name.startswith("sharedindex."))[:16]


def _safe_config(repository: Repository, git: PrivateGit) -> bytes:
    """The configuration of a copy, with what is harmless of the project's."""
    version = 1 if repository.is_sha256 else 0
    text = _CONFIG.format(version=version, more=SHA256 if repository.is_sha256 else "").encode()
    given = _read_or_none(repository.common, "config", _MOST_TEXT)
    if given is None:
        return text
    copy = git.folder / "project.config"
    copy.write_bytes(given)
    try:
        found = git.run("config", "--file", str(copy), "--no-includes", "--list", "-z", work_tree=git.folder)
    except WorktreeError:
        # It is no configuration. git would refuse to work in the project, and works in the copy.
        return text
    values: Dict[str, str] = {}
    for item in found.decode("utf-8", "replace").split("\0"):
        key, _, value = item.partition("\n")
        if key in _SAFE_KEYS:
            values[key] = value
    return text + "".join(config_line(*item) for item in values.items()).encode()


def _all_refs(repository: Repository) -> bytes:
    """All branches and tags as one file, which is faster to copy than a file for each."""
    packed = _read_or_none(repository.common, "packed-refs", _MOST_PACKED) or b""
    refs: Dict[bytes, bytes] = {}
    for line in packed.splitlines():
        sha, _, ref = line.partition(b" ")
        if _REF.match(sha) and ref.startswith(b"refs/"):
            refs[ref] = sha
    with ProjectFiles(repository.common, own=True) as files:
        for name in _loose_refs(files, "refs", _MOST_DEPTH):
            with suppress(FileAccessError):
                data = files.read(name, _MOST_TEXT)
                if _REF.match(data):
                    refs[os.fsencode(name)] = data.strip()
            if len(refs) > _MOST_REFS * 10:
                break
    return b"".join(sha + b" " + ref + b"\n" for ref, sha in sorted(refs.items()))


def _loose_refs(files: ProjectFiles, folder: str, depth: int) -> Iterator[str]:
    entries: List[FolderEntry] = []
    with suppress(FileAccessError):
        place = files.find(folder)
        if place is not None and place.is_folder and depth:
            entries = sorted(files.entries(place, most=_MOST_REFS))
    for entry in entries:
        name = f"{folder}/{entry.name}"
        if entry.is_folder:
            yield from _loose_refs(files, name, depth - 1)
        elif not entry.is_link:
            yield name


def _read(folder: Path, name: str, most: int) -> bytes:
    """Raises FileAccessError for a file that is missing, not regular, too large, or outside the folder."""
    with ProjectFiles(folder, own=True) as files:
        return files.read(name, most)


def _read_or_none(folder: Path, name: str, most: int) -> Optional[bytes]:
    try:
        return _read(folder, name, most)
    except FileAccessError:
        return None
