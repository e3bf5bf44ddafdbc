"""AsyncAgentOrchestrator: a fleet of agents, many calls on one engine."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any, AsyncGenerator, Callable, Dict, List, Optional, Sized

from .bulk import (
    OnEvent,
    OnResult,
    ProgressTracker,
    RunOne,
    Tasks,
    aiter_any,
    parse_task,
    stream_results,
    task_limit,
)
from .cache.request_key import USE
from .engine.estimate import Estimate
from .engine.result_builder import CallLabels, failed
from .errors import CallError, CancelledCallError, ConfigurationError
from .limits.budget import Budget
from .limits.call_context import CallContext, CallListener
from .limits.run_gate import RunGate
from .types import AgentResult, AsyncAgentResult, Call
from .workflows import Workflows

__all__ = ["AsyncAgentOrchestrator", "AsyncAgentResult"]


class AsyncAgentOrchestrator(Workflows):
    """Runs agents concurrently over one pool of connections.

    The attributes below can be set at any time; they hold from the next call.

    Attributes:
        config_path: a claude.json, a .claude folder or a project; None for the one found by walking up.
        api_key: for Anthropic's API, whatever the environment asks for; None for the credentials that the SDK
            finds.
        max_concurrent: attempts on the wire at one time; "auto" finds out how many the server takes.
        rpm, input_tpm, output_tpm: requests and tokens a minute that are never exceeded; None for those that
            the server's headers tell of, which hold in any case.
        timeout_seconds: the longest silence of the server in one attempt; None for no bound.
        quiet_seconds: the longest time in one attempt in which the server sends nothing but pings, as it does
            while the model thinks and its thoughts are not sent.
        max_retries: attempts per call, the first one among them.
        base_url: the endpoint; None for what the SDK finds (ANTHROPIC_BASE_URL, else Anthropic's; for Amazon
            Bedrock and Google Vertex AI variables of their own).
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
        durable: a database's URL, and calls outlive this process: with postgresql:// they go to workers
            (`claude-force worker`), whose own options say how they are made; with sqlite:// they stay here.
        observers: called with a `claude_force.types.CallCompleted` at the end of each call.

    `enable_memory` is accepted for older callers and does nothing.

    An answer that no other call can survive ends a bulk run or a workflow: a wrong key, no credit, a disabled
    organisation, an endpoint that can't be reached; a model that does not exist ends it for the rows that ask
    that model. What is on the wire then goes on to its end; every other row fails with the same error and
    without a request: its `error.skipped` is True, and neither observers nor the ledger are told of it.
    """

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
        run_id: Optional[str] = None,
        place: Callable[[int], str] = str,
        run_gate: Optional[RunGate] = None,
        **call_options: Any,
    ) -> AsyncGenerator[AgentResult, None]:
        """Runs `(agent_name, task)` pairs from any iterable or async iterable, without end if need be.

        Results come as they end, or `in_order`; each has the `index` of its task. Tasks are taken as there is
        room: memory is bounded by `max_concurrent`, not by their number. To stop early cancels the rest.

        Args:
            budget_usd: a hard cap on what these calls spend together; what does not fit is not sent.
            on_event: called with each `claude_force.bulk.Event`.
            total: the number of tasks, where `tasks` has no length; for the time that is left.
            first_of_many: of tasks that share a large system prompt, one goes first, and the others, which
                wait for its answer to begin, read what it wrote into the API's prompt cache.
            run_id: of a durable run, made of letters, digits, "_" and "-". The same run again, under the id
                that it had, finds what was done and asks only for the rest; None makes a new one.
            place: names a task by its index; for a run that is begun again with fewer tasks.
            run_gate: ends the run from outside: what is not sent yet when it is shut is not sent.
            call_options: as of `execute_agent`, the same for every task.

        Raises what `tasks` raises, after the results of what was under way by then.
        """
        total = len(tasks) if total is None and isinstance(tasks, Sized) else total
        tracker = ProgressTracker(on_event, total, self._clock.now) if on_event else None
        budgets = () if budget_usd is None else (Budget(budget_usd),)
        context = CallContext(budgets, first_of_many=first_of_many, session=self._session, run_gate=run_gate)
        run = self._run_row(context, self._asking.run_id(run_id), place, call_options)
        most = self._asking.most or task_limit(self._how().ceiling)
        return stream_results(tasks, run, most, in_order, tracker)

    def _run_row(
        self,
        context: CallContext,
        run_id: Optional[str],
        place: Callable[[int], str],
        options: Dict[str, Any],
    ) -> RunOne:
        cancelled, gate = False, context.run_gate or RunGate()
        context = replace(context, run_gate=gate)

        async def run(index: int, agent_name: str, task: str, listener: CallListener) -> AgentResult:
            nonlocal cancelled
            if cancelled:
                # By another command, which wants no more of the run.
                return failed(CallLabels(agent_name), CancelledCallError("The run was cancelled"), None, 0.0)
            call_id = f"{run_id}:{place(index)}" if run_id else None
            try:
                gate.check()
                result = await self.execute_agent(
                    agent_name, task, context=replace(context, listener=listener, call_id=call_id), **options
                )
            except CallError as error:
                return failed(CallLabels(agent_name), error, None, 0.0)
            except ConfigurationError as error:
                gate.note(error)
                raise
            cancelled |= isinstance(result.error, CancelledCallError)
            return result

        return run

    async def estimate(
        self,
        tasks: Tasks,
        model: Optional[str] = None,
        max_tokens: Optional[int] = None,
        cache: str = USE,
        cache_ttl: str = "5m",
        **options: Any,
    ) -> Estimate:
        """What `(agent_name, task)` pairs would use and cost, with a range. Sends nothing."""
        numbers = count()

        def prepare(task: Any) -> Call:
            agent_name, text = parse_task(next(numbers), task)
            return self._prepare(agent_name, text, model, max_tokens, cache_ttl=cache_ttl, **options)

        return await self._estimated(aiter_any(tasks), prepare, cache)
