"""The values that pass through the package: an agent, a call, a reply, a result; and its clock."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar

from .agent_types import Agent as Agent
from .agent_types import AgentSettings as AgentSettings
from .errors import ClaudeForceError, EmptyAnswerError

if TYPE_CHECKING:
    # A call without tools loads none of it.
    from .conversation import ContentBlock, Conversation

# Stop reasons of answers that were cut off.
PAUSED = "pause_turn"
CUT_OFF = ("max_tokens", "model_context_window_exceeded", PAUSED)
REFUSAL = "refusal"


def is_blank(text: str) -> bool:
    """Whether the text is empty or white space only."""
    return not text or text.isspace()


T = TypeVar("T")


def fast_replace(value: T, **changes: Any) -> T:
    """As `dataclasses.replace`, for frozen dataclasses without `__post_init__`, in a quarter of the time."""
    copied = object.__new__(type(value))
    copied.__dict__.update(value.__dict__, **changes)
    return copied


@dataclass(frozen=True)
class Call:
    """One request to one model: everything that decides the answer.

        call = Call("python-expert", ("You explain Python.",), "Explain lists", "claude-sonnet-5-5", 4096)

    Attributes:
        system: the blocks of the system prompt: the definition, then the contract, if there is one.
        task: the user's text, byte for byte; of a command, its message with the arguments in it.
        max_tokens: the longest answer, in tokens.
        options: further fields of the Messages API.
        cache_ttl: how long the API's prompt cache holds the system prompt after each use, "5m" or "1h"; it
            does not change the answer.
        arguments: what a command was given; None for an agent.
        conversation: the messages and tools of an agent with tools, in which `task` is the first text; None
            for a call of one message.
    """

    agent_name: str
    system: Tuple[str, ...]
    task: str
    model: str
    max_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)
    cache_ttl: str = "5m"
    arguments: Optional[str] = None
    conversation: Optional[Conversation] = None


@dataclass(frozen=True)
class Usage:
    """What the API counted and billed for one answer.

        cost = (usage.input_tokens * 3.0 + usage.output_tokens * 15.0) / 1e6

    Attributes:
        input_tokens: tokens of the prompt, without those written to or read from the prompt cache.
        output_tokens: tokens of the answer, thinking included.
        cache_creation_input_tokens: tokens written to the prompt cache; of these
            `cache_creation_1h_input_tokens` are held for an hour.
        cache_read_input_tokens: tokens read from the prompt cache.
        web_search_requests: web searches, which are billed separately.
        service_tier: "priority" or "batch"; None for the standard tier.
        speed, inference_geo: as the server reports them, or None.
        is_known: False where the server did not report all that it billed, or reported nonsense: the counts
            are then incomplete, and the cost is unknown.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    web_search_requests: int = 0
    service_tier: Optional[str] = None
    speed: Optional[str] = None
    inference_geo: Optional[str] = None
    is_known: bool = True

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt, those of the prompt cache included."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    @property
    def total_tokens(self) -> int:
        """Tokens of the prompt and of the answer."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True)
class Attempt:
    """One request of a call.

    Attributes:
        began, ended: in seconds; in a result they count from the start of the call.
        window: how many attempts were allowed in flight when it began.
        error: the type of its error; None for an answer.

    Example:
        for attempt in result.timeline:
            print(f"{attempt.ended - attempt.began:.1f} s: {attempt.error or 'answered'}")
    """

    began: float
    ended: float
    window: int
    error: Optional[str] = None


@dataclass(frozen=True)
class Reply:
    """A complete answer of the server, before it becomes an AgentResult.

    Attributes:
        cost: what was paid for it now, in USD; None where the price is unknown.
        wasted_cost: what the failed attempts before it cost, in USD; None where that is unknown.
        cost_at_most: where one of the two is None, the most that may have been billed in all, in USD; None
            where that is unknown too.
        prompt_cache_saving: what the API's prompt cache saved, in USD; below 0 where it was only written.
        saved_cost: what it would have cost, in USD, where it was not paid for now.
        cached: the answer is from the response cache, where it was stored `cache_age` seconds ago.
        shared: the answer is that of an identical call that was in flight.
        timeline: the requests that were made for it, by the engine's clock.
        content: the blocks of the answer; only where the call has a conversation, to which they are added.
    """

    text: str
    model: str
    usage: Usage
    stop_reason: Optional[str] = None
    request_id: Optional[str] = None
    attempts: int = 1
    cost: Optional[float] = None
    wasted_cost: Optional[float] = 0.0
    cost_at_most: Optional[float] = 0.0
    saved_cost: Optional[float] = None
    cached: bool = False
    cache_age: Optional[float] = None
    shared: bool = False
    prompt_cache_saving: Optional[float] = None
    timeline: Tuple[Attempt, ...] = ()
    content: Tuple[ContentBlock, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One request of an agent with tools, with its retries, and the answer to it.

    Attributes:
        began: when it began, in seconds from the start of the agent's run.
        seconds: how long the answer took, with waits and retries, without the tools that it called.
        cost: in USD, failed attempts included; 0 for a cached or shared answer, None where it is unknown.
        cost_at_most: where `cost` is None, the most that may have been billed; None for no bound.
        saved_cost: what a cached or shared answer would have cost.
        error: the type of the error that ended it; None for an answer.

    Example:
        for number, turn in enumerate(result.turns, 1):
            print(number, turn.stop_reason, turn.usage.total_tokens, turn.cost)
    """

    usage: Usage = Usage()
    cost: Optional[float] = None
    cached: bool = False
    stop_reason: Optional[str] = None
    attempts: int = 0
    seconds: float = 0.0
    began: float = 0.0
    shared: bool = False
    saved_cost: Optional[float] = None
    cost_at_most: Optional[float] = 0.0
    request_id: Optional[str] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class ToolCall:
    """One tool call of an agent.

    Attributes:
        turn: the number of the turn whose answer called the tool, from 1.
        name, input: as the model wrote them.
        seconds: how long the tool ran; 0 for a call that a bound did not let run.
        bytes: the size of the result that the model was given.
        error: the beginning of the result where it says that the call failed or was denied; else None.
        began: when it began, in seconds from the start of the agent's run.
        id: the API's.
        is_denied: whether it was not run, or not carried out, because it is not permitted.

    Example:
        for call in result.tool_calls:
            print(f"{call.name} {call.input}: {call.error or f'{call.bytes} bytes'}, {call.seconds:.1f} s")
    """

    turn: int
    name: str
    input: Any
    seconds: float = 0.0
    bytes: int = 0
    error: Optional[str] = None
    began: float = 0.0
    id: str = ""
    is_denied: bool = False


# Values of `PatchNote.reason`.
PATCH_TOO_LARGE, PATCH_FAILED = "too_large", "failed"


@dataclass(frozen=True)
class PatchNote:
    """Why a result has no patch, although an agent may have changed files.

    Attributes:
        reason: "too_large", or "failed".
        bytes: the size of what would have had to be compared.
        most: the bound that it is over, in bytes; 0 where that is not the reason.
        text: what failed.

    Example:
        if result.patch_note:
            print(result.changed_files, "without a patch:", result.patch_note.reason)
    """

    reason: str
    bytes: int = 0
    most: int = 0
    text: str = ""


@dataclass
class AgentResult:
    """The result of one task, whether it succeeded or failed.

        result = orchestrator.run_agent("python-expert", "Explain decorators")
        print(result.output if result.success else result.error, result.cost, result.usage.total_tokens)

    Attributes:
        index: the position of its task in a bulk call, from 0; None for a single call.
        output: the answer; "" on failure, or the text that came with a refusal.
        errors: what went wrong, as text; empty on success.
        error: the same as a typed error; None on success.
        metadata: the figures under the names that older callers use; the typed fields hold the same.
        cost: in USD, failed attempts included; 0 for a cached or shared answer. None where the price is
            unknown, where a request was lost or its usage not reported, and where a call failed and nothing
            was billed.
        cost_at_most: where `cost` is None, the most that may have been billed, in USD: 0 where nothing was,
            None where that is unknown too.
        prompt_cache_saving: what the API's prompt cache saved, in USD; below 0 where it was only written,
            None where the price is unknown or no request was made.
        saved_cost: what a cached or shared answer would have cost, in USD; None where that is unknown.
        cached: the answer is from the response cache, where it was stored `cache_age` seconds ago.
        shared: the answer is that of an identical call that was in flight.
        usage: tokens of the request that the answer came from; a cached or shared answer used none now.
        duration: seconds from the call to its result, waits and retries included.
        attempts: requests made; `timeline` has their times.
        truncated: the answer was cut off by `max_tokens`, a full context or a paused turn.
        refused: the model declined to answer.
        empty: the answer has no text.
        turns: of an agent with tools, each request and its answer. The figures above are then those of all
            turns: `usage`, tokens and `cost` of the turns that were paid for now (of all, where none was),
            `saved_cost` of the others; `cached` where all are; `stop_reason`, `request_id`, `model` of the
            last.
        tool_calls: what its answers called, in order.
        stopped_by: the bound that let it call no further tool: "max_turns", "max_tool_calls",
            "deadline_seconds" or "budget_usd"; None for an agent that ended by itself.
        patch: what an agent that may edit has changed in its copy of the project, as text for `git apply`:
            see `claude_force.apply_patch`. "" where it changed nothing; None for an agent that worked in
            place or without such tools, and where `patch_note` says why there is none.
        changed_files: the files that the patch is about, sorted.
    """

    agent_name: str = ""
    success: bool = False
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
    cost_at_most: Optional[float] = 0.0
    turns: Tuple[Turn, ...] = ()
    tool_calls: Tuple[ToolCall, ...] = ()
    stopped_by: Optional[str] = None
    patch: Optional[str] = None
    changed_files: Tuple[str, ...] = ()
    patch_note: Optional[PatchNote] = None

    @property
    def service(self) -> float:
        """Seconds in which a request was in flight."""
        return sum(one.ended - one.began for one in self.timeline)

    @property
    def wait(self) -> float:
        """Seconds without a request in flight: waits for limits, backoff, another caller's answer, tools."""
        return max(0.0, self.duration - self.service)

    @property
    def truncated(self) -> bool:
        return self.stop_reason in CUT_OFF

    @property
    def refused(self) -> bool:
        return self.stop_reason == REFUSAL

    @property
    def empty(self) -> bool:
        return isinstance(self.error, EmptyAnswerError)

    def to_dict(self) -> Dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        plain: Dict[str, Any] = {
            name: value for name, value in self.__dict__.items() if name not in _NOT_PLAIN
        }
        plain["metadata"] = dict(self.metadata)
        plain["usage"] = asdict(self.usage)
        plain["timeline"] = [asdict(one) for one in self.timeline]
        plain["truncated"] = self.truncated
        plain["refused"] = self.refused
        plain["empty"] = self.empty
        plain["error_type"] = type(self.error).__name__ if self.error else None
        plain.update(tool_fields(self))
        return plain


def tool_fields(result: AgentResult) -> Dict[str, Any]:
    """Returns what only results of agents that used tools have, as plain values for JSON."""
    fields: Dict[str, Any] = {}
    if result.turns:
        fields["turns"] = [asdict(one) for one in result.turns]
        fields["tool_calls"] = [dict(vars(one)) for one in result.tool_calls]
        fields["stopped_by"] = result.stopped_by
    if result.patch is not None or result.patch_note is not None:
        fields["patch"] = result.patch
        fields["changed_files"] = list(result.changed_files)
        fields["patch_note"] = None if result.patch_note is None else asdict(result.patch_note)
    return fields


AsyncAgentResult = AgentResult
_OF_TOOLS = ("turns", "tool_calls", "stopped_by", "patch", "changed_files", "patch_note")
_NOT_PLAIN = ("error", "usage", *_OF_TOOLS)


@dataclass(frozen=True)
class CallCompleted:
    """A call that has ended, as observers get it.

        orchestrator.observers.append(lambda completed: print(completed.call.model, completed.result.cost))

    Attributes:
        started: Unix time in seconds.
        execution_id: of an agent with tools, the id of its run, which is on all of its lines in the ledger.
        turn: the number of a turn, from 1, that the ledger records; None for a whole call. Observers are told
            of whole calls only.
    """

    call: Call
    result: AgentResult
    started: float
    workflow_name: Optional[str] = None
    workflow_position: Optional[int] = None
    execution_id: Optional[str] = None
    turn: Optional[int] = None


# Called at the end of each call.
Observer = Callable[[CallCompleted], None]


class Clock:
    """The clock of an orchestrator, in seconds. Tests pass a subclass as its option `clock`."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        # Imported here: a command that answers from the cache needs no event loop.
        from asyncio import sleep

        await sleep(seconds)
