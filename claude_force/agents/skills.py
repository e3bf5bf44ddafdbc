"""Reads skills: texts in `skills/NAME/SKILL.md` added to the instructions of agents that list them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import List, NamedTuple, Optional, Sequence, Tuple

from ..errors import ConfigurationError
from .agent_settings import PROBLEM
from .names import is_skill_name
from .snapshot import Problem, RegistrySnapshot

# A folder that paths must not leave, and a path below it.
Place = Tuple[Path, str]

_MOST_SKILLS = 50


class Skills(NamedTuple):
    """The skills of one agent: their texts, the files that were searched, and what is missing."""

    texts: Tuple[str, ...] = ()
    paths: Tuple[Path, ...] = ()
    missing: Tuple[str, ...] = ()


_NO_SKILLS = Skills()


def find_skills(
    loaded: RegistrySnapshot, base: Path, prefix: str, places: Tuple[Place, ...], names: Sequence[str]
) -> Skills:
    """Finds the skills that an agent's front matter lists.

    `base`: the folder of its source; `prefix`: the name of its plugin and ":"; `places`: where to search.
    """
    if not names:
        return _NO_SKILLS
    texts: List[str] = []
    paths: List[Path] = []
    missing: List[str] = []
    for name in dict.fromkeys(names[:_MOST_SKILLS]):
        if not is_skill_name(name):
            missing.append(
                f"its skill {name!r:.60} is not a name that a skill can have; name the skill's folder"
            )
            continue
        text = _skill(loaded, _places(base, prefix, places, name), name.rpartition(":")[2], paths)
        if text is None:
            missing.append(f"its skill '{name}' is not there; add skills/{name}/SKILL.md, or leave it out")
        else:
            # Shared by all agents that list it: hundreds of copies would fill the memory.
            block = loaded.skill_blocks.get((name, text))
            if block is None:
                block = f'<skill name="{name}">\n{text.strip()}\n</skill>'
                loaded.skill_blocks[name, text] = block
            texts.append(block)
    if len(names) > _MOST_SKILLS:
        missing.append(f"only the first {_MOST_SKILLS} of its {len(names)} skills are read; list fewer")
    return Skills(tuple(texts), tuple(paths), tuple(missing))


def _places(base: Path, prefix: str, places: Tuple[Place, ...], name: str) -> Tuple[Place, ...]:
    plugin = name.rpartition(":")[0]
    if not plugin:
        return places
    if f"{plugin}:" == prefix:
        return places[:1]
    root = base if prefix else base.parent
    return ((root, f"plugins/{plugin}/skills"),)


def _skill(
    loaded: RegistrySnapshot, places: Tuple[Place, ...], name: str, paths: List[Path]
) -> Optional[str]:
    """Returns the text of the first skill with this name; adds each file searched to `paths`."""
    for folder, below in places:
        file = f"{below}/{name}/SKILL.md"
        path = folder / file
        paths.append(path)
        if path not in loaded.skills:
            loaded.skills[path] = _skill_text(loaded, folder, file)
        text = loaded.skills[path]
        if text is not None:
            return text
    return None


def _skill_text(loaded: RegistrySnapshot, folder: Path, file: str) -> Optional[str]:
    try:
        found = loaded.find_file(folder, file)
        if found is None:
            return None
        definition = loaded.definition(folder, loaded.reader.text(folder, file, found))
        if definition.problem:
            raise ConfigurationError(definition.problem)
    except ConfigurationError as error:
        loaded.remarks.append(Problem(PurePosixPath(file).parent.name, file, str(error), PROBLEM))
        return None
    return definition.body
