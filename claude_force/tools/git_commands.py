"""Runs git so that nothing of a project can start a program, choose what git does, or be changed by it.

No command uses the project's own repository. Each has a private one, which holds the configuration alone, and
the project as its work tree: hooks, filters, fsmonitor, pagers, helpers and included files that the project's
`.git/config` names are never read. `info/attributes` of the private repository comes before each
`.gitattributes`, so that files are read and written byte for byte. The environment is made from nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Collection, Dict, Iterator, List, Sequence, Set, Union, cast

from .. import settings
from ..errors import WorktreeError
from .toolchains import is_within

TIMEOUT_SECONDS = 120.0
MOST_OUTPUT = 256 * 1024**2
_MOST_CHARACTERS = 500
# Bytes of names that are asked at once: less than a pipe holds, so that git and this process never wait for
# each other.
_MOST_ASKED = 16 * 1024
_CHUNK = 64 * 1024
_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin", "/run/current-system/sw/bin")
_INSTALL = "Install git, grant nothing that edits, or let one agent work in place (in_place, --in-place)."
# No conversion of any file: of line ends, keywords, encodings, and none by a filter such as Git LFS.
_ATTRIBUTES = "* -text !eol -ident !filter !working-tree-encoding !merge !whitespace {diff}\n"
_CONFIG = """\
[core]
\trepositoryFormatVersion = {version}
\tbare = false
\tfileMode = true
\tsymlinks = true
\tautocrlf = false
\tsafecrlf = false
\tfsmonitor = false
\tuntrackedCache = false
\tquotePath = true
\tprecomposeUnicode = false
\thooksPath = /dev/null
\tattributesFile = /dev/null
\tpager = cat
[diff]
\trenames = true
\tnoPrefix = false
\tmnemonicPrefix = false
\tignoreSubmodules = all
[apply]
\twhitespace = nowarn
[gc]
\tauto = 0
[protocol]
\tallow = never
[submodule]
\trecurse = false
{more}"""
SHA256 = "[extensions]\n\tobjectFormat = sha256\n"
# The user's own, as git finds them; below the home folder.
_GLOBAL_CONFIGS = (".gitconfig", ".config/git/config")
_GLOBAL_IGNORE = ".config/git/ignore"


class OutputTooLargeError(Exception):
    """git wrote more than its caller takes."""


class PrivateGit:
    """Runs git with a private repository.

        git = PrivateGit(find_git(), folder / "private.git")
        patch = git.run("diff", "--no-index", "a", "b", work_tree=folder, codes=(0, 1))

    Attributes:
        folder: the private repository.
    """

    def __init__(self, program: str, folder: Path, is_text: bool = True, is_sha256: bool = False) -> None:
        """Makes the repository. Raises OSError.

        `is_text`: whether all files are text for `git diff`, else all are binary. `is_sha256`: whether an
        index that it reads names objects by SHA-256.
        """
        self._program, self.folder = program, folder
        for name in ("objects", "refs", "info"):
            (folder / name).mkdir(parents=True)
        version, more = (1, SHA256) if is_sha256 else (0, "")
        (folder / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
        (folder / "config").write_text(_CONFIG.format(version=version, more=more), encoding="utf-8")
        attributes = _ATTRIBUTES.format(diff="diff" if is_text else "-diff")
        (folder / "info" / "attributes").write_text(attributes, encoding="utf-8")

    def use_own_excludes(self, work_tree: Path) -> None:
        """Ignores also what the user's own configuration of git ignores in every project."""
        home = settings.home_folder()
        if home is None:
            return
        ignore_file = home / _GLOBAL_IGNORE
        for config in (home / name for name in _GLOBAL_CONFIGS):
            if config.is_file():
                arguments = ("config", "--file", str(config), "--no-includes", "--get", "core.excludesFile")
                named = self.run(*arguments, work_tree=work_tree, codes=(0, 1)).decode("utf-8", "replace")
                if named.strip():
                    # Relative to the home folder with `~/`, else absolute.
                    ignore_file = home / re.sub(r"^~/", "", named.strip())
        if ignore_file.is_file():
            with open(self.folder / "config", "a", encoding="utf-8") as file:
                file.write(config_line("core.excludesFile", str(ignore_file)))

    def sibling(self, folder: Path, is_text: bool) -> PrivateGit:
        """Makes another private repository for the same program. Raises OSError."""
        return PrivateGit(self._program, folder, is_text)

    def run(
        self,
        *arguments: str,
        work_tree: Path,
        data: bytes = b"",
        most: int = MOST_OUTPUT,
        codes: Collection[int] = (0,),
    ) -> bytes:
        """Returns what git writes to stdout, with `data` as its stdin.

        Raises WorktreeError where it ends with none of `codes`, OutputTooLargeError, OSError.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(data)
            given.seek(0)
            with self._process(arguments, work_tree, given, said) as process:
                assert process.stdout is not None
                output = process.stdout.read(most + 1)
                if len(output) > most:
                    raise OutputTooLargeError
                code = process.wait()
            if code not in codes:
                said.seek(0)
                raise _failed(arguments[0], code, said.read(64 * 1024))
        return output

    @contextmanager
    def ignore_check(self, work_tree: Path) -> Iterator[IgnoreCheck]:
        """Starts a process that answers which paths are ignored. Raises WorktreeError, OSError."""
        arguments = ("check-ignore", "--no-index", "--stdin", "--verbose", "--non-matching", "-z")
        with tempfile.TemporaryFile() as said, self._process(
            arguments, work_tree, subprocess.PIPE, said
        ) as process:
            try:
                yield IgnoreCheck(process)
            except _EndedError:
                process.kill()
                code = process.wait()
                said.seek(0)
                raise _failed(arguments[0], code, said.read(64 * 1024)) from None

    @contextmanager
    def _process(
        self, arguments: Sequence[str], work_tree: Path, given: Union[int, IO[bytes]], said: IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [self._program, "--no-pager", *arguments],
            cwd=work_tree,
            env=self._environment(work_tree),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=said,
            # Ctrl-C ends this process in order, and git with it.
            start_new_session=True,
        )
        timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()
            for stream in filter(None, (process.stdin, process.stdout)):
                _close(stream)
            process.wait()

    def _environment(self, work_tree: Path) -> Dict[str, str]:
        nowhere = str(self.folder / "none")
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": nowhere,
            "XDG_CONFIG_HOME": nowhere,
            "LC_ALL": "C",
            "GIT_DIR": str(self.folder),
            "GIT_WORK_TREE": str(work_tree),
            "GIT_CEILING_DIRECTORIES": str(work_tree.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_EDITOR": ":",
            "GIT_PAGER": "cat",
        }


class IgnoreCheck:
    """Tells which paths below the work tree `.gitignore` and `info/exclude` ignore."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, cast(BufferedReader, process.stdout)

    def ignored(self, paths: Sequence[str]) -> Set[str]:
        """Returns those of the paths that are ignored."""
        found: Set[str] = set()
        for batch in _batches(paths):
            try:
                self._stdin.write(b"".join(map(_asked, batch)))
                self._stdin.flush()
            except BrokenPipeError as error:
                raise _EndedError from error
            # Source, line, pattern, path: the first three are empty where no pattern matches.
            fields = iter(self._fields(4 * len(batch)))
            for path, source, _, pattern, _ in zip(batch, fields, fields, fields, fields):
                if source and not pattern.startswith(b"!"):
                    found.add(path)
        return found

    def _fields(self, number: int) -> List[bytes]:
        chunks: List[bytes] = []
        while number:
            chunk = self._stdout.read1(_CHUNK)
            if not chunk:
                raise _EndedError
            chunks.append(chunk)
            number -= chunk.count(b"\0")
        return b"".join(chunks).split(b"\0")[:-1]


class _EndedError(Exception):
    """git ended before it had answered."""


def find_git(outside: Collection[Path] = ()) -> str:
    """Returns the path of git. Raises WorktreeError.

    `outside`: folders whose programs are not started, such as the project.
    """
    refused = [os.path.realpath(folder) for folder in outside]
    for folder in (*_FOLDERS, *settings.search_path()):
        program = os.path.realpath(os.path.join(folder, "git"))
        is_program = os.path.isabs(folder) and os.path.isfile(program) and os.access(program, os.X_OK)
        if is_program and not is_within(program, refused):
            return os.path.join(folder, "git")
    raise WorktreeError(f"Agents that edit work in copies of the project, which needs git. {_INSTALL}")


def config_line(key: str, value: str) -> str:
    """Returns the lines of a configuration of git that set a value."""
    section, _, name = key.rpartition(".")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'[{section}]\n\t{name} = "{quoted}"\n'


def _batches(paths: Sequence[str]) -> Iterator[List[str]]:
    batch: List[str] = []
    size = 0
    for path in paths:
        # At most 4 bytes a character.
        if batch and size + 4 * len(path) > _MOST_ASKED:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += 4 * len(path)
    if batch:
        yield batch


def _asked(path: str) -> bytes:
    # After a colon, git would look for magic words.
    return b"./" * path.startswith(":") + os.fsencode(path) + b"\0"


def _failed(command: str, code: int, said: bytes) -> WorktreeError:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    text = " ".join("; ".join(lines)[:_MOST_CHARACTERS].split())
    if code < 0:
        return WorktreeError(f"git {command} was stopped after {TIMEOUT_SECONDS:g} s. {text}".rstrip())
    return WorktreeError(f"git {command} failed with code {code}: {text or 'without a word'}")


def _close(stream: IO[bytes]) -> None:
    # It was killed before it had read everything.
    with suppress(BrokenPipeError):
        stream.close()
