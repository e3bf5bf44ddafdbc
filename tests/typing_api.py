"""The types that users see, from the outside. mypy and pyright check this file; nothing runs it.

Each `type: ignore` stands where a wrong use has to be an error: it is one itself where none is found.
"""

import logging
from pathlib import Path
from typing import Any, AsyncGenerator, AsyncIterator, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import pytest
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from typing_extensions import assert_type

from claude_force import (
    AgentOrchestrator,
    AgentResult,
    AsyncAgentOrchestrator,
    AsyncAgentResult,
    ClaudeForceError,
    ResponseCache,
    Step,
    Workflow,
    WorkflowResult,
    __version__,
    apply_patch,
    async_orchestrator,
    orchestrator,
    response_cache,
)
from claude_force.bulk import (
    Cached,
    Event,
    Finished,
    Paused,
    Progress,
    Queued,
    Retried,
    Started,
    ToolEnded,
    ToolStarted,
    TurnBegan,
    TurnEnded,
)
from claude_force.durable import Runs, Worker
from claude_force.durable.runs import Failure, RunState, WorkerState
from claude_force.engine.estimate import Estimate, Range
from claude_force.errors import (
    BudgetExceededError,
    CallError,
    InputError,
    InvalidWorkflowError,
    SilenceError,
    TransientError,
)
from claude_force.integrations.json_logs import JsonFormatter, JsonLogs, log_as_json
from claude_force.integrations.otel import OpenTelemetry, instrument
from claude_force.ledger.entry import Entry
from claude_force.limits.admission import Load
from claude_force.limits.rate_limiter import Rates
from claude_force.performance_tracker import PerformanceTracker
from claude_force.testing import BilledRequest, Fault, MessagesServer, RateLimit, RecordedRequest, faults
from claude_force.testing.request_log import RequestLog
from claude_force.types import Attempt, Call, CallCompleted, PatchNote, ToolCall, Turn, Usage
from claude_force.workflow import Condition, ForEach, StepEvent, StepResult, read_workflow
from claude_force.workflow.checkpoints import RunRecord
from claude_force.workflow.plan import Plan, PlannedStep

PAIRS = [("python-expert", "Explain lists"), ("code-reviewer", "Review: def foo(): pass")]


def names(server: MessagesServer) -> None:
    version: str = __version__
    assert_type([version], List[str])
    same: List[type] = [
        async_orchestrator.AsyncAgentOrchestrator,
        async_orchestrator.AsyncAgentResult,
        orchestrator.AgentOrchestrator,
        response_cache.ResponseCache,
    ]
    assert_type(same, List[type])


async def async_calls(result_of_old_name: AsyncAgentResult) -> None:
    async with AsyncAgentOrchestrator(max_concurrent=10, timeout_seconds=30, max_retries=3) as entered:
        assert_type(entered, AsyncAgentOrchestrator)

    fleet = AsyncAgentOrchestrator(config_path=None, api_key=None)
    one = await fleet.execute_agent("python-expert", "Explain decorators")
    assert_type(one, AgentResult)
    assert_type(one.patch, Optional[str])
    assert_type(one.patch_note, Optional[PatchNote])
    assert_type(apply_patch(one.patch or "", Path("project")), bool)
    assert_type(await fleet.execute_multiple(PAIRS), List[AgentResult])
    assert_type(await fleet.execute_multiple(iter(PAIRS), told_of_result, budget_usd=1), List[AgentResult])
    assert_type(
        await fleet.execute_agent(
            *("python-expert", "Explain"),
            model="haiku",
            max_tokens=100,
            temperature=0.5,
            workflow_name="review",
            workflow_position=1,
            cache="refresh",
            cache_ttl="1h",
            stop_sequences=["END"],
        ),
        AgentResult,
    )
    assert_type(
        await fleet.execute_agent(
            *("code-reviewer", "Review"),
            tools=["Read", "Bash(git diff:*)"],
            max_turns=20,
            max_tool_calls=50,
            add_dirs=[Path("../shared")],
            budget_usd=0.5,
            on_event=told_of_event,
        ),
        AgentResult,
    )
    assert_type(fleet.load(), Optional[Load])
    assert_type(await fleet.estimate(PAIRS, model="opus", max_tokens=10, cache="off"), Estimate)
    assert_type(await fleet.explain_miss("python-expert", "Explain"), Dict[str, Any])
    await fleet.check_credentials()
    await fleet.drain(5)
    await fleet.close()
    same: AgentResult = result_of_old_name
    assert_type(same, AgentResult)


async def all_options_of_the_async_face(cache: ResponseCache) -> None:
    fleet = AsyncAgentOrchestrator(
        *(Path(".claude"), "key", "auto", None, 5, False, False, True, 1.5, 10),
        response_cache=cache,
        budget_usd=2,
        prices={"my-model": {"input": 3.0, "output": 15.0}},
        rpm=50,
        input_tpm=10_000,
        output_tpm=None,
        base_url="http://127.0.0.1:8080",
        deadline_seconds=60,
        stream=False,
        observers=[told_of_call],
        durable="sqlite:///runs.db",
    )
    assert_type(fleet.config_path, Union[str, Path, None])
    assert_type(fleet.api_key, Optional[str])
    assert_type(fleet.max_retries, int)
    assert_type(fleet.timeout_seconds, Optional[float])
    assert_type(fleet.deadline_seconds, Optional[float])
    assert_type(fleet.budget_usd, Optional[float])
    assert_type(fleet.spent_usd, float)
    assert_type(fleet.rpm, Optional[float])
    assert_type(fleet.response_cache, Optional[ResponseCache])
    assert_type(fleet.enable_cache, bool)
    assert_type(fleet.cache_ttl_hours, float)
    assert_type(fleet.stream, bool)
    fleet.max_concurrent = 20
    fleet.max_concurrent = "auto"
    fleet.budget_usd = 3
    fleet.prices = None
    fleet.observers.append(told_of_call)


async def async_streams(fleet: AsyncAgentOrchestrator) -> None:
    async def endless() -> AsyncIterator[Tuple[str, str]]:
        yield "python-expert", "Explain"

    stream = fleet.stream_multiple(
        *(endless(), True, 0.5),
        on_event=told_of_event,
        total=10,
        first_of_many=False,
        run_id="nightly",
        model="haiku",
        cache="off",
    )
    assert_type(stream, AsyncGenerator[AgentResult, None])
    async for result in fleet.stream_multiple(PAIRS):
        assert_type(result, AgentResult)


def sync_calls() -> None:
    with AgentOrchestrator(".claude/claude.json", "key", False, False, True) as entered:
        assert_type(entered, AgentOrchestrator)
    fleet = AgentOrchestrator(api_key=None)
    assert_type(fleet.run_agent("python-expert", "Explain decorators"), AgentResult)
    assert_type(
        fleet.run_agent("python-expert", "Explain", "haiku", 100, 0.5, "review", 1, cache="off"), AgentResult
    )
    assert_type(fleet.run_multiple(PAIRS, told_of_result, budget_usd=1), List[AgentResult])
    streamed = fleet.stream_multiple(
        *(PAIRS, True, 1.5), on_event=told_of_event, total=2, first_of_many=False, run_id="a"
    )
    assert_type(streamed, Iterator[AgentResult])
    assert_type(fleet.spent_usd, float)
    assert_type(fleet.base_url, Optional[str])
    fleet.observers.append(told_of_call)
    fleet.close()


def all_options_of_the_sync_face(cache: ResponseCache) -> AgentOrchestrator:
    return AgentOrchestrator(
        max_concurrent="auto",
        timeout_seconds=None,
        max_retries=5,
        enable_cache=True,
        cache_ttl_hours=1,
        cache_max_size_mb=10,
        response_cache=cache,
        budget_usd=2,
        prices={"my-model": {"input": 3.0, "output": 15.0}},
        rpm=50,
        input_tpm=10_000,
        output_tpm=None,
        base_url="http://127.0.0.1:8080",
        deadline_seconds=60,
        stream=False,
        observers=[told_of_call],
        durable="sqlite:///runs.db",
    )


def introspection(either: Union[AgentOrchestrator, AsyncAgentOrchestrator]) -> None:
    assert_type(either.list_agents(), List[Dict[str, Any]])
    assert_type(either.list_workflows(), Dict[str, Any])
    assert_type(either.get_agent_info("python-expert"), Dict[str, Any])
    assert_type(either.tracker, PerformanceTracker)
    assert_type(either.get_performance_summary(hours=24), Dict[str, Any])
    assert_type(either.get_agent_performance("python-expert"), Dict[str, Any])
    assert_type(either.get_cost_breakdown(), Dict[str, Any])
    either.export_performance_metrics(Path("out.csv"), format="csv")


def results(result: AgentResult) -> None:
    assert_type(result.agent_name, str)
    assert_type(result.success, bool)
    assert_type(result.output, str)
    assert_type(result.metadata, Dict[str, Any])
    assert_type(result.errors, Optional[List[str]])
    assert_type(result.error, Optional[ClaudeForceError])
    assert_type(result.model, Optional[str])
    assert_type(result.cost, Optional[float])
    assert_type(result.saved_cost, Optional[float])
    assert_type(result.prompt_cache_saving, Optional[float])
    assert_type(
        (result.cached, result.shared, result.truncated, result.refused), Tuple[bool, bool, bool, bool]
    )
    assert_type(result.cache_age, Optional[float])
    assert_type(result.attempts, int)
    assert_type((result.duration, result.wait, result.service), Tuple[float, float, float])
    assert_type(result.stop_reason, Optional[str])
    assert_type(result.request_id, Optional[str])
    assert_type(result.index, Optional[int])
    assert_type(result.timeline, Tuple[Attempt, ...])
    assert_type(result.timeline[0].error, Optional[str])
    assert_type(result.to_dict(), Dict[str, Any])
    assert_type(result.turns, Tuple[Turn, ...])
    assert_type(result.turns[0].cost, Optional[float])
    assert_type(result.tool_calls, Tuple[ToolCall, ...])
    assert_type(result.tool_calls[0].error, Optional[str])
    assert_type(result.stopped_by, Optional[str])
    usage: Usage = result.usage
    assert_type((usage.input_tokens, usage.prompt_tokens, usage.total_tokens), Tuple[int, int, int])


def errors_by_their_types(error: Optional[ClaudeForceError], wrong: InvalidWorkflowError) -> None:
    if isinstance(error, CallError):
        assert_type(error.advice, str)
        assert_type(error.status, Optional[int])
        assert_type(error.retry_after, Optional[float])
        assert_type(error.cost, Optional[float])
    bases: List[Tuple[type, type]] = [
        (BudgetExceededError, CallError),
        (InputError, ValueError),
        (SilenceError, TimeoutError),
        (TransientError, CallError),
    ]
    assert_type(bases, List[Tuple[type, type]])
    as_value: ValueError = wrong
    assert_type(wrong.faults, Tuple[str, ...])
    raise as_value


def told_of_result(index: int, result: AgentResult) -> None:
    assert_type((index, result), Tuple[int, AgentResult])


def told_of_event(event: Event) -> None:
    progress: Progress = event.progress
    assert_type((event.index, event.agent_name), Tuple[int, str])
    assert_type(progress.total, Optional[int])
    assert_type((progress.done, progress.cost, progress.rate), Tuple[int, float, float])
    if isinstance(event, (Queued, Started)):
        assert_type(event, Union[Queued, Started])
    elif isinstance(event, Retried):
        assert_type((event.attempt, event.delay, event.error), Tuple[int, float, BaseException])
    elif isinstance(event, Paused):
        assert_type((event.seconds, event.error), Tuple[float, CallError])
    elif isinstance(event, (Cached, Finished)):
        assert_type(event.result, AgentResult)
    elif isinstance(event, TurnBegan):
        assert_type(event.turn, int)
    elif isinstance(event, TurnEnded):
        assert_type((event.turn, event.result), Tuple[int, Turn])
    elif isinstance(event, ToolStarted):
        assert_type((event.turn, event.name), Tuple[int, str])
    elif isinstance(event, ToolEnded):
        assert_type(event.call, ToolCall)


def told_of_call(executed: CallCompleted) -> None:
    call: Call = executed.call
    assert_type((call.agent_name, call.task, call.model), Tuple[str, str, str])
    assert_type(call.options, Mapping[str, Any])
    assert_type(executed.result, AgentResult)
    assert_type(executed.started, float)


def told_of_step(event: StepEvent) -> None:
    assert_type((event.step, event.status, event.done, event.parts), Tuple[str, str, int, int])
    assert_type(event.result, Optional[StepResult])


def figures(load: Load, estimate: Estimate) -> None:
    rates: Rates = load.limits
    assert_type(rates.requests, Optional[float])
    assert_type((load.under_way, load.window, load.paused), Tuple[int, int, float])
    tokens: Range = estimate.input_tokens
    assert_type(estimate.cost, Optional[Range])
    assert_type(tokens.expected, float)
    assert_type(estimate.unpriced, Tuple[str, ...])


async def workflows(fleet: AgentOrchestrator, other: AsyncAgentOrchestrator) -> None:
    graph = Workflow(
        "review",
        (
            Step("find", "code-reviewer", task="${task}", foreach=ForEach("files", "src/*.py")),
            Step(
                *("fix", "python-expert"),
                dependencies=("find",),
                when=(Condition("steps.find", "contains", "bug"),),
                model="opus",
                max_tokens=1000,
                retries=1,
                optional=True,
            ),
        ),
        description="Review, then repair",
        inputs={"language": "French"},
        fail_fast=True,
    )
    assert_type(read_workflow("review", ["code-reviewer"]), Workflow)
    run = fleet.run_workflow("review", "Look at this change")
    assert_type(run, WorkflowResult)
    assert_type(
        fleet.run_workflow(
            *(graph, None, False, told_of_result),
            inputs={"language": "Welsh"},
            resume="r1",
            fail_fast=False,
            on_step=told_of_step,
            model="haiku",
        ),
        WorkflowResult,
    )
    assert_type(
        await other.execute_workflow(
            graph, "Look", inputs={}, resume=None, fail_fast=None, on_step=told_of_step, cache="off"
        ),
        WorkflowResult,
    )
    plan = fleet.plan(graph, "Look", inputs={}, cache="off")
    assert_type(plan, Plan)
    assert_type(await other.plan(graph, "Look"), Plan)
    assert_type(plan.steps, Tuple[PlannedStep, ...])
    assert_type(plan.estimate, Estimate)
    assert_type(plan.levels, List[List[str]])
    assert_type(await other.runs(most=5), List[RunRecord])


def runs_of_workflows(run: WorkflowResult, kept: RunRecord) -> None:
    old: List[AgentResult] = run
    assert_type(old[0], AgentResult)
    assert_type((run.name, run.task, run.output), Tuple[str, str, str])
    assert_type(run.run_id, Optional[str])
    assert_type(run.success, bool)
    assert_type(run.cost, Optional[float])
    assert_type(run.duration, float)
    assert_type(run.steps, Tuple[StepResult, ...])
    step = run.step("find")
    assert_type((step.id, step.status, step.success, step.output), Tuple[str, str, bool, str])
    assert_type(step.answers, Tuple[str, ...])
    assert_type(step.results, Tuple[AgentResult, ...])
    assert_type(run.to_dict(), Dict[str, Any])
    assert_type((kept.id, kept.status, kept.spent), Tuple[str, str, float])


async def durable_runs() -> None:
    async with Worker(
        *("postgresql://127.0.0.1/db", 20, "w1"),
        api_key="key",
        base_url=None,
        timeout_seconds=None,
        max_retries=5,
        stream=False,
        prices={},
        rpm=50,
        input_tpm=None,
        output_tpm=1000,
        cache_ttl_hours=1,
        cache_max_size_mb=10,
        grace_seconds=5,
    ) as worker:
        assert_type(worker, Worker)
        assert_type(worker.name, Optional[str])
        await worker.run()
        await worker.stopped()
        worker.stop()
    runs = Runs("sqlite:///runs.db")
    assert_type(runs.is_embedded, bool)
    assert_type(runs.list(most=5), List[RunState])
    assert_type(runs.get("nightly").succeeded, int)
    assert_type(runs.failures("nightly", 5), List[Failure])
    assert_type(runs.workers(), List[WorkerState])
    assert_type((runs.cancel("nightly"), runs.prune(days=30)), Tuple[int, int])


def a_cache() -> None:
    cache = ResponseCache(
        *(24, 100, "secret", ["random-agent"], Path("cache"), True), allowed_dirs=["/var/cache"]
    )
    hit = cache.get("python-expert", "What are decorators?", "claude-sonnet-5-5")
    assert_type(hit, Optional[Dict[str, Any]])
    kept = cache.set(
        *("python-expert", "What are decorators?", "claude-sonnet-5-5", "A decorator ..."),
        input_tokens=100,
        output_tokens=50,
        estimated_cost=0.001,
    )
    assert_type(kept, bool)
    assert_type(cache.set_many([{"agent": "a", "task": "t", "model": "m", "response": "r"}]), int)
    assert_type((cache.has("a", "t", "m"), cache.delete("a", "t", "m")), Tuple[bool, bool])
    assert_type(cache.get_in_memory("a", "t", "m", {"endpoint": "e"}), Optional[Dict[str, Any]])
    assert_type(cache.clear(agent="a"), int)
    assert_type((cache.get_stats(), cache.explain_miss("a", "t", "m")), Tuple[Dict[str, Any], Dict[str, Any]])
    assert_type(cache.verify(remove=True), Dict[str, int])
    assert_type((cache.ttl_hours, cache.max_size_mb, cache.enabled), Tuple[float, float, bool])
    cache.close()


def a_ledger(executed: CallCompleted, entry: Entry) -> None:
    tracker = PerformanceTracker(Path("metrics"), max_file_mb=1, keep_files=3)
    tracker.record(executed)
    tracker.record_now(executed)
    tracker.flush()
    assert_type(tracker.folder, Path)
    assert_type(tracker.get_performance_summary(), Dict[str, Any])
    assert_type(entry.estimated_cost, Optional[float])
    assert_type(entry.fields(), Dict[str, Any])
    tracker.close()


def integrations(fleet: AgentOrchestrator, traces: TracerProvider, meters: MeterProvider) -> None:
    observer = instrument(fleet, content=True, tracer_provider=traces, meter_provider=meters)
    assert_type(observer, OpenTelemetry)
    fleet.observers.remove(observer)
    with log_as_json(level=logging.DEBUG) as logs:
        assert_type(logs, JsonLogs)
    logging.StreamHandler().setFormatter(JsonFormatter())


def the_stand_in(traffic: RequestLog) -> None:
    broken: List[Optional[Fault]] = [
        faults.status(529, retry_after=1.5, message="busy"),
        faults.reset(),
        faults.silence_before_first_byte(),
        faults.silence_in_mid_stream(after_events=3),
        faults.truncated_stream(),
        faults.overloaded_in_stream(),
        faults.malformed_json(),
        faults.wrong_content_type(),
        None,
    ]
    with MessagesServer(
        time_to_first_token=0.1,
        tokens_per_second=50,
        answer=lambda body: str(body["messages"]),
        output_tokens=20,
        faults=broken,
        rate_limit=RateLimit(requests_per_minute=50),
        host="127.0.0.1",
        port=0,
    ) as server:
        assert_type(server, MessagesServer)
        assert_type(server.base_url, str)
        assert_type(server.environment(), Dict[str, str])
        assert_type(server.requests, List[RecordedRequest])
        assert_type(server.requests[0].body, Dict[str, Any])
        assert_type(server.bills, List[BilledRequest])
        assert_type((server.connections, server.in_flight, server.max_in_flight), Tuple[int, int, int])
    same: RequestLog = server
    assert_type((same.disconnects, traffic.open_connections), Tuple[int, int])
    MessagesServer(faults=lambda request: faults.reset() if request.path else None).start().stop()


def test_of_an_agent(messages_server: MessagesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names(messages_server)


async def wrong_uses(fleet: AsyncAgentOrchestrator, sync: AgentOrchestrator, result: AgentResult) -> None:
    AsyncAgentOrchestrator(max_concurent=3)  # type: ignore[call-arg]
    AsyncAgentOrchestrator(max_concurrent="many")  # type: ignore[arg-type]
    AsyncAgentOrchestrator(None, None, 10, 30.0, 3, True, True, True, 24.0, 100.0, None)  # type: ignore[call-arg]
    AgentOrchestrator(max_concurent=3)  # type: ignore[call-arg]
    AgentOrchestrator(budget_usd="2")  # type: ignore[arg-type]
    AgentOrchestrator(observers=[told_of_event])  # type: ignore[list-item]
    fleet.max_retries = "3"  # type: ignore[assignment]
    await fleet.execute_agent("python-expert")  # type: ignore[call-arg]
    await fleet.execute_agent("python-expert", 3)  # type: ignore[arg-type]
    await fleet.execute_agent("python-expert", "Explain", cache=True)  # type: ignore[arg-type]
    await fleet.execute_multiple(["python-expert"])  # type: ignore[list-item]
    fleet.stream_multiple(PAIRS, on_event=told_of_call)  # type: ignore[arg-type]
    await fleet.stream_multiple(PAIRS)  # type: ignore[misc]
    sync.run_agent("python-expert", task=3)  # type: ignore[arg-type]
    sync.run_multiple([("python-expert", 3)])  # type: ignore[list-item]
    sync.stream_multiple(PAIRS, budget_usd="1")  # type: ignore[arg-type]
    sync.stream_multiple(PAIRS, on_event=told_of_result)  # type: ignore[arg-type]
    sync.run_workflow("review", "Look", on_step=told_of_event)  # type: ignore[arg-type]
    sync.spent_usd = 0.0  # type: ignore[misc]
    print(result.cost + 1.0)  # type: ignore[operator]
    print(result.outputs)  # type: ignore[attr-defined]
    result.usage.input_tokens = 3  # type: ignore[misc]
    Step("find")  # type: ignore[call-arg]
    Workflow("review", [Step("find", "code-reviewer")])  # type: ignore[arg-type]
    Worker()  # type: ignore[call-arg]
    Runs(3)  # type: ignore[arg-type]
    ResponseCache(ttl_hours="24")  # type: ignore[arg-type]
    ResponseCache().get("python-expert", "What?")  # type: ignore[call-arg]
    MessagesServer(faults=[529])  # type: ignore[list-item]
    RateLimit(50, 1, 1, 1)  # type: ignore[call-arg]
    faults.status("529")  # type: ignore[arg-type]
    instrument(3)  # type: ignore[arg-type]
