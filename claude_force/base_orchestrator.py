"""A call, told from top to bottom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar, Union

from anyio import move_on_after, to_thread

from . import settings
from .agents import CallRefusals, Registry, check_context, prepare_call
from .cache.request_key import USE, Service, check_policy, request_key, service
from .clock import Clock
from .engine.call_sender import CallSender
from .engine.connection_pool import CallerSettings, LoopBoundPool
from .engine.estimate import Estimate, Estimator
from .engine.executor import CacheConfig, CachingExecutor, CallBackend
from .engine.result_builder import CallLabels, Observer, ResultBuilder, log_result, notify
from .errors import CallError
from .inquiries import Inquiries
from .limits.admission import Load
from .limits.budget import Budget, Prices, price_by
from .limits.call_context import DEFAULT_CONTEXT, CallContext, Session
from .limits.rate_limiter import Rates
from .options import (
    MaxConcurrent,
    check_cache_ttl,
    check_limits,
    check_max_tokens,
    check_options,
    check_rates,
)
from .response_cache import ResponseCache
from .types import AgentResult, Call, CallCompleted, Reply

E = TypeVar("E", bound="Engine")

# How long `close` waits for calls that it can't end itself, those that workers have.
_FAREWELL_SECONDS = 2.0


class Engine(Inquiries):
    """Runs single calls over one pool of connections. Its attributes: see `AsyncAgentOrchestrator`."""

    api_key: Optional[str]
    base_url: Optional[str]
    max_concurrent: MaxConcurrent
    max_retries: int
    timeout_seconds: Optional[float]
    quiet_seconds: float
    deadline_seconds: Optional[float]
    stream: bool
    observers: List[Observer]
    enable_tracking: bool
    enable_memory: bool
    enable_cache: bool
    response_cache: Optional[ResponseCache]
    cache_ttl_hours: float
    cache_max_size_mb: float
    prices: Optional[Prices]
    rpm: Optional[float]
    input_tpm: Optional[float]
    output_tpm: Optional[float]
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
        quiet_seconds: float = settings.QUIET_SECONDS,
        stream: bool = True,
        observers: Sequence[Observer] = (),
        durable: Optional[str] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        """Raises InvalidOptionError for a senseless limit, ConfigurationError for a missing file."""
        self.config_path, self.api_key, self.base_url = config_path, api_key, base_url
        self.max_concurrent, self.max_retries = max_concurrent, max_retries
        self.timeout_seconds, self.quiet_seconds = timeout_seconds, quiet_seconds
        self.deadline_seconds, self.stream, self.observers = deadline_seconds, stream, list(observers)
        self.enable_tracking, self.enable_memory = enable_tracking, enable_memory
        self.enable_cache, self.response_cache = enable_cache, response_cache
        self.cache_ttl_hours, self.cache_max_size_mb = cache_ttl_hours, cache_max_size_mb
        self.prices, self.budget_usd = prices, budget_usd
        self.rpm, self.input_tpm, self.output_tpm = rpm, input_tpm, output_tpm
        self._how()
        self._clock, self._session = clock or Clock(), Session()
        self._caller, self._asking = LoopBoundPool(self._clock), self._door(durable)

    def _door(self, durable: Optional[str]) -> CallBackend:
        """Where calls get their answers. Raises InvalidOptionError, DatabaseError without the extra."""
        if durable is None:
            return CachingExecutor(self._connect, self._clock)
        # Not above: it needs the extra.
        from .durable import open_backend

        return open_backend(durable, self._connect, self._how, self._clock)

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
        max_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        workflow_name: Optional[str] = None,
        workflow_position: Optional[int] = None,
        use_memory: bool = True,
        *,
        cache: str = USE,
        cache_ttl: str = "5m",
        context: CallContext = DEFAULT_CONTEXT,
        **options: Any,
    ) -> AgentResult:
        """Runs one agent on one task.

        Args:
            model: an alias or a full id; None for what the agent's file, else the environment, asks for.
            max_tokens: the longest answer, in tokens; None for what the agent's file says, else 4,096, or
                16,384 for a model that thinks. A `temperature` of None is the file's too.
            use_memory: accepted for callers of claude-force 1.x, and does nothing: agents have no memory.
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
        call = self._call_of(context, agent_name, task, model, max_tokens, temperature, cache_ttl, **options)
        if self._budget is not None:
            context = replace(context, budgets=(self._budget, *context.budgets))
        return await self._carry_out(
            call, CallLabels(agent_name, workflow_name, workflow_position), cache, context
        )

    def _call_of(self, context: CallContext, *arguments: Any, **options: Any) -> Call:
        call = self._prepare(*arguments, **{**options, "is_composed": context.is_composed})
        if context.is_composed:
            check_context(call)
        return call

    def _prepare(
        self,
        agent_name: str,
        task: str,
        model: Optional[str] = None,
        max_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        cache_ttl: str = "5m",
        use_memory: bool = True,
        is_composed: bool = False,
        **options: Any,
    ) -> Call:
        if max_tokens is not None:
            check_max_tokens(max_tokens)
        check_cache_ttl(cache_ttl)
        check_options(options if temperature is None else {**options, "temperature": temperature})
        return prepare_call(
            *(self._registry, agent_name, task, model, max_tokens, temperature, cache_ttl, is_composed),
            **options,
        )

    def model_of(self, agent_name: str, model: Optional[str] = None) -> str:
        """The id of the model that a call of this agent asks. Raises InputError."""
        return self._prepare(agent_name, "x", model).model

    def refusals(self) -> CallRefusals:
        """Tells which calls can't be made, as the agents' files are now. Raises ConfigurationError."""
        return CallRefusals(self._registry)

    async def _carry_out(self, call: Call, run: CallLabels, policy: str, context: CallContext) -> AgentResult:
        account = ResultBuilder(call, run, self._clock, context.call_cost)
        session = context.session or self._session
        context = replace(context, call_cost=account.call_cost, session=session)
        try:
            context.check_open(call.model)
            with session:
                reply = await self._asking.answer(call, policy, self._kept(), self.deadline_seconds, context)
        except CallError as error:
            return self._told(account.failed(error))
        except asyncio.CancelledError:
            cancelled = account.cancelled()
            if cancelled is not None:
                self._told(cancelled)
            raise
        return self._told(account.succeeded(self._valued(call, reply)))

    def _valued(self, call: Call, reply: Reply) -> Reply:
        """A kept answer saves what it would cost at the caller's own price, where there is one."""
        if not (reply.cached and self.prices):
            return reply
        own = price_by(self.prices, lambda *_: None)(call.model, reply.usage, call.options, reply.model)
        return reply if own is None else replace(reply, saved_cost=own)

    def _told(self, executed: CallCompleted) -> AgentResult:
        log_result(executed.result)
        notify((self.tracker.record, *self.observers) if self.enable_tracking else self.observers, executed)
        return executed.result

    def _agents(self) -> Registry:
        return self._registry

    def _kept(self) -> CacheConfig:
        return CacheConfig(
            self.enable_cache,
            self.cache_ttl_hours,
            self.cache_max_size_mb,
            self.response_cache,
            self._service(),
        )

    def _service(self) -> Service:
        """Who answers, by the environment as it is now."""
        return service(self.api_key, self.base_url)

    async def _connect(self, model: str) -> CallSender:
        return await self._caller.sender(self._how(), model)

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
            self.quiet_seconds,
            # The environment may name another one by now: its connections would be those of the old one.
            self._service(),
        )
        # Attributes are set seldom and looked at in every call.
        if self._settings is None or self._settings[0] != (given, self.deadline_seconds):
            check_limits(
                self.max_concurrent,
                self.timeout_seconds,
                self.max_retries,
                self.deadline_seconds,
                self.quiet_seconds,
            )
            check_rates(rpm=self.rpm, input_tpm=self.input_tpm, output_tpm=self.output_tpm)
            self._settings = (given, self.deadline_seconds), CallerSettings(*given)
        return self._settings[1]

    def _question(
        self,
        agent_name: str,
        task: str,
        cache: str = USE,
        context: CallContext = DEFAULT_CONTEXT,
        **options: Any,
    ) -> Optional[bytes]:
        """Equal for calls that ask the same, wherever; None where that can't be told. Raises InputError."""
        found = request_key(self._prepare(agent_name, task, **options), ())
        return None if found is None else found.digest()

    async def _estimated(
        self, tasks: AsyncIterator[Any], prepare: Callable[[Any], Call], cache: str
    ) -> Estimate:
        price = await to_thread.run_sync(self._caller.price, self._how())
        estimator = Estimator(self._caller.forecast, price)

        async def is_kept(call: Call) -> bool:
            again = estimator.repeats(self._asking.identity(call, self._kept()))
            return cache == USE and (again or await self._asking.has(call, self._kept()))

        return await estimator.estimate(tasks, prepare, is_kept)

    def load(self) -> Optional[Load]:
        """What is on the wire of the running loop, and the known limits; None before its first call."""
        return self._caller.load()

    async def drain(self, seconds: float) -> None:
        """Sends nothing new, and waits for what is on the wire, at most so long; then `close`."""
        await self._caller.drain(seconds)
        await self._asking.drain(seconds)

    async def explain_miss(
        self,
        agent_name: str,
        task: str,
        model: Optional[str] = None,
        max_tokens: Optional[int] = None,
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
        """Ends calls in flight and runs that are under way, closes all connections and files.

        What such a run has not sent yet is a ClosedError; the next call opens new ones.
        """
        ended, self._session = self._session, Session()
        ended.closed = True
        await self._caller.close()
        # What they still have to write would open the files again.
        with move_on_after(_FAREWELL_SECONDS):
            await ended.wait_until_idle()
        # One of them may have been about to open connections.
        await self._caller.close()
        await self._asking.close()
        await to_thread.run_sync(self.close_ledger)

    def close_door(self) -> None:
        """What is left of `close` when the event loop is gone."""
        self._asking.shut()

    async def __aenter__(self: E) -> E:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
