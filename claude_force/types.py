"""The values that pass through the package: an agent, a call, a reply, a result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .errors import ClaudeForceError


@dataclass(frozen=True)
class Agent:
    """One agent as its files define it at this moment.

    Attributes:
        name: the name that calls use, `^[a-zA-Z0-9_-]+$`.
        definition: the instructions, without front matter.
        contract: the text of its contract, or None.
        model: the model that its file asks for: an alias, an id, or None.
        file: where it was read, as its source spells it.
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

    @property
    def system(self) -> Tuple[str, ...]:
        """The blocks of the system prompt."""
        return (self.definition,) if not self.contract else (self.definition, self.contract)


@dataclass(frozen=True)
class Call:
    """One question to one model: everything that decides the answer.

    `system` holds the definition and, where there is one, the contract; `task` is the
    user's text, byte for byte. `options` are further fields of the Messages API. `cache_ttl` is how long the
    API's prompt cache keeps the system prompt after each use, "5m" or "1h"; it does not change the answer.
    """

    agent_name: str
    system: Tuple[str, ...]
    task: str
    model: str
    max_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)
    cache_ttl: str = "5m"


@dataclass(frozen=True)
class Usage:
    """Tokens that the API counted. `input_tokens` leaves out what the prompt cache wrote or read."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt, those of the prompt cache among them."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    @property
    def total_tokens(self) -> int:
        """Tokens of the prompt and of the answer."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True)
class Attempt:
    """One request of a call.

    Attributes:
        began, ended: seconds; in a result they count from the call's start.
        window: how many attempts might be on the wire when it began.
        error: the type of the error that it met, None for an answer.
    """

    began: float
    ended: float
    window: int
    error: Optional[str] = None


@dataclass(frozen=True)
class Reply:
    """A whole answer as the server gave it.

    Attributes:
        cost: what was paid for it now, in USD; None where the price is unknown.
        wasted_cost: what the failed attempts before it are known to have cost, in USD.
        prompt_cache_saving: USD that the API's prompt cache saved; below 0 where it was only written.
        saved_cost: what it would have cost, in USD, where it was not paid for now.
        cached: it was kept from an earlier call, `cache_age` seconds ago.
        shared: an identical call was under way, and this one was given the same answer.
        timeline: the requests that were made for it, by the engine's clock.
    """

    text: str
    model: str
    usage: Usage
    stop_reason: Optional[str] = None
    request_id: Optional[str] = None
    attempts: int = 1
    cost: Optional[float] = None
    wasted_cost: float = 0.0
    saved_cost: Optional[float] = None
    cached: bool = False
    cache_age: Optional[float] = None
    shared: bool = False
    prompt_cache_saving: Optional[float] = None
    timeline: Tuple[Attempt, ...] = ()


@dataclass
class AgentResult:
    """What became of one task.

    Attributes:
        index: the place of its task among those of a bulk call, from 0; None for a single call.
        output: the answer, "" on failure.
        errors: what went wrong, as text; empty on success.
        error: the same as a typed error; None on success.
        metadata: the figures under the names that older callers use; the typed fields hold the same.
        cost: USD, failed attempts included as far as they are known to be billed; 0 for a cached or shared
            answer, None where the price is unknown, or where a call failed and nothing is known to be billed.
        prompt_cache_saving: USD that the API's prompt cache saved; below 0 where it was only written, None
            where the price is unknown or no request was made.
        saved_cost: what a cached or shared answer would have cost, in USD; None where that is unknown.
        cached: the answer was kept from an earlier call, `cache_age` seconds ago.
        shared: an identical call was under way, and its answer is this one too.
        usage: tokens of the request that the answer came from; a cached or shared one used none now.
        duration: seconds from the call to its result, waits and retries included.
        attempts: requests made; `timeline` has their times.
        truncated: the answer ends because `max_tokens` or the model's context was full.
        refused: the model declined to answer.
    """

    agent_name: str
    success: bool
    output: str = ""
    metadata: Dict[str, Any] = field(default_factory=dict)
    errors: Optional[List[str]] = field(default_factory=list)
    model: Optional[str] = None
    usage: Usage = Usage()
    cost: Optional[float] = None
    saved_cost: Optional[float] = None
    cached: bool = False
    cache_age: Optional[float] = None
    shared: bool = False
    prompt_cache_saving: Optional[float] = None
    attempts: int = 0
    duration: float = 0.0
    stop_reason: Optional[str] = None
    request_id: Optional[str] = None
    error: Optional[ClaudeForceError] = field(default=None, repr=False)
    index: Optional[int] = None
    timeline: Tuple[Attempt, ...] = ()

    @property
    def service(self) -> float:
        """Seconds in which a request was on the wire."""
        return sum(one.ended - one.began for one in self.timeline)

    @property
    def wait(self) -> float:
        """Seconds in which none was: for the pace, for room, between attempts, for another's answer."""
        return max(0.0, self.duration - self.service)

    @property
    def truncated(self) -> bool:
        return self.stop_reason in ("max_tokens", "model_context_window_exceeded")

    @property
    def refused(self) -> bool:
        return self.stop_reason == "refusal"

    def to_dict(self) -> Dict[str, Any]:
        """Plain values only, ready for JSON."""
        plain: Dict[str, Any] = {
            name: value for name, value in self.__dict__.items() if name not in ("error", "usage")
        }
        plain["metadata"] = dict(self.metadata)
        plain["usage"] = asdict(self.usage)
        plain["timeline"] = [asdict(one) for one in self.timeline]
        plain["truncated"] = self.truncated
        plain["refused"] = self.refused
        plain["error_type"] = type(self.error).__name__ if self.error else None
        return plain


AsyncAgentResult = AgentResult


@dataclass(frozen=True)
class Executed:
    """A call that has ended, as observers of the engine are told of it; `started` is Unix time in seconds."""

    call: Call
    result: AgentResult
    started: float
    workflow_name: Optional[str] = None
    workflow_position: Optional[int] = None
