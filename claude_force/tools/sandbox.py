"""What a command of an agent can see and change, as arguments of bubblewrap (`bwrap`).

There are the system's folders and the toolchains of PATH, read-only, the project, an empty home, `/tmp` and
`/run`, and nothing else. Every namespace is new; the network is this machine's only where that was granted.
No capability is left, and no other namespace of users can be made inside, so root in a sandbox is an ordinary
user. `seccomp.py` closes what has no namespace.

What can be written lies in the project, or in memory whose size is bounded and that ends with the command.
"""

from __future__ import annotations

import os
import platform
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Collection, Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Set, Tuple

from .. import settings
from ..errors import ToolSandboxError
from .linked_worktrees import repository_of
from .protected_paths import GIT, PROTECTED, ProtectedPaths
from .seccomp import seccomp_filter
from .system_files import SystemFiles, system_files
from .toolchains import SYSTEM_FOLDERS, Toolchains, add_pythons, find_toolchains, is_within

SHELL = "/bin/bash"
# Sizes of folders in memory, in bytes.
TMP_SIZE = 1024**3
HOME_SIZE = 512 * 1024**2
SHM_SIZE = 256 * 1024**2
RUN_SIZE = 16 * 1024**2

_NAMESPACES = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--hostname", "sandbox"),
    # With a shell as process 1, the end of a command means that no process is left (sandbox_process.py).
    *("--die-with-parent", "--new-session", "--clearenv", "--as-pid-1"),
)
_HOME_IF_NONE = "/home/user"
# With these a mount is made read-only when everything is in its place.
_LAST = ("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/")


class Mount(NamedTuple):
    """A folder outside, and the path that commands see it at."""

    source: Path
    target: Path


class SandboxCommand(NamedTuple):
    """How bubblewrap is started for one command.

    Attributes:
        arguments: those of `bwrap` in front of the program that it runs.
        descriptors: what it has to inherit.
        protected: what is protected in each folder that may be written.
    """

    arguments: Tuple[str, ...]
    descriptors: Tuple[int, ...]
    protected: Tuple[ProtectedPaths, ...]


@dataclass(frozen=True)
class Sandbox:
    """What the commands of one agent may see and change.

        sandbox = Sandbox(Path("/srv/project"), is_writable=True)

    Attributes:
        root: the project.
        is_writable: whether commands may change the project and the extra folders.
        shown_as: the path that they see the project at, if it is another one: a worktree is shown as the
            project.
        extra_folders: others that they see as they see the project (`--add-dir`).
        read_only: others that they only read; inside the project too.
        has_network: whether they share this machine's network, the services on its loopback address too.
        granted: those of `protected_paths.PROTECTED` that may be written.

    Raises ToolSandboxError where the project is the home folder or the root of the file system.
    """

    root: Path
    is_writable: bool = False
    shown_as: Optional[Path] = None
    extra_folders: Sequence[Path] = ()
    read_only: Sequence[Mount] = ()
    has_network: bool = False
    granted: Collection[str] = ()

    def __post_init__(self) -> None:
        if str(self.project.source) in ("/", self.home):
            raise ToolSandboxError(
                f"Commands can't be confined to {self.root}, which is no project. Run in a project's folder."
            )

    @cached_property
    def home(self) -> str:
        """The user's home folder, which is empty for commands but for the toolchains in it."""
        home = settings.home_folder()
        return _HOME_IF_NONE if home is None or str(home) == "/" else os.path.realpath(home)

    @cached_property
    def project(self) -> Mount:
        root = _real(self.root)
        return Mount(root, root if self.shown_as is None else Path(os.path.abspath(self.shown_as)))

    @cached_property
    def folders(self) -> Sequence[Mount]:
        """The project and the extra folders."""
        return (self.project, *(Mount(_real(folder), _real(folder)) for folder in self.extra_folders))

    @contextmanager
    def command(self, is_writable: bool = True) -> Iterator[SandboxCommand]:
        """Opens what one command needs. Raises OSError, ToolSandboxError.

        `is_writable`: False for a command that changes nothing; nothing can then be changed.
        """
        is_writable = is_writable and self.is_writable
        self._expect_in_place()
        with ExitStack() as stack:
            folders = self.folders if is_writable else ()
            protected = [stack.enter_context(self._protect(folder)) for folder in folders]
            data = [(option, _readable(stack, text), target) for option, text, target in self._data]
            arguments = [
                *(self._writable_base if is_writable else self._read_only_base),
                *(argument for one in protected for argument in one.arguments),
                *(
                    argument
                    for option, descriptor, target in data
                    for argument in (option, str(descriptor), *target)
                ),
                *_LAST,
            ]
            descriptors = [
                *(one for each in protected for one in each.descriptors),
                *(one[1] for one in data),
            ]
            yield SandboxCommand(tuple(arguments), tuple(descriptors), tuple(protected))

    def _expect_in_place(self) -> None:
        """Raises ToolSandboxError where a link is on the way to a folder that is mounted by its path.

        A command may have put it there, if one folder lies in another one that can be written.
        """
        for folder in (*(one.source for one in (*self.folders, *self.read_only)), *self._repositories):
            if os.path.realpath(folder) != str(folder):
                raise ToolSandboxError(f"{folder} was replaced by a link, so no command is run. Put it back.")

    def _protect(self, folder: Mount) -> ProtectedPaths:
        # What is mounted read-only over a name protects it, and makes an empty one for the mount.
        covered = {mount.target for mount in self.read_only}
        names = [
            name for name in PROTECTED if name not in self.granted and folder.target / name not in covered
        ]
        return ProtectedPaths(*folder, names)

    @cached_property
    def _writable_base(self) -> Tuple[str, ...]:
        return self._base("--bind")

    @cached_property
    def _read_only_base(self) -> Tuple[str, ...]:
        return self._base("--ro-bind")

    def _base(self, bind: str) -> Tuple[str, ...]:
        """All arguments but those with descriptors. `bind`: the option that mounts the project."""
        toolchains = self._toolchains
        mounts = [
            ("/tmp", ("--perms", "1777", "--size", str(TMP_SIZE), "--tmpfs", "/tmp")),
            ("/run", ("--size", str(RUN_SIZE), "--tmpfs", "/run")),
            (self.home, ("--size", str(HOME_SIZE), "--tmpfs", self.home)),
            *((folder, ("--ro-bind", folder, folder)) for folder in toolchains.folders),
            *((str(target), (bind, str(source), str(target))) for source, target in self.folders),
            *((str(target), ("--ro-bind", str(source), str(target))) for source, target in self.read_only),
            *((str(folder), ("--ro-bind", str(folder), str(folder))) for folder in self._repositories),
        ]
        return (
            *_NAMESPACES,
            *(["--share-net"] if self.has_network else []),
            *self._system.arguments,
            *("--proc", "/proc", "--dev", "/dev"),
            *("--perms", "1777", "--size", str(SHM_SIZE), "--tmpfs", "/dev/shm"),
            # A folder comes before those in it. So a home inside the project is hidden, and a project inside
            # the home is not.
            *(argument for _, mount in sorted(mounts, key=_depth) for argument in mount),
            *("--symlink", "/tmp", "/var/tmp", "--symlink", "/run", "/var/run"),
            *_environment(toolchains, self.home),
            *("--chdir", str(self.project.target)),
        )

    @cached_property
    def _repositories(self) -> Set[Path]:
        """Those outside that the project, or what is mounted as its `.git`, is a worktree of."""
        files = [self.project.source / GIT, *(one.source for one in self.read_only if one.target.name == GIT)]
        found = {one for one in map(repository_of, files) if one is not None}
        root = str(self.project.source)
        return {
            one for one in found if not is_within(str(one), [root]) and not is_within(self.home, [str(one)])
        }

    @cached_property
    def _toolchains(self) -> Toolchains:
        mounts = (*self.folders, *self.read_only)
        shown = tuple(dict.fromkeys(path for mount in mounts for path in (mount.target, mount.source)))
        inside = [folder.source / name for folder in self.folders for name in (".venv", "venv")]
        environments = [*inside, *(mount.source for mount in self.read_only)]
        home = Path(self.home)
        found = find_toolchains(settings.search_path(), home, shown)
        return add_pythons(found, environments, home, shown)

    @cached_property
    def _system(self) -> SystemFiles:
        return system_files(_user(), self.home, SHELL, self.has_network)

    @cached_property
    def _data(self) -> Sequence[Tuple[str, bytes, Tuple[str, ...]]]:
        """What is passed through descriptors: option, content, target."""
        return [
            *(("--file", content, (path,)) for path, content in self._system.files),
            ("--seccomp", _filter(), ()),
        ]


def _environment(toolchains: Toolchains, home: str) -> Iterable[str]:
    visible = (*SYSTEM_FOLDERS, *toolchains.folders)
    variables: Dict[str, str] = {
        "PATH": os.pathsep.join(toolchains.path),
        "HOME": home,
        "USER": _user(),
        "LOGNAME": _user(),
        "SHELL": SHELL,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        # Programs ask by it whether an agent runs them, and then show no progress and ask nothing.
        "CLAUDECODE": "1",
    }
    for name, value in settings.toolchain_variables().items():
        if not os.path.isabs(value) or is_within(value, visible):
            variables[name] = value
    return (argument for item in variables.items() for argument in ("--setenv", *item))


def _user() -> str:
    """The same name on every machine."""
    return "user" if os.geteuid() else "root"


def _filter() -> bytes:
    """Raises ToolSandboxError on a machine for which there is none."""
    machine = platform.machine()
    program = seccomp_filter(machine)
    if program is None:
        raise ToolSandboxError(
            f"Commands of agents can't be confined on {machine} yet, only on x86_64 and aarch64."
        )
    return program


def _readable(stack: ExitStack, data: bytes) -> int:
    """A descriptor to read `data` from; it fits into a pipe."""
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    try:
        os.write(writer, data)
    finally:
        os.close(writer)
    return reader


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _depth(mount: Tuple[str, Tuple[str, ...]]) -> int:
    return len(Path(mount[0]).parts)
