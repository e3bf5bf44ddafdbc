"""AsyncAgentOrchestrator: runs agents and workflows, one at a time or thousands."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, AsyncGenerator, Dict, List, Mapping, Optional, Sequence, TypeVar, Union

from .agents import Registry
from .bulk import OnEvent, OnResult, Tasks, aiter_any, parse_task
from .cache.request_key import USE
from .call_runner import CallRunner
from .engine.estimate import Estimate
from .errors import InputError
from .limits.admission import Load
from .limits.call_context import DEFAULT_CONTEXT
from .limits.run_gate import RunGate
from .options import Configurable, Options, delegated, takes
from .performance_tracker import PerformanceTracker
from .types import AgentResult, AsyncAgentResult, Call, Observer
from .workflow import OnStep, Workflow, WorkflowResult
from .workflow.checkpoints import RunRecord
from .workflow.execution import WorkflowExecutor
from .workflow.plan import Plan

__all__ = ["AsyncAgentOrchestrator", "AsyncAgentResult"]

_NO_TOOL_OPTIONS = (None, None, None, None, None)
Self = TypeVar("Self", bound="AsyncAgentOrchestrator")


class AsyncAgentOrchestrator(Configurable):
    """Runs agents concurrently over one pool of connections.

        async with AsyncAgentOrchestrator(max_concurrent=10, budget_usd=2.0) as orchestrator:
            result = await orchestrator.execute_agent("python-expert", "Explain decorators")
            print(result.output if result.success else result.error)

    Each option is an attribute too. All but `durable` and `clock` can be set at any time; what is set holds
    from the next call.

    Attributes:
        config_path: a claude.json, a .claude folder or a project; None for the one found by walking up.
        api_key: for Anthropic's API, whatever the environment asks for; None for the credentials that the SDK
            finds.
        max_concurrent: attempts on the wire at one time; "auto" finds out how many the server takes.
        rpm, input_tpm, output_tpm: requests and tokens a minute that are never exceeded; None for the limits
            of the server's headers alone, which hold in any case.
        timeout_seconds: the longest silence of the server in one attempt; None for no bound.
        quiet_seconds: the longest time in one attempt in which the server sends nothing but pings, as it does
            while the model thinks and its thoughts are not sent.
        max_retries: attempts per call, including the first.
        base_url: the endpoint; None for what the SDK finds (ANTHROPIC_BASE_URL, else Anthropic's; Amazon
            Bedrock and Google Vertex AI have their own variables).
        deadline_seconds: bound of a whole call with its waits and retries; None for no bound.
        stream: whether answers are streamed. Without it, silence looks the same as a long answer.

        enable_cache: whether answers are stored in `~/.claude/cache` and found again.
        cache_ttl_hours: how long a stored answer is used, in hours.
        cache_max_size_mb: bound of the cache's files, in megabytes.
        response_cache: a cache to use instead of the one in `~/.claude/cache`; the caller closes it.
        budget_usd: a hard cap on what all calls spend together, in USD; setting it starts a new one.
        prices: your own by model, such as {"my-model": {"input": 3.0, "output": 15.0}}, in USD per million
            tokens; they come before those of the price list.
        enable_tracking: whether each execution gets a line in the ledger, `.claude/metrics/`.
        durable: a database's URL, so that calls outlive this process: with postgresql:// workers make them
            (`claude-force worker`), under their own options; with sqlite:// this process does.
        observers: called with a `claude_force.types.CallCompleted` at the end of each call.
        tools, max_turns, max_tool_calls, add_dirs: those of calls that have none of their own; see
            `execute_agent`. `max_turns` also bounds what an agent's file says.

    `enable_memory` is accepted for older callers and does nothing.

    An error that every other call would meet ends a bulk run or a workflow: a wrong key, no credit, a
    disabled organisation, an endpoint that can't be reached. A model that does not exist ends it for the rows
    that ask that model. Requests on the wire are finished; every other row fails with the same error and
    without a request: its `error.skipped` is True, and neither observers nor the ledger see it.
    """

    observers: List[Observer]

    @takes(Options)
    def __init__(self, options: Options) -> None:
        """Raises InvalidOptionError for an invalid limit, ConfigurationError for a missing file,
        DatabaseError for `durable` without the extra."""
        # A copy, as observers are added to the list.
        self._options = replace(options, observers=list(options.observers))
        self._calls = CallRunner(self._options)
        self._workflows = WorkflowExecutor(self._calls)

    def _configure(self, options: Options, changed: str) -> None:
        self._calls.configure(options, changed)
        self._options = options

    async def execute_agent(
        self,
        /,
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
        tools: Union[str, Sequence[Any], None] = None,
        max_turns: Optional[int] = None,
        max_tool_calls: Optional[int] = None,
        add_dirs: Optional[Sequence[Union[str, Path]]] = None,
        in_place: Optional[bool] = None,
        budget_usd: Optional[float] = None,
        on_event: Optional[OnEvent] = None,
        **options: Any,
    ) -> AgentResult:
        """Runs one agent on one task, with its tools where some are granted.

        Args:
            model: an alias or a full id; None for what the agent's file, else the environment, asks for.
            max_tokens: the longest answer, in tokens; None for what the agent's file says, else 4,096, or
                16,384 for a model that thinks.
            temperature: None for what the agent's file says, else the API's default.
            workflow_name, workflow_position: labels for the result, observers and the ledger.
            use_memory: accepted for callers of claude-force 1.x, and does nothing: agents have no memory.
            cache: "use" a stored answer, "refresh" it with a new one, or "off": a request that is neither
                stored nor shared with identical calls in flight.
            cache_ttl: how long the API's prompt cache holds the system prompt after each use, "5m" or "1h".
            tools: what is granted: "none"; "read", "edit" or "bash", each with those before it; or a list of
                names and rules, such as ["Read", "Bash(git diff:*)"]. The agent has those of them that its
                file names. None for the orchestrator's own. A list of objects is the field of the API.
            max_turns: the most requests of an agent with tools; None for what its file says, else 50.
            max_tool_calls: the most tool calls that it may make; None for no bound.
            add_dirs: folders outside the project that its tools may use as well.
            in_place: whether tools that edit change the project itself. Else they work in a copy of it, in
                which folders that git ignores and `add_dirs` can only be read; `result.patch` has what they
                changed, for `claude_force.apply_patch`.
            budget_usd: a hard cap on what this call may cost, within that of the orchestrator.
            on_event: called with each `claude_force.bulk.Event` of this call, whose `index` is 0.
            options: further fields of the Messages API, such as `stop_sequences` or `thinking`.

        The last request that a bound allows forbids tool calls, so that there is a final answer;
        `result.stopped_by` names the bound.

        Returns:
            A result, also for a call that failed: its `error` says why.

        Raises:
            InputError: a ValueError, before anything is sent.
        """
        of_tools = (tools, max_turns, max_tool_calls, add_dirs, in_place)
        if of_tools != _NO_TOOL_OPTIONS:
            named = zip(("tools", "max_turns", "max_tool_calls", "add_dirs", "in_place"), of_tools)
            options.update((name, value) for name, value in named if value is not None)
        options.update(
            workflow_name=workflow_name,
            workflow_position=workflow_position,
            cache=cache,
            call_budget_usd=budget_usd,
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            cache_ttl=cache_ttl,
        )
        if on_event is not None:
            return await self._calls.execute_watched(on_event, agent_name, task, options)
        return await self._calls.execute(DEFAULT_CONTEXT, agent_name, task, **options)

    async def execute_multiple(
        self, /, tasks: Tasks, on_result: Optional[OnResult] = None, **options: Any
    ) -> List[AgentResult]:
        """Runs `(agent_name, task)` pairs concurrently.

        Args:
            on_result: called as `on_result(index, result)` as each task ends, in the order of ending. What it
                was given stays with the caller when the run is cancelled.
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
        /,
        tasks: Tasks,
        in_order: bool = False,
        budget_usd: Optional[float] = None,
        *,
        on_event: Optional[OnEvent] = None,
        total: Optional[int] = None,
        first_of_many: bool = True,
        run_id: Optional[str] = None,
        **call_options: Any,
    ) -> AsyncGenerator[AgentResult, None]:
        """Runs `(agent_name, task)` pairs from any iterable or async iterable, also an endless one.

        Results come as they end, or `in_order`; each has the `index` of its task. Tasks are taken as there is
        room: memory is bounded by `max_concurrent`, not by their number. Stopping early cancels the rest.

        Args:
            budget_usd: a hard cap on what these calls spend together; what does not fit is not sent.
            on_event: called with each `claude_force.bulk.Event`.
            total: the number of tasks, where `tasks` has no length; for the time that is left.
            first_of_many: whether one of the tasks that share a large system prompt is sent first. The others
                wait until its answer begins, and then read the prompt from the API's prompt cache.
            run_id: of a durable run: letters, digits, "_" and "-". The same run again, under the id that it
                had, finds what was done and asks only for the rest; None makes a new id.
            call_options: as of `execute_agent`, the same for every task; `call_budget_usd` is then the cap of
                each call.

        Raises what `tasks` raises, after the results of the rows in flight by then.
        """
        return self._calls.stream(
            *(tasks, RunGate(), call_options, on_event, total, run_id, str),
            *(in_order, budget_usd, first_of_many),
        )

    async def execute_workflow(
        self,
        /,
        workflow_name: Union[str, Workflow],
        task: Optional[str] = None,
        pass_output_to_next: bool = True,
        on_result: Optional[OnResult] = None,
        *,
        inputs: Optional[Mapping[str, Any]] = None,
        resume: Optional[str] = None,
        fail_fast: Optional[bool] = None,
        on_step: Optional[OnStep] = None,
        **call_options: Any,
    ) -> WorkflowResult:
        """Runs a graph of agents, each step as soon as it can. Steps that need a failed one are skipped.

        Args:
            workflow_name: the name of a workflow in claude.json, or a Workflow made in Python.
            task: what the workflow is about; None for the task of the resumed run.
            pass_output_to_next: whether steps without their own task text are given the answers before them.
            inputs: further values that task texts name, such as {"language": "French"}.
            resume: the `run_id` of an earlier run; only its missing steps are run.
            fail_fast: whether no further step begins after a failure; None for what the workflow says.
            on_result: called as `on_result(number, result)` as each call ends, counted from 0.
            on_step: called with a `claude_force.workflow.StepEvent` at each change of a step.
            call_options: as of `execute_agent`, for every step; they come before the step's own.

        Returns:
            A list of the results of all calls; its `steps` has the result of each step.

        Raises:
            InputError: the workflow, one of its agents or the task can't be run; nothing was sent.
        """
        return await self._workflows.run(
            *(workflow_name, task, pass_output_to_next, on_result, inputs, resume, fail_fast, on_step),
            call_options,
        )

    async def plan(
        self,
        /,
        workflow_name: Union[str, Workflow],
        task: str,
        pass_output_to_next: bool = True,
        *,
        inputs: Optional[Mapping[str, Any]] = None,
        cache: str = USE,
        **call_options: Any,
    ) -> Plan:
        """Returns what `execute_workflow` would do with these arguments, and its cost. Sends nothing.

        Raises InputError as that does.
        """
        return await self._workflows.plan(
            workflow_name, task, pass_output_to_next, inputs or {}, cache, call_options
        )

    async def runs(self, most: int = 20) -> List[RunRecord]:
        """Returns the last runs of workflows that can be resumed, the newest first. Raises CacheError."""
        return await self._workflows.checkpointer.recent(most)

    async def estimate(
        self,
        /,
        tasks: Tasks,
        model: Optional[str] = None,
        max_tokens: Optional[int] = None,
        cache: str = USE,
        cache_ttl: str = "5m",
        **options: Any,
    ) -> Estimate:
        """Returns what `(agent_name, task)` pairs would use and cost, with a range. Sends nothing.

        Of an agent that uses tools, only the first request is counted: what follows depends on its answers.
        """
        numbers = count()

        def prepare(task: Any) -> Call:
            agent_name, text = parse_task(next(numbers), task)
            return self._calls.prepare(agent_name, text, False, **options)

        options.update(model=model, max_tokens=max_tokens, cache_ttl=cache_ttl)
        return await self._calls.estimate(aiter_any(tasks), prepare, cache, options)

    async def explain_miss(
        self,
        /,
        agent_name: str,
        task: str,
        model: Optional[str] = None,
        max_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        **options: Any,
    ) -> Dict[str, Any]:
        """Returns why the call would be a hit or a miss, as `ResponseCache.explain_miss`. Sends nothing."""
        options.update(model=model, max_tokens=max_tokens, temperature=temperature)
        return await self._calls.explain_miss(self._calls.prepare(agent_name, task, False, **options))

    async def check_credentials(self) -> None:
        """Raises AuthenticationError where no credentials are found. Sends nothing."""
        await self._calls.check_credentials()

    def model_of(self, agent_name: str, model: Optional[str] = None) -> str:
        """Returns the id of the model that a call of this agent would ask. Raises InputError."""
        return self._calls.prepare(agent_name, "x", model=model).model

    def load(self) -> Optional[Load]:
        """Returns what is in flight in the running loop and the known limits; None before its first call."""
        return self._calls.pool.load()

    @property
    def spent_usd(self) -> float:
        """What was spent of the budget, in USD; 0 without a budget."""
        return self._calls.budget.spent if self._calls.budget else 0.0

    @property
    def tracker(self) -> PerformanceTracker:
        """The ledger in the project's `.claude/metrics/`; see its methods for the metrics below.

        They read the whole ledger: call them in a thread where the event loop is busy.
        """
        return self._calls.tracker

    list_agents = delegated("_calls.registry", Registry.list_agents)
    list_workflows = delegated("_calls.registry", Registry.list_workflows)
    get_agent_info = delegated("_calls.registry", Registry.get_agent_info)
    get_performance_summary = delegated("tracker", PerformanceTracker.get_performance_summary)
    get_cost_breakdown = delegated("tracker", PerformanceTracker.get_cost_breakdown)
    export_performance_metrics = delegated("tracker", PerformanceTracker.export_performance_metrics)

    def get_agent_performance(
        self, name: Optional[str] = None, *, agent_name: Optional[str] = None
    ) -> Dict[str, Any]:
        """As `PerformanceTracker.get_agent_performance`; both spellings of a name find its agent."""
        name = name or agent_name
        if name is not None:
            # An agent that is gone still has its lines.
            with suppress(InputError):
                name = self._calls.registry.get(name).name
        return self.tracker.get_agent_performance(name)

    async def drain(self, seconds: float) -> None:
        """Sends nothing new, and waits up to `seconds` for what is in flight. Call `close` after it."""
        await self._calls.drain(seconds)

    async def close(self) -> None:
        """Ends calls in flight, and closes all connections and files; the next call opens new ones.

        Unfinished calls have a ClosedError, those of bulk runs and workflows too.
        """
        await self._calls.close()
        await self._workflows.checkpointer.close()

    def _close_files(self) -> None:
        """Closes what `close` could not, when the event loop is gone."""
        self._calls.close_files()
        self._workflows.checkpointer.stop()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
