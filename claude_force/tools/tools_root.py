"""Finds the folder that bounds what the tools of agents may use."""

from __future__ import annotations

import os
from pathlib import Path

from .. import settings
from ..errors import ConfigurationError
from ..storage.path_text import printable
from ..storage.project_root import project_root, working_folder


def tools_root(folder: Path) -> Path:
    """Returns the root of the project that a folder lies in, which bounds its tools.

    Agents in the user's home folder serve every project: for them it is that of the working directory.

    Raises ConfigurationError where it would be the home folder, or has the home folder in it.
    """
    home = os.path.realpath(settings.user_folder().parent)
    start = working_folder() if os.path.realpath(folder) == home else folder
    root = project_root(start)
    refuse_home(root)
    return root


def refuse_home(folder: Path) -> None:
    """Raises ConfigurationError for a folder, a real path, in which the user's secrets are.

    Those are the home folder, what has it in it, and the user's `.claude`, which holds credentials and the
    ledger of every project.
    """
    user = os.path.realpath(settings.user_folder())
    home = os.path.realpath(settings.user_folder().parent)
    if os.path.commonpath((str(folder), home)) == str(folder):
        what = "it is the home folder, or has it in it"
    elif str(folder) == user:
        what = "it holds the user's credentials"
    else:
        return
    raise ConfigurationError(
        f"Agents get no tools in {printable(folder)}: {what}. Work in the folder of a project, or grant no "
        "tools."
    )
