"""Makes patches for `git apply`, and applies them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import PatchConflictError, WorktreeError
from ..lazy_pattern import pattern
from ..types import PATCH_TOO_LARGE, PatchNote
from .git_commands import OutputTooLargeError, PrivateGit, find_git
from .project_copy import AgentCopy, Base, changed_entries

# Of the text of a patch, and of the files that it is made from, in bytes.
MOST_PATCH = 4 * 1024**2
MOST_COMPARED = 64 * 1024**2
_DIFF = ("diff", "--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "--no-textconv")
_DIFF_FORMAT = ("--binary", "--full-index", "--find-renames", "--", "a", "b")
# git has the folders' names, `a` and `b`, in these headers, where a patch has only the file's name. No line
# of a file begins like them: those have a sign in front.
_RENAME = pattern(r'^(rename (?:from|to) "?)[ab]/', re.MULTILINE)
_HEADER = pattern(r'^diff --git ("?)[ab]/(.*) \1[ab]/\2$', re.MULTILINE)


class Changes(NamedTuple):
    """What an agent has changed in its copy.

    Attributes:
        files: the changed files, new and deleted ones too, sorted; bytes that are not UTF-8 as `\\xff`.
        patch: the changes as text for `git apply`; "" for none; None where `note` says why there is none.
    """

    files: Tuple[str, ...] = ()
    patch: Optional[str] = ""
    note: Optional[PatchNote] = None


def changes_of(base: Base, copy: AgentCopy, git: PrivateGit, folder: Path) -> Changes:
    """Compares a copy with its base. Raises WorktreeError, OSError.

    `folder`: an empty one on the same file system, for files in between.
    """
    paths = _changed_paths(base, copy, git)
    if not paths:
        return Changes()
    names = tuple(sorted(os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths))
    size = sum(_size(side / path) for path in paths for side in (base.path, copy.path))
    if size > MOST_COMPARED:
        return Changes(names, None, PatchNote(PATCH_TOO_LARGE, size, MOST_COMPARED))
    is_text = {path: _is_text(base.path / path) and _is_text(copy.path / path) for path in paths}
    texts = _diff([path for path in paths if is_text[path]], base, copy, folder / "text", git, True)
    others = _diff([path for path in paths if not is_text[path]], base, copy, folder / "binary", git, False)
    if texts is None or others is None or len(texts) + len(others) > MOST_PATCH:
        return Changes(names, None, PatchNote(PATCH_TOO_LARGE, size, MOST_PATCH))
    # Names are quoted, and files that are not UTF-8 are in binary form; only a link may lead to such a name.
    return Changes(names, (texts + others).decode("utf-8", "surrogateescape"))


def _changed_paths(base: Base, copy: AgentCopy, git: PrivateGit) -> List[str]:
    changed: List[str] = []
    new: List[str] = []
    for path, is_new in changed_entries(base, copy):
        if is_new:
            new.append(path)
        elif path not in base.ignored_files and not _is_same(base.path / path, copy.path / path):
            changed.append(path)
    new = [path for path in new if _is_file_or_link(copy.path / path)]
    if new:
        with git.ignore_check(copy.path) as check:
            ignored = check.ignored(new)
        changed += [path for path in new if path not in ignored]
    return changed


def _is_same(before: Path, after: Path) -> bool:
    """Whether git would see no difference. It knows one bit of the permissions."""
    try:
        one, other = os.lstat(before), os.lstat(after)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISLNK(one.st_mode) and stat.S_ISLNK(other.st_mode):
        return os.readlink(before) == os.readlink(after)
    if not stat.S_ISREG(one.st_mode) or not stat.S_ISREG(other.st_mode):
        return False
    if (one.st_mode ^ other.st_mode) & stat.S_IXUSR or one.st_size != other.st_size:
        return False
    return one.st_size <= MOST_COMPARED and before.read_bytes() == after.read_bytes()


def _is_file_or_link(path: Path) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_text(path: Path) -> bool:
    """Whether a file can stand in a text: it is UTF-8 without NUL, missing, or no file."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return True
        return _is_utf8(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _diff(
    paths: Sequence[str], base: Base, copy: AgentCopy, folder: Path, git: PrivateGit, is_text: bool
) -> Optional[bytes]:
    """Returns the patch of some files; None for one over MOST_PATCH."""
    if not paths:
        return b""
    own = git.sibling(folder / "git", is_text)
    for side, source in (("a", base.path), ("b", copy.path)):
        (folder / side).mkdir()
        for path in paths:
            _link(source / path, folder / side / path)
    try:
        output = own.run(*_DIFF, *_DIFF_FORMAT, work_tree=folder, most=MOST_PATCH, codes=(0, 1))
    except OutputTooLargeError:
        return None
    return _with_usual_names(output)


def _with_usual_names(patch: bytes) -> bytes:
    text = patch.decode("utf-8", "surrogateescape")
    text = _RENAME.sub(r"\1", text)
    return _HEADER.sub(r"diff --git \1a/\2 \1b/\2", text).encode("utf-8", "surrogateescape")


def _link(source: Path, target: Path) -> None:
    """Makes `target` another name of a file or a link; does nothing for what is not there."""
    try:
        mode = os.lstat(source).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def apply_patch(patch: Union[str, bytes], project: Union[str, Path] = ".") -> bool:
    """Applies the patch of a result to the files of a project, all of it or nothing.

        result = orchestrator.run_agent("fixer", "Fix the tests", tools="edit")
        apply_patch(result.patch, "/srv/project")

    The project need not be a git repository; the index and whatever else is in `.git` stay as they are.

    Args:
        project: its root, which the names in the patch are relative to.

    Returns:
        Whether files were changed: False for an empty patch, and for one that is applied already.

    Raises:
        PatchConflictError: it does not fit; its text names the files.
        WorktreeError: there is no git, or it fails.
    """
    data = patch.encode("utf-8", "surrogateescape") if isinstance(patch, str) else patch
    if not data:
        return False
    root = Path(os.path.realpath(project))
    with tempfile.TemporaryDirectory() as folder:
        git = PrivateGit(find_git([root]), Path(folder, "git"))
        refusal = _refusal(git, root, data)
        if refusal is not None:
            if _refusal(git, root, data, "--reverse") is None:
                return False
            raise PatchConflictError(f"The patch does not fit the files as they are now: {refusal}")
        git.run("apply", work_tree=root, data=data)
    return True


def _refusal(git: PrivateGit, root: Path, data: bytes, *options: str) -> Optional[str]:
    """Returns why a patch can't be applied; None where it can."""
    try:
        git.run("apply", "--check", *options, work_tree=root, data=data)
    except WorktreeError as error:
        return str(error).partition(": ")[2]
    return None


class AppliedPatches(NamedTuple):
    """What `apply_patches` did, by the positions of the patches.

    Attributes:
        applied: those whose changes are in the files now, also those that were before.
        conflicts: those that were left out, each with the reason.
    """

    applied: Tuple[int, ...]
    conflicts: Tuple[Tuple[int, str], ...]


def apply_patches(patches: Iterable[Tuple[int, str]], project: Union[str, Path] = ".") -> AppliedPatches:
    """Applies patches in turn, and leaves out each that does not fit after those before it.

    `patches`: each with its position. Raises WorktreeError as `apply_patch` does.
    """
    applied: List[int] = []
    conflicts: List[Tuple[int, str]] = []
    for position, patch in patches:
        try:
            apply_patch(patch, project)
            applied.append(position)
        except PatchConflictError as error:
            conflicts.append((position, str(error)))
    return AppliedPatches(tuple(applied), tuple(conflicts))
