"""Gives each agent that may edit a copy of the project, and tells what it has changed there.

The copy begins as the project is: with changes that are not committed, and with files that git does not know.
The model and its commands see it under the path of the project, so that requests are the same in each run.
Ignored folders such as `node_modules` are not copied: they are shown there, and can only be read. Neither the
project nor its repository is changed.

`git worktree add` would write to the project's `.git`, run its hooks and filters, and give the last commit
instead of the files as they are now.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import weakref
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Iterator, List, Optional

from ..errors import WorktreeError
from ..storage.project_root import has_entry
from ..types import PATCH_FAILED, PatchNote
from .git_commands import PrivateGit, find_git
from .patches import Changes, changes_of
from .project_copy import Base, copy_base, copy_project
from .repository import (
    SHOWN_OBJECTS,
    Repository,
    copy_excludes,
    copy_repository,
    find_repository,
    tracked_files,
)
from .sandbox import Mount
from .toolchains import is_within
from .worktree_folders import WorktreeFolder, remove_tree, worktrees_folder

logger = logging.getLogger(__name__)


class Worktrees:
    """The copies that the agents of one orchestrator work in. Thread-safe; its methods block.

    worktrees = Worktrees()
    worktree = worktrees.open(Path("/srv/project"))
    ...
    changes = worktree.changes()
    worktree.close()
    worktrees.close()
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._folder: Optional[WorktreeFolder] = None
        self._snapshots: List[_Snapshot] = []
        self._numbers = count(1)

    def open(self, root: Path, run: Optional[Any] = None, has_bash: bool = True) -> Worktree:
        """Makes a copy of the project. Raises WorktreeError.

        Args:
            run: the run that the agent belongs to: all copies for one run begin as the project was when the
                first was made. None for the project as it is now.
            has_bash: whether commands run in the copy, and not only Edit and Write.
        """
        if os.name != "posix":
            raise WorktreeError(
                "Copies of the project, which agents edit, are not supported on this system yet. Let one "
                "agent work in place (in_place, --in-place), or grant nothing that edits."
            )
        root = Path(os.path.realpath(root))
        if is_within(str(worktrees_folder()), [str(root)]):
            raise WorktreeError(f"{root} can't be copied: {worktrees_folder()}, where copies lie, is in it.")
        with _errors_of_copies():
            snapshot = self._snapshot(root, run)
            try:
                return Worktree(self, snapshot, self._new_folder("copy"), has_bash)
            except BaseException:
                self._leave(snapshot)
                raise

    def close(self) -> None:
        """Removes all copies."""
        with self._mutex:
            folder, self._folder, self._snapshots = self._folder, None, []
        if folder is not None:
            folder.close()

    def _snapshot(self, root: Path, run: Optional[Any]) -> _Snapshot:
        with self._mutex:
            snapshot = next((one for one in self._snapshots if one.belongs_to(run, root)), None)
            if snapshot is None:
                snapshot = _Snapshot(root, self._make_folder("base"), run)
                self._snapshots.append(snapshot)
            snapshot.users += 1
        try:
            # The first agent of a run makes it; the others wait.
            snapshot.prepare()
        except BaseException:
            self._leave(snapshot)
            raise
        return snapshot

    def _leave(self, snapshot: _Snapshot) -> None:
        with self._mutex:
            snapshot.users -= 1
            unused = [one for one in self._snapshots if one.is_unused]
            self._snapshots = [one for one in self._snapshots if one not in unused]
        for one in unused:
            remove_tree(one.folder)

    def _new_folder(self, kind: str) -> Path:
        with self._mutex:
            return self._make_folder(kind)

    def _make_folder(self, kind: str) -> Path:
        if self._folder is None:
            self._folder = WorktreeFolder()
        path = self._folder.path / f"{kind}-{next(self._numbers)}"
        path.mkdir()
        return path


class _Snapshot:
    """A project as it was at one moment, which the copies of one run are made from."""

    def __init__(self, root: Path, folder: Path, run: Optional[Any]) -> None:
        self.root, self.folder, self.users = root, folder, 0
        self._run = None if run is None else weakref.ref(run)
        self._mutex = threading.Lock()
        self._base: Optional[Base] = None
        self.repository: Optional[Repository] = None

    def belongs_to(self, run: Optional[Any], root: Path) -> bool:
        return run is not None and self._run is not None and self._run() is run and self.root == root

    @property
    def is_unused(self) -> bool:
        return not self.users and (self._run is None or self._run() is None)

    def prepare(self) -> None:
        """Makes the base, unless it is there. Raises WorktreeError, OSError."""
        with self._mutex:
            if self._base is not None:
                return
            remove_tree(self.folder)
            self.folder.mkdir()
            self.repository = repository = find_repository(self.root)
            program = find_git([self.root])
            self.git = PrivateGit(
                program, self.folder / "git", is_sha256=repository is not None and repository.is_sha256
            )
            self.git.use_own_excludes(self.folder)
            tracked: List[str] = []
            if repository is not None:
                copy_excludes(repository, self.git)
                tracked = self._tracked(repository)
                copy_repository(repository, self.git, self.folder / "repository")
            self._base = copy_project(self.root, self.folder / "base", self.git, tracked)

    def _tracked(self, repository: Repository) -> List[str]:
        try:
            return tracked_files(repository, self.root, self.git)
        except WorktreeError as error:
            logger.warning("tracked files that are ignored are left out of copies: %s", error)
            return []

    def add_repository(self, target: Path, has_bash: bool) -> None:
        """Makes the `.git` of a copy, if the project has one. Raises OSError."""
        if has_bash and self.repository is not None:
            shutil.copytree(self.folder / "repository", target)
        elif has_entry(str(self.root), ".git"):
            # Grep obeys ignore files where there is one.
            (target / "info").mkdir(parents=True)
            excludes = self.git.folder / "info" / "exclude"
            if excludes.exists():
                shutil.copyfile(excludes, target / "info" / "exclude")

    @property
    def base(self) -> Base:
        assert self._base is not None
        return self._base


class Worktree:
    """The copy of one agent.

    Attributes:
        path: the folder that it lies in.
        shown_as: the path of the project, under which the model knows it.
        read_only: the ignored folders of the project, to be shown in it.
    """

    def __init__(self, worktrees: Worktrees, snapshot: _Snapshot, folder: Path, has_bash: bool) -> None:
        """Makes the copy. Raises WorktreeError, OSError."""
        self._worktrees, self._snapshot, self._folder = worktrees, snapshot, folder
        self._is_closed = False
        try:
            self._copy = copy_base(snapshot.base, folder / "tree", not has_bash)
            snapshot.add_repository(self._copy.path / ".git", has_bash)
        except BaseException:
            remove_tree(folder)
            raise
        self.path, self.shown_as = self._copy.path, snapshot.root
        self.read_only = tuple(
            Mount(snapshot.root / name, snapshot.root / name) for name in snapshot.base.ignored_folders
        )

    @property
    def mounts(self) -> List[Mount]:
        """What commands see beside the copy: the ignored folders, and the objects of the repository."""
        repository = self._snapshot.repository
        objects = [] if repository is None else [Mount(repository.objects, SHOWN_OBJECTS)]
        return [*self.read_only, *objects]

    def changes(self) -> Changes:
        """Returns what was changed since the copy was made. No tool may be running."""
        try:
            folder = Path(tempfile.mkdtemp(prefix="patch-", dir=self._folder))
            try:
                with _errors_of_copies():
                    return changes_of(self._snapshot.base, self._copy, self._snapshot.git, folder)
            finally:
                remove_tree(folder)
        except (WorktreeError, OSError) as error:
            logger.error("the patch of an agent can't be made: %s", error)
            return Changes((), None, PatchNote(PATCH_FAILED, text=str(error)))

    def close(self) -> None:
        """Removes the copy. Does nothing the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        remove_tree(self._folder)
        self._worktrees._leave(self._snapshot)


@contextmanager
def _errors_of_copies() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise WorktreeError(
            f"The copy of the project that an agent edits can't be made in {worktrees_folder()}: {what}."
        ) from error
