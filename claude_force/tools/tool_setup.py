"""Prepares the tools of an agent: where they may work, what settings deny, and what the agent is offered."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from .. import settings as environment
from ..agent_types import AgentSettings
from .grant import Grant, GrantOption, parse_grant
from .offers import ToolOffer, offer_tools, offered_names
from .permission_rules import NO_RULES, PermissionRules
from .permission_settings import read_permission_rules
from .permissions import Permissions
from .protocol import Tool
from .tool_names import BASH, EDIT, GLOB, GREP, READ, WRITE, WRITING
from .tools_root import refuse_home, tools_root
from .workspace import PathRules, Workspace

if TYPE_CHECKING:
    # Only agents that edit need them.
    from .worktree import Worktree

# Makes a copy of a project; the second says whether commands run in it. Raises WorktreeError.
OpenCopy = Callable[[Path, bool], "Worktree"]


@dataclass(frozen=True)
class ToolSetup:
    """What one agent may use in one project.

    Attributes:
        root: what the tools work in, an absolute path without links.
        shown_as: the path that the model knows it by.
        offers: for each tool that the agent's file names, whether it is offered.
        worktree: the copy of the project that `root` is, if it is one.
    """

    grant: Grant
    root: Path
    shown_as: Path
    rules: PermissionRules
    offers: Tuple[ToolOffer, ...]
    worktree: Optional[Worktree] = None

    @classmethod
    def find(
        cls,
        settings: AgentSettings,
        grant: GrantOption,
        folder: Path,
        shown_as: Optional[Path] = None,
    ) -> ToolSetup:
        """Finds the root and reads the settings files. Raises InputError.

        `folder` and `shown_as` are as in `toolbox.open_tools`.
        """
        parsed = parse_grant(grant)
        if not parsed:
            offers = tuple(offer_tools(settings, parsed))
            return cls(parsed, folder, shown_as or folder, NO_RULES, offers)
        project = tools_root(shown_as or folder)
        rules = read_permission_rules(project, [shown_as or folder])
        root = project if shown_as is None else Path(os.path.realpath(folder))
        return cls(parsed, root, project, rules, tuple(offer_tools(settings, parsed, rules)))

    @property
    def offered(self) -> Tuple[str, ...]:
        """The names of the tools that are offered."""
        return offered_names(self.offers)

    @property
    def may_edit(self) -> bool:
        """Whether a tool that is offered can change files."""
        return not WRITING.isdisjoint(self.offered) or (BASH in self.offered and self._may_commands_write)

    def in_copy(self, open_copy: OpenCopy) -> ToolSetup:
        """Returns the setup for a copy of the project if files can be changed. Raises WorktreeError."""
        if not self.may_edit:
            return self
        worktree = open_copy(self.root, BASH in self.offered)
        return replace(self, root=worktree.path, worktree=worktree)

    def open_workspace(self, add_dirs: Sequence[Path] = ()) -> Workspace:
        """Opens the folders. Raises ConfigurationError, FileAccessError."""
        for folder in add_dirs:
            refuse_home(Path(os.path.realpath(folder)))
        may_write = not WRITING.isdisjoint(self.offered)
        read_only: Sequence[Path] = ()
        if self.worktree is not None:
            # What lies outside the copy would be changed for all agents at once.
            read_only = (*(mount.source for mount in self.worktree.read_only), *add_dirs)
        return Workspace(
            self.root, tuple(add_dirs), writable=may_write, shown_as=self.shown_as, read_only=read_only
        )

    def permit(self, workspace: Workspace) -> Permissions:
        """Makes the permissions, and has the workspace ask them about the paths that it opens."""
        home = os.path.realpath(environment.user_folder().parent)
        permissions = Permissions(self.grant, self.rules, str(workspace.root), home, self.offered)
        workspace.rules = PathRules(
            permissions.denies_read, permissions.denies_write, permissions.allows_sensitive
        )
        return permissions

    def make_tools(self, workspace: Workspace) -> List[Tool]:
        """Makes the tools that are offered, in their order. Raises ToolSandboxError."""
        makers: Dict[str, Callable[[Workspace], Tool]] = {
            READ: _read,
            GREP: _grep,
            GLOB: _glob,
            EDIT: _edit,
            WRITE: _write,
            BASH: self._bash,
        }
        return [makers[name](workspace) for name in self.offered]

    def _bash(self, workspace: Workspace) -> Tool:
        from .bash_tool import BashTool
        from .bubblewrap import bubblewrap
        from .protected_paths import PROTECTED
        from .sandbox import Mount, Sandbox

        extra_folders, read_only = workspace.extra_folders, []
        if self.worktree is not None:
            read_only = [*self.worktree.mounts, *(Mount(folder, folder) for folder in extra_folders)]
            extra_folders = ()
        sandbox = Sandbox(
            self.root,
            is_writable=self._may_commands_write,
            shown_as=self.shown_as,
            extra_folders=extra_folders,
            read_only=read_only,
            has_network=self.grant.has_network,
            granted=self.grant.literals_in(EDIT) & set(PROTECTED),
        )
        return BashTool(workspace, sandbox, bubblewrap((self.shown_as, *workspace.extra_folders)))

    @property
    def _may_commands_write(self) -> bool:
        # Commands see the whole project, so a grant for some of its paths does not make it writable.
        return any(self.grant.grants_all(tool) and not self.rules.denied_tool(tool) for tool in WRITING)


# Each tool is imported where it is offered.


def _read(workspace: Workspace) -> Tool:
    from .read_tool import ReadTool

    return ReadTool(workspace)


def _grep(workspace: Workspace) -> Tool:
    from .grep_tool import GrepTool

    return GrepTool(workspace)


def _glob(workspace: Workspace) -> Tool:
    from .glob_tool import GlobTool

    return GlobTool(workspace)


def _edit(workspace: Workspace) -> Tool:
    from .edit_tools import EditTool

    return EditTool(workspace)


def _write(workspace: Workspace) -> Tool:
    from .edit_tools import WriteTool

    return WriteTool(workspace)
