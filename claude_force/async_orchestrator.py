"""AsyncAgentOrchestrator: a call, told from top to bottom."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Any, AsyncGenerator, Awaitable, Dict, List, Optional, Sequence, Tuple, Type, Union

from . import settings
from .agents import Registry, check_task, resolve_model, warn_if_retired
from .answers import USE, check_policy
from .asking import Asking, Keeping
from .bulk import OnResult, Tasks, stream
from .calling import (
    Budget,
    Caller,
    CallerSettings,
    Clock,
    Prices,
    check_limits,
    check_max_tokens,
)
from .errors import CallError, InputError
from .response_cache import ResponseCache
from .results import Run, failed, succeeded
from .types import Agent, AgentResult, AsyncAgentResult, Call, Reply
from .workflow import hand_over, sequence

__all__ = ["AsyncAgentOrchestrator", "AsyncAgentResult"]

logger = logging.getLogger(__name__)

# Calls that wait for their next attempt hold no slot: there are others to take it.
_UNDER_WAY_PER_SLOT = 2


class AsyncAgentOrchestrator:
    """Runs agents concurrently over one pool of connections.

    The attributes below can be set at any time; they hold from the next call.

    Attributes:
        config_path: a claude.json, a .claude folder or a project; None for the one found by walking up.
        api_key: None for the credentials that the SDK finds.
        max_concurrent: attempts on the wire at one time.
        timeout_seconds: the longest silence of the server in one attempt; None for no bound.
        max_retries: attempts per call, the first one among them.
        base_url: the endpoint; None for what the SDK finds (ANTHROPIC_BASE_URL, else Anthropic's).
        deadline_seconds: bound of a whole call with its waits and retries; None for none.
        stream: whether answers are streamed. Without it, silence can't be told from a long answer.

        enable_cache: whether answers are kept in `~/.claude/cache` and found again.
        cache_ttl_hours: how long an answer is given out, in hours.
        cache_max_size_mb: bound of the cache's files, in megabytes.
        response_cache: a cache of the caller's own, who closes it, in the place of that one.
        budget_usd: a hard cap on what all calls spend together, in USD; setting it starts a new one.
        prices: the caller's own by model, such as {"my-model": {"input": 3.0, "output": 15.0}}, in USD per
            million tokens, before those of the price list.

    `enable_memory` is accepted for older callers and does nothing: agents have no memory.
    `enable_tracking` is kept as it is given.
    """

    def __init__(
        self,
        config_path: Union[str, Path, None] = None,
        api_key: Optional[str] = None,
        max_concurrent: int = settings.MAX_CONCURRENT,
        timeout_seconds: Optional[float] = settings.TIMEOUT_SECONDS,
        max_retries: int = settings.MAX_ATTEMPTS,
        enable_tracking: bool = True,
        enable_memory: bool = True,
        enable_cache: bool = True,
        cache_ttl_hours: float = settings.CACHE_TTL_HOURS,
        cache_max_size_mb: float = settings.CACHE_MAX_SIZE_MB,
        *,
        response_cache: Optional[ResponseCache] = None,
        budget_usd: Optional[float] = None,
        prices: Optional[Prices] = None,
        base_url: Optional[str] = None,
        deadline_seconds: Optional[float] = None,
        stream: bool = True,
        clock: Optional[Clock] = None,
    ) -> None:
        """Raises InvalidOptionError for a senseless limit, ConfigurationError for a missing file."""
        self.config_path = config_path
        self.api_key, self.base_url = api_key, base_url
        self.max_concurrent = max_concurrent
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self.deadline_seconds = deadline_seconds
        self.stream = stream
        self.enable_tracking = enable_tracking
        self.enable_memory = enable_memory
        self.enable_cache = enable_cache
        self.cache_ttl_hours = cache_ttl_hours
        self.cache_max_size_mb = cache_max_size_mb
        self.response_cache = response_cache
        self.prices, self.budget_usd = prices, budget_usd
        check_limits(max_concurrent, timeout_seconds, max_retries, deadline_seconds)
        self._clock = clock or Clock()
        self._caller = Caller(self._clock)
        self._asking = Asking(self._send, self._clock)

    @property
    def config_path(self) -> Union[str, Path, None]:
        return self._config_path

    @config_path.setter
    def config_path(self, path: Union[str, Path, None]) -> None:
        """Raises ConfigurationError when it is not there."""
        self._registry = Registry(path)
        self._config_path = path

    @property
    def budget_usd(self) -> Optional[float]:
        return self._budget.usd if self._budget else None

    @budget_usd.setter
    def budget_usd(self, usd: Optional[float]) -> None:
        """A new budget, of which nothing is spent. Raises InvalidOptionError for one that is not above 0."""
        self._budget = Budget(usd) if usd is not None else None

    @property
    def spent_usd(self) -> float:
        """What was spent of the budget; 0 where none is set."""
        return self._budget.spent if self._budget else 0.0

    async def execute_agent(
        self,
        agent_name: str,
        task: str,
        model: Optional[str] = None,
        max_tokens: int = settings.MAX_TOKENS,
        temperature: Optional[float] = None,
        workflow_name: Optional[str] = None,
        workflow_position: Optional[int] = None,
        *,
        cache: str = USE,
        budget: Optional[Budget] = None,
        **options: Any,
    ) -> AgentResult:
        """Runs one agent on one task.

        Args:
            model: an alias or a full id; None for what the agent's file, else the environment, asks for.
            max_tokens: the longest answer, in tokens.
            cache: `use` a kept answer, `refresh` it with a new one, or `off`: a request of its own, neither
                kept nor shared with identical calls that are under way.
            budget: one that this call shares with others, beside the orchestrator's.
            options: further fields of the Messages API, such as `stop_sequences` or `thinking`.

        Returns:
            A result, also for a call that failed: its `error` says why.

        Raises:
            InputError: a ValueError, before anything is sent.
        """
        if temperature is not None:
            options["temperature"] = temperature
        check_policy(cache)
        call = self._prepare(agent_name, task, model, max_tokens, options)
        run = Run(agent_name, workflow_name, workflow_position)
        return await self._carry_out(call, run, cache, [one for one in (self._budget, budget) if one])

    def _prepare(
        self, agent_name: str, task: str, model: Optional[str], max_tokens: int, options: Dict[str, Any]
    ) -> Call:
        agent = self._registry.get(agent_name)
        check_task(task)
        check_max_tokens(max_tokens)
        chosen = resolve_model(call=model, agent=agent.model)
        warn_if_retired(chosen)
        return Call(agent.name, _system(agent), task, chosen, max_tokens, options)

    async def _carry_out(self, call: Call, run: Run, policy: str, budgets: Sequence[Budget]) -> AgentResult:
        started = self._clock.now()
        try:
            reply = await self._asking.answer(call, policy, self._kept(), self.deadline_seconds, budgets)
        except CallError as error:
            result = failed(run, error, call.model, self._clock.now() - started)
        else:
            result = succeeded(run, reply, self._clock.now() - started)
        _log(result)
        return result

    def _kept(self) -> Keeping:
        return Keeping(
            self.enable_cache,
            self.cache_ttl_hours,
            self.cache_max_size_mb,
            self.response_cache,
            self.base_url,
        )

    async def _send(self, call: Call, left: Optional[float], budgets: Sequence[Budget]) -> Reply:
        return await self._caller.send(call, self._how(), left, budgets)

    def _how(self) -> CallerSettings:
        check_limits(self.max_concurrent, self.timeout_seconds, self.max_retries, self.deadline_seconds)
        return CallerSettings(
            self.api_key,
            self.base_url,
            self.max_concurrent,
            self.timeout_seconds,
            self.max_retries,
            self.stream,
            self.prices or {},
        )

    async def execute_multiple(
        self,
        tasks: Tasks,
        on_result: Optional[OnResult] = None,
        budget_usd: Optional[float] = None,
        **call_options: Any,
    ) -> List[AgentResult]:
        """Runs `(agent_name, task)` pairs concurrently.

        Args:
            budget_usd: a hard cap on what these calls spend together; what does not fit is not sent.
            on_result: called as `on_result(index, result)` as each task ends, in the order of ending;
                what was handed over stays with the caller when the run is cancelled.
            call_options: as of `execute_agent`, the same for every task.

        Returns:
            One result for each task, in the order of the tasks, whatever failed.
        """
        results: Dict[int, AgentResult] = {}
        async for result in self.stream_multiple(tasks, budget_usd=budget_usd, **call_options):
            index = len(results) if result.index is None else result.index
            results[index] = result
            if on_result is not None:
                on_result(index, result)
        return [results[index] for index in range(len(results))]

    def stream_multiple(
        self,
        tasks: Tasks,
        in_order: bool = False,
        budget_usd: Optional[float] = None,
        **call_options: Any,
    ) -> AsyncGenerator[AgentResult, None]:
        """Runs `(agent_name, task)` pairs from any iterable or async iterable, without end if need be.

        Results come as they end, or `in_order`; each has the `index` of its task. Tasks are taken as there
        is room for them: memory is bounded by `max_concurrent`, not by their number. A caller who stops
        early cancels what is under way. `budget_usd` is a hard cap on what these calls spend together; what
        does not fit is not sent.

        Raises what `tasks` raises, after the results of what was under way by then.
        """
        if budget_usd is not None:
            call_options["budget"] = Budget(budget_usd)

        def run(agent_name: str, task: str) -> Awaitable[AgentResult]:
            return self.execute_agent(agent_name, task, **call_options)

        return stream(tasks, run, _UNDER_WAY_PER_SLOT * self.max_concurrent, in_order)

    async def execute_workflow(
        self,
        workflow_name: str,
        task: str,
        pass_output_to_next: bool = True,
        on_result: Optional[OnResult] = None,
        **call_options: Any,
    ) -> List[AgentResult]:
        """Runs a workflow's agents one after the other, up to the first that fails.

        With `pass_output_to_next`, each agent is given the task and what the one before it answered.

        Raises:
            InputError: the workflow, one of its agents or the task can't be run; nothing was sent.
        """
        agents = sequence(workflow_name, self._registry.workflow(workflow_name))
        for name in agents:
            self._registry.get(name)
        check_task(task)
        results: List[AgentResult] = []
        given = task
        for position, name in enumerate(agents, start=1):
            result = await self._step(name, given, workflow_name, position, call_options)
            results.append(result)
            if on_result is not None:
                on_result(position - 1, result)
            if not result.success:
                break
            given = hand_over(task, name, result.output) if pass_output_to_next else task
        return results

    async def _step(
        self, name: str, task: str, workflow_name: str, position: int, call_options: Dict[str, Any]
    ) -> AgentResult:
        try:
            return await self.execute_agent(
                name, task, workflow_name=workflow_name, workflow_position=position, **call_options
            )
        except InputError as error:
            # An answer can make the next task too long: by then earlier steps are paid for.
            return failed(Run(name, workflow_name, position), error, None, 0.0)

    async def explain_miss(
        self,
        agent_name: str,
        task: str,
        model: Optional[str] = None,
        max_tokens: int = settings.MAX_TOKENS,
        temperature: Optional[float] = None,
        **options: Any,
    ) -> Dict[str, Any]:
        """Why the same call would be a hit or a miss; as `ResponseCache.explain_miss`. Sends nothing."""
        if temperature is not None:
            options["temperature"] = temperature
        call = self._prepare(agent_name, task, model, max_tokens, options)
        return await self._asking.explain_miss(call, self._kept())

    def list_agents(self) -> List[Dict[str, Any]]:
        """Each agent's `name`, `file`, `domains` and `priority`, by priority."""
        return self._registry.list_agents()

    def list_workflows(self) -> Dict[str, Any]:
        """The workflows of claude.json by name, as they are written there."""
        return self._registry.list_workflows()

    def get_agent_info(self, agent_name: str) -> Dict[str, Any]:
        """`name`, `file`, `contract`, `domains`, `priority`, `description`. Raises AgentNotFoundError."""
        return self._registry.get_agent_info(agent_name)

    async def check_credentials(self) -> None:
        """Raises AuthenticationError where the SDK finds no credentials. Sends nothing."""
        await self._caller.check_credentials(self._how())

    async def close(self) -> None:
        """Ends calls in flight and closes all connections; the next call opens new ones."""
        await self._caller.close()
        await self._asking.close()

    async def __aenter__(self) -> AsyncAgentOrchestrator:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()


def _system(agent: Agent) -> Tuple[str, ...]:
    return (agent.definition,) if not agent.contract else (agent.definition, agent.contract)


def _log(result: AgentResult) -> None:
    level = logging.INFO if result.success else logging.ERROR
    what = "answered" if result.success else f"failed: {result.error}"
    logger.log(
        level,
        "%s %s",
        result.agent_name,
        what,
        extra={
            "agent": result.agent_name,
            "model": result.model,
            "success": result.success,
            "attempts": result.attempts,
            "duration_seconds": result.duration,
            "total_tokens": result.usage.total_tokens,
            "cost_usd": result.cost,
            "request_id": result.request_id,
            "error_type": type(result.error).__name__ if result.error else None,
        },
    )
