"""What an agent is, as its files define it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple, Optional, Tuple


class AgentSettings(NamedTuple):
    """What an agent's front matter sets beside its model. None where it says nothing.

    Attributes:
        tools: the tools that the agent may use; None for all of them, () for none.
        permission_mode: as Claude Code names it; "plan" restricts the agent to reading.
        max_turns: the most requests that a run of the agent with tools may send.
        max_tokens: the longest answer, in tokens.
        effort: "low", "medium", "high", "xhigh" or "max".
    """

    tools: Optional[Tuple[str, ...]] = None
    disallowed_tools: Tuple[str, ...] = ()
    skills: Tuple[str, ...] = ()
    max_tokens: Optional[int] = None
    temperature: Optional[float] = None
    effort: Optional[str] = None
    permission_mode: Optional[str] = None
    max_turns: Optional[int] = None


_NO_SETTINGS = AgentSettings()


@dataclass(frozen=True)
class Agent:
    """One agent, or one command that takes arguments, as its files define it at this moment.

    Attributes:
        name: the name that calls use, `^[a-zA-Z0-9_-]+$`; that of a plugin has `PLUGIN:` before it.
        definition: the instructions, without front matter.
        contract: the text of its contract, or None.
        model: the model that its file asks for: an alias, an id, or None.
        wrong_model: the `model` of its file if that can't be the name of a model; else None.
        file: where it was read, as its source spells it.
        source: "claude.json", "project", "user", or "plugin NAME".
        is_command: whether the definition is a message that takes the task as its arguments.
        skill_texts: the texts of the skills that its front matter names.
        front_matter: all fields of its file, as they were read.
    """

    name: str
    definition: str
    file: str
    contract: Optional[str] = None
    contract_file: Optional[str] = None
    description: str = ""
    model: Optional[str] = None
    domains: Tuple[str, ...] = ()
    priority: int = 2
    title: str = ""
    source: str = ""
    is_command: bool = False
    wrong_model: Optional[str] = None
    settings: AgentSettings = _NO_SETTINGS
    skill_texts: Tuple[str, ...] = ()
    front_matter: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def system(self) -> Tuple[str, ...]:
        """The blocks of the system prompt; a command has none."""
        own = () if self.is_command else (self.definition,)
        contract = (self.contract,) if self.contract else ()
        return (*own, *contract, *self.skill_texts)
