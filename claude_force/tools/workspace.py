"""The folders that an agent's tools may use, and what the agent has seen of their files.

Paths are those of the model: absolute, or relative to the working folder. They are resolved part by part from
descriptors of the folders (`storage.project_files`), so no link, however quickly it is swapped in, leads out
of them, and a folder that is renamed meanwhile stays the one that it was.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import FileAccessError
from ..storage.mounted_folders import MountedFolder
from ..storage.path_text import one_line
from ..storage.project_files import MOST_LINKS, OutsideError, Parts, ProjectFiles, Reached
from .protocol import ToolError
from .shared_folders import shared_folders

READ, WRITE = "read from", "write to"
# What other programs obey as orders: an agent with Edit alone must not reach it.
_SENSITIVE_FOLDERS = frozenset({".git", ".vscode", ".idea", ".claude", ".claude-plugin"})
_SENSITIVE_FILES = frozenset(
    {
        ".bash_profile",
        ".bashrc",
        ".claude.json",
        ".gitconfig",
        ".gitmodules",
        ".mcp.json",
        ".profile",
        ".ripgreprc",
        ".zprofile",
        ".zshrc",
    }
)
_CLAUDE_FOLDERS = frozenset({"agents", "commands", "skills"})


class OutsideDeniedError(ToolError):
    """A path leads out of the workspace. `is_link`: by its last part, a link."""

    def __init__(self, text: str, is_link: bool) -> None:
        super().__init__(text)
        self.is_link = is_link


def never(path: str) -> bool:
    """The rule that no path meets."""
    return False


@dataclass(frozen=True)
class PathRules:
    """What settings and grants say of single paths. Each gets an absolute path without links.

    Attributes:
        denies_read: whether a file or folder must not be read; Grep and Glob leave it out.
        denies_write: whether a file must not be written.
        allows_sensitive: whether a file that other programs obey, such as `.git/config`, may be written.
    """

    denies_read: Callable[[str], bool] = never
    denies_write: Callable[[str], bool] = never
    allows_sensitive: Callable[[str], bool] = never


class FileVersion(NamedTuple):
    """What an agent has seen of a file: the hash of its content, and whether it saw all of it."""

    digest: bytes
    is_whole: bool


class _Root(NamedTuple):
    """One folder: its path as the model knows it, all paths that mean it, and its descriptor."""

    path: str
    names: Tuple[str, ...]
    descriptor: Optional[int]
    mounts: Tuple[MountedFolder, ...] = ()

    def close(self) -> None:
        for descriptor in (self.descriptor, *(mount.descriptor for mount in self.mounts)):
            if descriptor is not None:
                shared_folders.close(descriptor)


class Place(NamedTuple):
    """Where a path of the model leads. Valid while its `Workspace.at` is open.

    Attributes:
        files: the files of its root.
        reached: how far it leads there.
        path: the path, absolute.
        real: the absolute path without links; with the names that are missing.
        root: the absolute path of the root.
    """

    files: ProjectFiles
    reached: Reached
    path: str
    real: str
    root: str

    def absolute(self, parts: Parts) -> str:
        """The absolute path of what lies below the root."""
        return os.path.join(self.root, *parts)


class Workspace:
    """The root of a project and further folders, for the tools of one agent.

        workspace = Workspace(Path("project"), writable=True)
        with workspace.at("src/main.py") as place:
            ...

    Attributes:
        root: the path of the project as the model knows it.
        extra_folders: likewise, of the further folders.
        cwd: where relative paths start, an absolute path in one of the folders. Bash carries it.
        writable: whether files may be written.
        rules: what settings and grants say of single paths.
        versions: what the agent has seen of files, by their absolute paths without links.
    """

    def __init__(
        self,
        root: Union[str, Path],
        extra_folders: Sequence[Union[str, Path]] = (),
        writable: bool = False,
        shown_as: Union[str, Path, None] = None,
        read_only: Sequence[Union[str, Path]] = (),
    ) -> None:
        """Opens the folders, until `close`. Raises FileAccessError.

        Args:
            shown_as: the path that the model knows the root by, where that is another one: a worktree is
                shown as the project, so that the requests of all rows are alike.
            read_only: what can't be written, although the rest can: further folders, and folders of the
                project that a worktree doesn't have, which are then read where they are.
        """
        self._owns_roots, self._roots = True, []
        try:
            self._roots.append(_open_root(root, shown_as, read_only))
            self._roots.extend(_open_root(folder, None) for folder in extra_folders)
        except BaseException:
            self.close()
            raise
        self.writable, self.rules = writable, PathRules()
        self._read_only = tuple(os.path.realpath(folder) for folder in read_only)
        self._begin()

    def _begin(self) -> None:
        self.root = Path(self._roots[0].path)
        self.extra_folders = tuple(Path(root.path) for root in self._roots[1:])
        self.cwd = str(self.root)
        self.versions: Dict[str, FileVersion] = {}

    def for_agent(self, writable: Optional[bool] = None) -> Workspace:
        """Makes a workspace of the same folders for another agent, with a `cwd` and `versions` of its own.

        It must not be used after this one was closed, and needs no `close`.
        """
        other = Workspace.__new__(Workspace)
        other._owns_roots, other._roots = False, self._roots
        other.writable = self.writable if writable is None else writable
        other.rules, other._read_only = self.rules, self._read_only
        other._begin()
        return other

    def close(self) -> None:
        """Closes the folders. Does nothing the second time."""
        roots, self._roots = self._roots, []
        for root in roots if self._owns_roots else ():
            root.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def absolute(self, path: str) -> str:
        """Makes a path of the model absolute by its text: `..` removes the name before it."""
        return os.path.normpath(os.path.join(self.cwd, path))

    def relative(self, path: str) -> str:
        """Shortens an absolute path that lies in the working folder; returns any other as it is."""
        inside = _inside(path, self.cwd)
        return path if inside is None else inside or "."

    def change_folder(self, path: str) -> None:
        """Makes `path` the working folder. Raises ToolError for one outside, and for what is not a folder."""
        with self.at(path) as place:
            if place.reached.missing or not place.reached.is_folder:
                raise ToolError(f"{place.path} is not a directory")
            self.cwd = place.real

    @contextmanager
    def at(self, path: str, purpose: str = READ) -> Iterator[Place]:
        """Resolves a path of the model. Raises ToolError where it may not be used, OutsideDeniedError.

        `purpose`: READ or WRITE.
        """
        whole = self.absolute(path)
        target, is_link = whole, False
        for _ in range(MOST_LINKS):
            root = self._root_of(target)
            if root is None:
                raise OutsideDeniedError(_denied(purpose, whole, target if target != whole else ""), is_link)
            try:
                place = _reach(root[0], root[1], whole)
            except OutsideError as error:
                if error.target == target:
                    raise OutsideDeniedError(_denied(purpose, whole, target), error.is_link) from error
                target, is_link = error.target, is_link or error.is_link
                continue
            except FileAccessError as error:
                raise failed(str(error)) from error
            with place.files:
                self._check(place, purpose)
                yield place._replace(reached=place.reached._replace(is_link=is_link or place.reached.is_link))
            return
        raise failed(f"{one_line(whole)} is a link in a circle")

    def _check(self, place: Place, purpose: str) -> None:
        rules = self.rules
        if rules.denies_read(place.real) or (purpose == WRITE and rules.denies_write(place.real)):
            raise failed("File is in a directory that is denied by your permission settings.")
        if purpose != WRITE:
            return
        if not self.writable or any(_inside(place.real, one) is not None for one in self._read_only):
            raise ToolError(_denied(WRITE, place.path, ""))
        problem = _sensitive(place)
        if problem and not rules.allows_sensitive(place.real):
            raise ToolError(problem)

    def _root_of(self, path: str) -> Optional[Tuple[_Root, str]]:
        """Finds the folder that an absolute path lies in, and the path below it; the innermost one."""
        found: List[Tuple[int, _Root, str]] = []
        for root in self._roots:
            for name in root.names:
                inside = _inside(path, name)
                if inside is not None:
                    found.append((-len(name), root, inside))
        return min(found, key=lambda one: one[0])[1:] if found else None

    def saw(self, real: str, data: bytes, is_whole: bool) -> None:
        """Notes the content of a file that the agent was shown, or has written."""
        self.versions[real] = FileVersion(digest_of(data), is_whole)

    def has_changed(self, real: str, data: bytes) -> bool:
        """Whether the agent has seen another content of the file. False for one that it hasn't seen."""
        version = self.versions.get(real)
        return version is not None and version.digest != digest_of(data)

    def missing_file(self, hint: str = "") -> str:
        """The text for a file that isn't there; `hint` is the name of a similar one."""
        guess = f" Did you mean {hint}?" if hint else ""
        return f"File does not exist. {self.where()}{guess}"

    def where(self) -> str:
        return f"Note: your current working directory is {self.cwd}."


def failed(text: str) -> ToolError:
    """Makes the error of a call that a tool could not carry out, as the model knows such errors."""
    return ToolError(f"<tool_use_error>{text}</tool_use_error>")


def replaced(path: str) -> ToolError:
    """Makes the error for a file that somebody replaced at the moment when it was being opened."""
    return failed(f"{one_line(path)} was replaced while it was being opened. Try again.")


def digest_of(data: bytes) -> bytes:
    """The hash that versions of a file are compared by."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _open_root(
    path: Union[str, Path], shown_as: Union[str, Path, None], mounted: Sequence[Union[str, Path]] = ()
) -> _Root:
    """`mounted`: folders, of which those below `shown_as` are shown in this one."""
    real, given = os.path.realpath(path), os.path.abspath(path)
    shown = os.path.abspath(shown_as) if shown_as is not None else real
    with ProjectFiles(real, own=True):
        descriptor = shared_folders.open(real) if os.name == "posix" else None
    root = _Root(shown, tuple(dict.fromkeys((shown, real, given))), descriptor)
    try:
        for folder in mounted if shown != real else ():
            inside = _inside(os.path.realpath(folder), shown)
            if inside:
                one = MountedFolder(tuple(inside.split(os.sep)), shared_folders.open(str(folder)))
                root = root._replace(mounts=(*root.mounts, one))
    except BaseException:
        root.close()
        raise
    return root


def _reach(root: _Root, inside: str, label: str) -> Place:
    files = ProjectFiles(root.path, own=True, descriptor=root.descriptor, mounts=root.mounts)
    try:
        reached = files.reach(inside, label)
    except BaseException:
        files.close()
        raise
    return Place(files, reached, label, os.path.join(root.path, *reached.parts, *reached.missing), root.path)


def _inside(path: str, folder: str) -> Optional[str]:
    if path == folder:
        return ""
    start = folder if folder.endswith(os.sep) else folder + os.sep
    return path[len(start) :] if path.startswith(start) else None


def _denied(purpose: str, path: str, target: str) -> str:
    path, target = one_line(path), one_line(target)
    link = (
        f" {path} resolves through a symlink to {target}, which is outside the allowed working directories."
    )
    return (
        f"Claude requested permissions to {purpose} {path}, but you haven't granted it yet."
        f"{link if target else ''}"
    )


def _sensitive(place: Place) -> str:
    """The text of the refusal for a file that other programs obey; "" for any other."""
    # Some file systems don't tell capitals from small letters.
    parts = [part.casefold() for part in (*place.reached.parts, *place.reached.missing)]
    if not _SENSITIVE_FOLDERS.isdisjoint(parts) or (parts[-1:] and parts[-1] in _SENSITIVE_FILES):
        if ".claude" in parts and _configures(parts[parts.index(".claude") + 1 :]):
            return _denied(WRITE, place.path, "")
        return f"Claude requested permissions to edit {one_line(place.path)} which is a sensitive file."
    return ""


def _configures(parts: Sequence[str]) -> bool:
    """Whether a path below `.claude` is of settings, agents, commands or skills."""
    return bool(parts) and (parts[0] in _CLAUDE_FOLDERS or parts[0].startswith("settings"))
