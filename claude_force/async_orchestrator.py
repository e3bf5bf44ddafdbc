"""AsyncAgentOrchestrator: a call, told from top to bottom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, AsyncGenerator, Awaitable, Dict, List, Optional, Sequence, Sized, Tuple, Union

from anyio import to_thread

from . import settings
from .account import Account
from .agents import Registry, check_task, prepare_call
from .asking import Asking, Keeping
from .bulk import OnEvent, OnResult, Tasks, Tracker, each, most_under_way, pair, stream
from .cache.asked import USE, check_policy
from .calling import (
    ORDINARY,
    Budget,
    Caller,
    CallerSettings,
    Clock,
    Load,
    MaxConcurrent,
    Prices,
    Rates,
    Terms,
    Watch,
    check_cache_ttl,
    check_limits,
    check_max_tokens,
    check_rates,
)
from .errors import CallError
from .estimate import Estimate, Estimator
from .inquiries import Inquiries
from .response_cache import ResponseCache
from .results import Observer, Run, log_result, tell
from .types import AgentResult, AsyncAgentResult, Call, Executed, Reply
from .workflow import run_in_turn, sequence

__all__ = ["AsyncAgentOrchestrator", "AsyncAgentResult"]


class AsyncAgentOrchestrator(Inquiries):
    """Runs agents concurrently over one pool of connections.

    The attributes below can be set at any time; they hold from the next call.

    Attributes:
        config_path: a claude.json, a .claude folder or a project; None for the one found by walking up.
        api_key: None for the credentials that the SDK finds.
        max_concurrent: attempts on the wire at one time; "auto" finds out how many the server takes.
        rpm, input_tpm, output_tpm: requests and tokens a minute that are never exceeded; None for those that
            the server's headers tell of, which hold in any case.
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
        enable_tracking: whether each execution gets its line in the ledger, `.claude/metrics/`.
        observers: called with a `claude_force.types.Executed` at the end of each call.

    `enable_memory` is accepted for older callers and does nothing.
    """

    _settings: Optional[Tuple[Any, CallerSettings]] = None

    def __init__(
        self,
        config_path: Union[str, Path, None] = None,
        api_key: Optional[str] = None,
        max_concurrent: MaxConcurrent = settings.MAX_CONCURRENT,
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
        rpm: Optional[float] = None,
        input_tpm: Optional[float] = None,
        output_tpm: Optional[float] = None,
        base_url: Optional[str] = None,
        deadline_seconds: Optional[float] = None,
        stream: bool = True,
        observers: Sequence[Observer] = (),
        clock: Optional[Clock] = None,
    ) -> None:
        """Raises InvalidOptionError for a senseless limit, ConfigurationError for a missing file."""
        self.config_path = config_path
        self.api_key, self.base_url = api_key, base_url
        self.max_concurrent, self.max_retries = max_concurrent, max_retries
        self.timeout_seconds, self.deadline_seconds = timeout_seconds, deadline_seconds
        self.stream, self.observers = stream, list(observers)
        self.enable_tracking, self.enable_memory = enable_tracking, enable_memory
        self.enable_cache, self.response_cache = enable_cache, response_cache
        self.cache_ttl_hours, self.cache_max_size_mb = cache_ttl_hours, cache_max_size_mb
        self.prices, self.budget_usd = prices, budget_usd
        self.rpm, self.input_tpm, self.output_tpm = rpm, input_tpm, output_tpm
        self._how()
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
        cache_ttl: str = "5m",
        terms: Terms = ORDINARY,
        **options: Any,
    ) -> AgentResult:
        """Runs one agent on one task.

        Args:
            model: an alias or a full id; None for what the agent's file, else the environment, asks for.
            max_tokens: the longest answer, in tokens.
            cache: `use` a kept answer, `refresh` it with a new one, or `off`: a request of its own, neither
                kept nor shared with identical calls that are under way.
            cache_ttl: how long the API's prompt cache keeps the system prompt after each use, "5m" or "1h".
            terms: budgets that this call shares with others, beside the orchestrator's, and who watches it.
            options: further fields of the Messages API, such as `stop_sequences` or `thinking`.

        Returns:
            A result, also for a call that failed: its `error` says why.

        Raises:
            InputError: a ValueError, before anything is sent.
        """
        check_policy(cache)
        call = self._prepare(agent_name, task, model, max_tokens, temperature, cache_ttl, **options)
        if self._budget is not None:
            terms = replace(terms, budgets=(self._budget, *terms.budgets))
        return await self._carry_out(call, Run(agent_name, workflow_name, workflow_position), cache, terms)

    def _prepare(
        self,
        agent_name: str,
        task: str,
        model: Optional[str],
        max_tokens: int,
        temperature: Optional[float] = None,
        cache_ttl: str = "5m",
        **options: Any,
    ) -> Call:
        check_max_tokens(max_tokens)
        check_cache_ttl(cache_ttl)
        return prepare_call(
            self._registry, agent_name, task, model, max_tokens, temperature, cache_ttl, **options
        )

    async def _carry_out(self, call: Call, run: Run, policy: str, terms: Terms) -> AgentResult:
        account = Account(call, run, self._clock)
        terms = replace(terms, bill=account.bill)
        try:
            reply = await self._asking.answer(call, policy, self._kept(), self.deadline_seconds, terms)
        except CallError as error:
            return self._told(account.failed(error))
        except asyncio.CancelledError:
            if account.bill.timeline:
                self._told(account.cancelled())
            raise
        return self._told(account.succeeded(reply))

    def _told(self, executed: Executed) -> AgentResult:
        log_result(executed.result)
        tell((self.tracker.record, *self.observers) if self.enable_tracking else self.observers, executed)
        return executed.result

    def _agents(self) -> Registry:
        return self._registry

    def _kept(self) -> Keeping:
        return Keeping(
            self.enable_cache,
            self.cache_ttl_hours,
            self.cache_max_size_mb,
            self.response_cache,
            self.base_url,
        )

    async def _send(self, call: Call, left: Optional[float], terms: Terms) -> Reply:
        return await self._caller.send(call, self._how(), left, terms)

    def _how(self) -> CallerSettings:
        given = (
            self.api_key,
            self.base_url,
            self.max_concurrent,
            self.timeout_seconds,
            self.max_retries,
            self.stream,
            self.prices or {},
            Rates(self.rpm, self.input_tpm, self.output_tpm),
        )
        # Attributes are set seldom and looked at in every call.
        if self._settings is None or self._settings[0] != (given, self.deadline_seconds):
            check_limits(self.max_concurrent, self.timeout_seconds, self.max_retries, self.deadline_seconds)
            check_rates(rpm=self.rpm, input_tpm=self.input_tpm, output_tpm=self.output_tpm)
            self._settings = (given, self.deadline_seconds), CallerSettings(*given)
        return self._settings[1]

    async def execute_multiple(
        self,
        tasks: Tasks,
        on_result: Optional[OnResult] = None,
        **options: Any,
    ) -> List[AgentResult]:
        """Runs `(agent_name, task)` pairs concurrently.

        Args:
            on_result: called as `on_result(index, result)` as each task ends, in the order of ending;
                what was handed over stays with the caller when the run is cancelled.
            options: as of `stream_multiple`.

        Returns:
            One result for each task, in the order of the tasks, whatever failed.
        """
        results: Dict[int, AgentResult] = {}
        async for result in self.stream_multiple(tasks, **options):
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
        *,
        on_event: Optional[OnEvent] = None,
        total: Optional[int] = None,
        first_of_many: bool = True,
        **call_options: Any,
    ) -> AsyncGenerator[AgentResult, None]:
        """Runs `(agent_name, task)` pairs from any iterable or async iterable, without end if need be.

        Results come as they end, or `in_order`; each has the `index` of its task. Tasks are taken as there
        is room for them: memory is bounded by `max_concurrent`, not by their number. A caller who stops
        early cancels what is under way.

        Args:
            budget_usd: a hard cap on what these calls spend together; what does not fit is not sent.
            on_event: called with each `claude_force.bulk.Event`.
            total: the number of tasks, where `tasks` has no length; for the time that is left.
            first_of_many: of tasks that share a system prompt large enough for the API's prompt cache, one
                goes first, and the others, which wait for its answer to begin, read what it wrote.
            call_options: as of `execute_agent`, the same for every task.

        Raises what `tasks` raises, after the results of what was under way by then.
        """
        budgets = (Budget(budget_usd),) if budget_usd is not None else ()
        total = len(tasks) if total is None and isinstance(tasks, Sized) else total
        tracker = Tracker(on_event, total, self._clock.now) if on_event else None

        def run(agent_name: str, task: str, watch: Watch) -> Awaitable[AgentResult]:
            terms = Terms(budgets, watch, first_of_many)
            return self.execute_agent(agent_name, task, terms=terms, **call_options)

        return stream(tasks, run, most_under_way(self._how().ceiling), in_order, tracker)

    async def estimate(
        self,
        tasks: Tasks,
        model: Optional[str] = None,
        max_tokens: int = settings.MAX_TOKENS,
        cache: str = USE,
        cache_ttl: str = "5m",
        **options: Any,
    ) -> Estimate:
        """What `(agent_name, task)` pairs would use and cost, with a range. Sends nothing."""
        price = await to_thread.run_sync(self._caller.price, self._how())
        estimator = Estimator(self._caller.forecast, price)

        def prepare(task: Any) -> Call:
            agent_name, text = pair(estimator.rows, task)
            return self._prepare(agent_name, text, model, max_tokens, cache_ttl=cache_ttl, **options)

        async def is_kept(call: Call) -> bool:
            again = estimator.repeats(self._asking.identity(call, self._kept()))
            return cache == USE and (again or await self._asking.has(call, self._kept()))

        return await estimator.estimate(each(tasks), prepare, is_kept)

    def load(self) -> Optional[Load]:
        """What is on the wire of the running loop, and the known limits; None before its first call."""
        return self._caller.load()

    async def drain(self, seconds: float) -> None:
        """Sends nothing new, and waits for what is on the wire, at most so long; then `close`."""
        await self._caller.drain(seconds)

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

        def run(name: str, given: str, position: int) -> Awaitable[AgentResult]:
            return self.execute_agent(
                name, given, workflow_name=workflow_name, workflow_position=position, **call_options
            )

        results: List[AgentResult] = []
        async for result in run_in_turn(workflow_name, agents, task, pass_output_to_next, run):
            results.append(result)
            if on_result is not None:
                on_result(len(results) - 1, result)
        return results

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
        call = self._prepare(agent_name, task, model, max_tokens, temperature, **options)
        return await self._asking.explain_miss(call, self._kept())

    async def check_credentials(self) -> None:
        """Raises AuthenticationError where the SDK finds no credentials. Sends nothing."""
        await self._caller.check_credentials(self._how())

    async def close(self) -> None:
        """Ends calls in flight, closes all connections and files; the next call opens new ones."""
        await self._caller.close()
        await self._asking.close()
        await to_thread.run_sync(self.close_ledger)

    async def __aenter__(self) -> AsyncAgentOrchestrator:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
