"""Runs calls: prepares each one, has it answered, and records its result."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Dict,
    Mapping,
    Optional,
    Sized,
    Union,
)

from anyio import move_on_after, to_thread

from .agents import Registry, prepare_call
from .bulk import OnEvent, ProgressTracker, RunOne, Tasks, stream_results, task_limit
from .cache.request_key import USE, check_policy
from .engine.backend import CallBackend
from .engine.call_sender import CallSender
from .engine.call_settings import CallSettings, settings_now
from .engine.estimate import Estimate, Estimator
from .engine.executor import CachingExecutor
from .engine.result_builder import CallLabels, ResultBuilder, failed, log_result, notify
from .engine.sender_pool import SenderPool
from .errors import CallError, CancelledCallError, ConfigurationError, InputError, InvalidOptionError
from .limits.budget import Budget
from .limits.call_context import DEFAULT_CONTEXT, CallContext, CallListener, Session
from .limits.call_cost import CallCost
from .limits.prices import Prices, price_lookup
from .limits.run_gate import RunGate
from .options import Options, check_call_options, priced_options
from .performance_tracker import PerformanceTracker
from .settings import NO_TOOLS, TOOL_OPTIONS
from .types import AgentResult, Call, CallCompleted, Clock, Reply, fast_replace

if TYPE_CHECKING:
    from .engine.tool_loop import Offered
    from .tool_options import ToolOptions
    from .tool_runs import ToolRuns

logger = logging.getLogger(__name__)

# How long `close` waits for calls that it can't end itself: those that workers make.
_CLOSE_SECONDS = 2.0
_NO_OPTIONS: Mapping[str, Any] = {}
_NOT_DURABLE = (
    "Tools don't run in durable calls, which outlive this process: leave out `durable`, or grant no tools. "
    "Without `durable`, answers are cached, and what was paid for is found again."
)


class CallRunner:
    """Runs calls, each with the options that hold when it begins.

        calls = CallRunner(Options(max_concurrent=20))
        call = calls.prepare("python-expert", "Explain decorators")
        result = await calls.run(call, CallLabels(call.agent_name))

    Attributes:
        registry: finds the agents and workflows of the project.
        backend: answers calls: from the cache, over the pool, or in durable workers.
        pool: opens the connections of each event loop.
        tracker: records the calls of the project.
        session: ends with `close`, and the calls that began in it with it.
    """

    def __init__(self, options: Options) -> None:
        """Raises InvalidOptionError, ConfigurationError for a missing file, DatabaseError."""
        self.clock = options.clock or Clock()
        self.session = Session()
        self.registry = Registry(options.config_path)
        self.budget: Optional[Budget] = None
        self.pool = SenderPool(self.clock)
        self._last: Optional[CallSettings] = None
        self._tool_runs: Optional[ToolRuns] = None
        # The agents that ran without a grant, and whether they declare tools.
        self._without_grant: Dict[str, bool] = {}
        self._tracker: Optional[PerformanceTracker] = None
        self.configure(options, "budget_usd")
        self.backend = self._backend(options.durable)

    def _backend(self, durable: Optional[str]) -> CallBackend:
        if durable is None:
            return CachingExecutor(self._connect, self.clock)
        from .durable import open_backend

        return open_backend(durable, self._connect, self.clock)

    def configure(self, options: Options, changed: str) -> None:
        """Uses these options from the next call on; `changed` names the option that was set."""
        if changed == "config_path":
            self.registry = Registry(options.config_path)
        if changed == "budget_usd":
            self.budget = None if options.budget_usd is None else Budget(options.budget_usd)
        self.options = options

    def _settings(self) -> CallSettings:
        self._last = settings = settings_now(self.options, self._last)
        return settings

    @property
    def room(self) -> int:
        """How many calls of one run may be unfinished at a time."""
        return self.backend.max_in_flight or task_limit(self._settings().ceiling)

    @property
    def tracker(self) -> PerformanceTracker:
        """The ledger of the project that is configured now."""
        folder = self.registry.ledger_folder
        if self._tracker is None or self._tracker.folder != folder:
            before, self._tracker = self._tracker, PerformanceTracker(folder)
            if before is not None:
                before.close()
        return self._tracker

    def prepare(self, agent_name: str, task: str, is_composed: bool = False, **options: Any) -> Call:
        """Builds a call; `options` are those of `AsyncAgentOrchestrator.execute_agent`. Raises InputError.

        `is_composed`: a workflow has put the task together, and checks its length.
        """
        # Callers of claude-force 1.x give it; agents have no memory.
        options.pop("use_memory", None)
        options.pop("call_budget_usd", None)
        if not TOOL_OPTIONS.isdisjoint(options):
            from .tool_options import without_tool_options

            options = without_tool_options(options)
        options = priced_options(options)
        check_call_options(options)
        return prepare_call(self.registry, agent_name, task, is_composed=is_composed, **options)

    def execute(
        self,
        context: CallContext,
        agent_name: str,
        task: str,
        *,
        workflow_name: Optional[str] = None,
        workflow_position: Optional[int] = None,
        cache: str = USE,
        call_budget_usd: Optional[float] = None,
        **options: Any,
    ) -> Coroutine[Any, Any, AgentResult]:
        """Prepares a call and returns the coroutine that runs it. Raises InputError at once."""
        check_policy(cache)
        call = self.prepare(agent_name, task, False, **options)
        labels = CallLabels(agent_name, workflow_name, workflow_position)
        if call_budget_usd is not None:
            context = fast_replace(context, budgets=(*context.budgets, Budget(call_budget_usd, True)))
        return self.run(call, labels, cache, context, self.tool_options(call.agent_name, options))

    async def execute_watched(
        self, on_event: OnEvent, agent_name: str, task: str, options: Mapping[str, Any]
    ) -> AgentResult:
        """Runs one call as the only row of a run, which tells its events. Raises InputError."""
        listener = ProgressTracker(on_event, 1, self.clock.now).row(0, agent_name)
        result = await self.execute(CallContext(listener=listener), agent_name, task, **options)
        listener.finished(result)
        return result

    def tool_options(self, agent_name: str, given: Mapping[str, Any]) -> Optional[ToolOptions]:
        """Returns what a call's options grant; None where it is no tool. Raises InvalidOptionError."""
        if self.options.tools == NO_TOOLS and TOOL_OPTIONS.isdisjoint(given):
            if agent_name not in self._without_grant:
                self._note_without_grant(agent_name)
            return None
        from .tool_options import read_tool_options

        return read_tool_options(given, self.options)

    def _note_without_grant(self, agent_name: str) -> None:
        """Says once that agents which declare tools run without them."""
        declared = self.registry.get(agent_name).settings.tools
        if declared and not any(self._without_grant.values()):
            from .tools.grant import ungranted_notice

            logger.warning("%s", ungranted_notice(agent_name, declared))
        self._without_grant[agent_name] = bool(declared)

    async def run(
        self,
        call: Call,
        labels: CallLabels,
        cache_policy: str = USE,
        context: CallContext = DEFAULT_CONTEXT,
        tools: Optional[ToolOptions] = None,
    ) -> AgentResult:
        """Runs a prepared call with the options of this moment; a failed call has a result too.

        Raises InputError for a call that can't be sent.
        """
        if tools is not None:
            return await self._run_with_tools(call, labels, cache_policy, context, tools)
        builder = ResultBuilder(call, labels, self.clock, context.call_cost)
        context = self._begun(context, builder.call_cost)
        settings: CallSettings = context.settings
        options = settings.options
        try:
            context.check_open(call.model)
            with context.session or self.session:
                reply = await self.backend.execute(
                    call, cache_policy, settings, options.deadline_seconds, context
                )
        except CallError as error:
            return self._record(builder.failed(error), options)
        except BaseException:
            # Cancelled, or ended by what a callback raised. What was sent may be billed.
            cancelled = builder.cancelled()
            if cancelled is not None:
                self._record(cancelled, options)
            raise
        return self._record(builder.succeeded(_with_saved_cost(call, reply, options.prices)), options)

    def _begun(self, context: CallContext, call_cost: CallCost) -> CallContext:
        """The context of a call that begins now."""
        return fast_replace(
            context,
            call_cost=call_cost,
            session=context.session or self.session,
            settings=self._settings(),
            budgets=context.budgets if self.budget is None else (self.budget, *context.budgets),
        )

    async def _run_with_tools(
        self,
        call: Call,
        labels: CallLabels,
        cache_policy: str,
        context: CallContext,
        tools: ToolOptions,
    ) -> AgentResult:
        if self.options.durable is not None:
            raise InvalidOptionError(_NOT_DURABLE)
        agent = self.registry.get(call.agent_name)
        opened = await self.tool_runs.open(agent, tools, self.registry.project, context.run_gate)
        if opened is None:
            return await self.run(call, labels, cache_policy, context)
        from .engine.tool_loop import LoopSettings, ToolLoop
        from .tool_runs import bounds_of

        context = self._begun(context, context.call_cost or CallCost())
        options: Options = context.settings.options
        loop_settings = LoopSettings(
            bounds_of(agent, tools), cache_policy, options.deadline_seconds, self.pool.price(context.settings)
        )
        record_turn = self.tracker.record if options.enable_tracking else _ignore
        loop = ToolLoop(call, labels, opened, loop_settings, self._execute, context, self.clock, record_turn)
        with context.session or self.session:
            return await self.tool_runs.run(loop, opened, partial(self._record, options=options))

    @property
    def tool_runs(self) -> ToolRuns:
        """The runs of agents with tools that are in flight."""
        if self._tool_runs is None:
            # A call without tools loads none of it.
            from .tool_runs import ToolRuns

            self._tool_runs = ToolRuns()
        return self._tool_runs

    async def _execute(
        self, call: Call, cache_policy: str, deadline_seconds: Optional[float], context: CallContext
    ) -> Reply:
        """Executes one turn of an agent with tools."""
        settings: CallSettings = context.settings
        reply = await self.backend.execute(call, cache_policy, settings, deadline_seconds, context)
        return _with_saved_cost(call, reply, settings.options.prices)

    def _record(self, completed: CallCompleted, options: Options) -> AgentResult:
        log_result(completed.result)
        observers = options.observers
        notify((self.tracker.record, *observers) if options.enable_tracking else observers, completed)
        return completed.result

    def stream(
        self,
        tasks: Tasks,
        run_gate: RunGate,
        options: Mapping[str, Any],
        on_event: Optional[OnEvent] = None,
        total: Optional[int] = None,
        run_id: Optional[str] = None,
        row_id: Callable[[int], str] = str,
        in_order: bool = False,
        budget_usd: Optional[float] = None,
        first_of_many: bool = True,
    ) -> AsyncGenerator[AgentResult, None]:
        """As `AsyncAgentOrchestrator.stream_multiple`; `run_gate` can end the run from outside.

        `row_id` returns the name of a task, given its index. A resumed run has fewer tasks, under the same
        names.
        """
        if "in_place" in options:
            from .tool_options import refuse_in_place

            refuse_in_place(options)
        total = len(tasks) if total is None and isinstance(tasks, Sized) else total
        tracker = ProgressTracker(on_event, total, self.clock.now) if on_event else None
        budgets = () if budget_usd is None else (Budget(budget_usd),)
        context = CallContext(budgets, first_of_many=first_of_many, session=self.session, run_gate=run_gate)
        run_row = self._row_runner(context, run_gate, self.backend.run_id(run_id), row_id, options)
        return stream_results(tasks, run_row, self.room, in_order, tracker)

    def _row_runner(
        self,
        context: CallContext,
        run_gate: RunGate,
        run_id: Optional[str],
        row_id: Callable[[int], str],
        options: Mapping[str, Any],
    ) -> RunOne:
        """Returns what runs a row of one bulk run. A row that can't be sent any more has a failed result."""
        cancelled = False

        async def run(index: int, agent_name: str, task: str, listener: CallListener) -> AgentResult:
            nonlocal cancelled
            if cancelled:
                # Another command has cancelled the run.
                return failed(CallLabels(agent_name), CancelledCallError("The run was cancelled"), None, 0.0)
            call_id = f"{run_id}:{row_id(index)}" if run_id else None
            try:
                run_gate.check()
                row_context = fast_replace(context, listener=listener, call_id=call_id)
                result = await self.execute(row_context, agent_name, task, **options)
            except CallError as error:
                return failed(CallLabels(agent_name), error, None, 0.0)
            except ConfigurationError as error:
                run_gate.shut_if_fatal(error)
                raise
            cancelled |= isinstance(result.error, CancelledCallError)
            return result

        return run

    def _connect(self, model: str, context: CallContext) -> Awaitable[CallSender]:
        return self.pool.sender(context.settings, model)

    async def offered(self, agent_name: str, tools: Optional[ToolOptions]) -> Optional[Offered]:
        """Returns what requests have of the tools that an agent is offered, if any. Raises InputError."""
        if tools is None:
            return None
        return await self.tool_runs.offered(self.registry.get(agent_name), tools, self.registry.project)

    async def estimate(
        self,
        tasks: AsyncIterator[Any],
        prepare: Callable[[Any], Call],
        cache: str,
        options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> Estimate:
        """Returns what tasks would use and cost; `prepare` builds the call of one or raises InputError.

        `options` are those of the calls. Of an agent that uses tools, the first request is counted.
        """
        if self.options.tools != NO_TOOLS or not TOOL_OPTIONS.isdisjoint(options):
            tasks, prepare = self._first_requests(tasks, prepare, options), _or_raise
        settings = self._settings()
        price = await to_thread.run_sync(self.pool.price, settings)
        estimator = Estimator(self.pool.token_estimator, price)

        async def is_cached(call: Call) -> bool:
            repeats = estimator.is_repeated(self.backend.cache_key(call, settings))
            return cache == USE and (repeats or await self.backend.is_cached(call, settings))

        return await estimator.estimate(tasks, prepare, is_cached)

    async def _first_requests(
        self, tasks: AsyncIterator[Any], prepare: Callable[[Any], Call], options: Mapping[str, Any]
    ) -> AsyncIterator[Union[Call, InputError]]:
        offered: Dict[str, Optional[Offered]] = {}
        async for task in tasks:
            try:
                call = prepare(task)
                name = call.agent_name
                if name not in offered:
                    offered[name] = await self.offered(name, self.tool_options(name, options))
                yield first_request(call, offered[name])
            except InputError as error:
                yield error

    async def explain_miss(self, call: Call) -> Dict[str, Any]:
        """Returns why the call would be a hit or a miss, as `ResponseCache.explain_miss` does."""
        return await self.backend.explain_miss(call, self._settings())

    async def check_credentials(self) -> None:
        """Raises AuthenticationError."""
        sender = await self.pool.sender(self._settings())
        await sender.check_credentials()

    async def drain(self, seconds: float) -> None:
        """Sends nothing new, and waits up to `seconds` for what is in flight."""
        await self.pool.drain(seconds)
        await self.backend.drain(seconds)

    async def close(self) -> None:
        """Ends calls in flight and closes connections and files; the next call opens new ones."""
        ended, self.session = self.session, Session()
        ended.closed = True
        await self.pool.close()
        if self._tool_runs is not None:
            # Those whose tools are running; the others have ended with their requests.
            self._tool_runs.close()
        # What they still have to write would open the files again.
        with move_on_after(_CLOSE_SECONDS):
            await ended.wait_until_idle()
        # One of them may have been about to open connections.
        await self.pool.close()
        await self.backend.close()
        if self._tool_runs is not None:
            await to_thread.run_sync(self._tool_runs.remove_copies)
        await to_thread.run_sync(self._close_tracker)

    def close_files(self) -> None:
        """Closes what `close` could not, when the event loop is gone."""
        self.backend.close_files()
        self._close_tracker()

    def _close_tracker(self) -> None:
        if self._tracker is not None:
            self._tracker.close()


def first_request(call: Call, offered: Optional[Offered]) -> Call:
    """Returns a call as its first request is sent, with the tools that its agent is offered."""
    if offered is None:
        return call
    from .engine.tool_loop import start_conversation, with_context

    return fast_replace(with_context(call, offered), conversation=start_conversation(call, offered))


def _or_raise(call: Union[Call, InputError]) -> Call:
    if isinstance(call, InputError):
        raise call
    return call


def _ignore(_: CallCompleted) -> None:
    pass


def _with_saved_cost(call: Call, reply: Reply, prices: Optional[Prices]) -> Reply:
    """A cached answer saves what it would cost at the caller's own price, where there is one."""
    if not (reply.cached and prices):
        return reply
    own = price_lookup(prices, lambda *_: None)(call.model, reply.usage, call.options, reply.model)
    return reply if own is None else replace(reply, saved_cost=own)
