"""AgentOrchestrator: the sync face of the one engine, which runs on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Type,
    TypedDict,
    TypeVar,
    Union,
)

from .agents import Registry
from .async_orchestrator import AsyncAgentOrchestrator
from .bulk import OnEvent, OnResult, Tasks
from .callbacks import CallbackExit, GuardedObservers, guarded, guarded_tasks
from .clock import Clock
from .engine.estimate import Estimate
from .engine.result_builder import Observer
from .errors import ClosedError
from .inquiries import Inquiries
from .limits.budget import Prices
from .options import MaxConcurrent
from .performance_tracker import PerformanceTracker
from .response_cache import ResponseCache
from .storage.locks import register_after_fork
from .types import AgentResult
from .workflow import OnStep, Workflow, WorkflowResult
from .workflow.plan import Plan

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AgentOrchestrator", "AgentResult"]

T = TypeVar("T")


class Limits(TypedDict, total=False):
    """What AgentOrchestrator takes by keyword as AsyncAgentOrchestrator does."""

    max_concurrent: MaxConcurrent
    timeout_seconds: Optional[float]
    max_retries: int
    enable_cache: bool
    cache_ttl_hours: float
    cache_max_size_mb: float
    response_cache: Optional[ResponseCache]
    budget_usd: Optional[float]
    prices: Optional[Prices]
    rpm: Optional[float]
    input_tpm: Optional[float]
    output_tpm: Optional[float]
    base_url: Optional[str]
    deadline_seconds: Optional[float]
    quiet_seconds: float
    stream: bool
    observers: Sequence[Observer]
    durable: Optional[str]
    clock: Optional[Clock]


class AgentOrchestrator(Inquiries):
    """Runs agents from ordinary code, from any number of threads, also inside a running event loop.

    Takes the same limits as AsyncAgentOrchestrator by keyword. `enable_memory` is accepted for older
    callers and does nothing: agents have no memory. With `validate_api_key`, missing credentials are a
    MissingCredentialsError, which is a ValueError too, here rather than at the first call.
    """

    def __init__(
        self,
        config_path: Union[str, Path, None] = None,
        anthropic_api_key: Optional[str] = None,
        enable_tracking: bool = True,
        enable_memory: bool = True,
        validate_api_key: bool = False,
        *,
        api_key: Optional[str] = None,
        **limits: Unpack[Limits],
    ) -> None:
        self._engine = AsyncAgentOrchestrator(
            config_path,
            api_key or anthropic_api_key,
            enable_tracking=enable_tracking,
            enable_memory=enable_memory,
            **limits,
        )
        self._engine.observers = GuardedObservers(self._engine.observers)
        self._thread = _LoopThread()
        if validate_api_key:
            try:
                self._thread.run(self._engine.check_credentials())
            except BaseException:
                self.close()
                raise

    def run_agent(
        self,
        agent_name: str,
        task: str,
        model: Optional[str] = None,
        max_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        workflow_name: Optional[str] = None,
        workflow_position: Optional[int] = None,
        **options: Any,
    ) -> AgentResult:
        """As `AsyncAgentOrchestrator.execute_agent`."""
        return self._thread.run(
            self._engine.execute_agent(
                agent_name, task, model, max_tokens, temperature, workflow_name, workflow_position, **options
            )
        )

    def run_multiple(
        self, tasks: Tasks, on_result: Optional[OnResult] = None, **call_options: Any
    ) -> List[AgentResult]:
        """As `AsyncAgentOrchestrator.execute_multiple`; `on_result` is called in the engine's thread."""
        if "on_event" in call_options:
            call_options["on_event"] = guarded(call_options["on_event"])
        return self._thread.run(
            self._engine.execute_multiple(guarded_tasks(tasks), guarded(on_result), **call_options)
        )

    def stream_multiple(
        self,
        tasks: Tasks,
        in_order: bool = False,
        budget_usd: Optional[float] = None,
        *,
        on_event: Optional[OnEvent] = None,
        **options: Any,
    ) -> Iterator[AgentResult]:
        """As `AsyncAgentOrchestrator.stream_multiple`; `tasks` is iterated in the engine's thread."""
        results = self._engine.stream_multiple(
            guarded_tasks(tasks), in_order, budget_usd, on_event=guarded(on_event), **options
        )
        loop = self._thread.start()

        async def following() -> Optional[AgentResult]:
            async for result in results:
                return result
            return None

        async def closing() -> None:
            await results.aclose()

        try:
            while True:
                result = self._thread.run(following(), loop)
                if result is None:
                    return
                yield result
        finally:
            # A loop that has ended has closed it.
            with suppress(ClosedError):
                self._thread.run(closing(), loop)

    def run_workflow(
        self,
        workflow_name: Union[str, Workflow],
        task: Optional[str] = None,
        pass_output_to_next: bool = True,
        on_result: Optional[OnResult] = None,
        *,
        inputs: Optional[Mapping[str, Any]] = None,
        on_step: Optional[OnStep] = None,
        **options: Any,
    ) -> WorkflowResult:
        """As `AsyncAgentOrchestrator.execute_workflow`; callbacks are called in the engine's thread."""
        options.update(inputs=inputs, on_step=guarded(on_step))
        return self._thread.run(
            self._engine.execute_workflow(
                workflow_name, task, pass_output_to_next, guarded(on_result), **options
            )
        )

    def estimate(self, tasks: Tasks, **options: Any) -> Estimate:
        """As `AsyncAgentOrchestrator.estimate`."""
        return self._thread.run(self._engine.estimate(tasks, **options))

    def plan(self, workflow: Union[str, Workflow], task: str, **options: Any) -> Plan:
        """As `AsyncAgentOrchestrator.plan`."""
        return self._thread.run(self._engine.plan(workflow, task, **options))

    @property
    def spent_usd(self) -> float:
        """What was spent of `budget_usd`; 0 where none is set."""
        return self._engine.spent_usd

    @property
    def observers(self) -> List[Observer]:
        """Called in the engine's thread with a `claude_force.types.CallCompleted` after each call."""
        return self._engine.observers

    @property
    def config_path(self) -> Union[str, Path, None]:
        """As it was given."""
        return self._engine.config_path

    @property
    def api_key(self) -> Optional[str]:
        """As it was given; None where the SDK finds the credentials."""
        return self._engine.api_key

    @property
    def enable_tracking(self) -> bool:
        """Whether each execution gets its line in the ledger."""
        return self._engine.enable_tracking

    @property
    def enable_memory(self) -> bool:
        """As it was given; it does nothing."""
        return self._engine.enable_memory

    @property
    def base_url(self) -> Optional[str]:
        """The endpoint; None for what the SDK finds."""
        return self._engine.base_url

    def _agents(self) -> Registry:
        return self._engine._agents()

    @property
    def tracker(self) -> PerformanceTracker:
        """The ledger in the project's `.claude/metrics/`."""
        return self._engine.tracker

    def close(self) -> None:
        """Ends calls in flight, closes all connections, files and the thread; the next call starts anew.

        Another thread that waits for a call then gets a ClosedError.
        """
        self._thread.stop(self._engine.close)
        self._engine.close_door()
        self._engine.close_journal()
        self._engine.close_ledger()

    def __enter__(self) -> AgentOrchestrator:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


class _LoopThread:
    """An event loop in a daemon thread, started at first use and stopped with its owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._finalizer: Optional[weakref.finalize[Any, Any]] = None
        self._last: List[Callable[[], Awaitable[None]]] = []
        register_after_fork(self)

    def run(self, work: Coroutine[Any, Any, T], began_in: Optional[asyncio.AbstractEventLoop] = None) -> T:
        """The coroutine's result. An interrupt (Ctrl-C) cancels it. ClosedError: `stop` ended it, or the loop
        that it belongs to before."""
        try:
            # Under the lock, so that what is handed over comes before the end, and is ended by it.
            with self._lock:
                loop = self._started() if began_in is None else began_in
                self._expect_usable(loop)
                future = asyncio.run_coroutine_threadsafe(work, loop)
        except Exception:
            work.close()
            raise
        try:
            return future.result()
        except CallbackExit as exit:
            raise exit.reason from None
        except FutureCancelled:
            raise ClosedError("The orchestrator was closed during the call") from None
        except BaseException:
            future.cancel()
            raise

    def _expect_usable(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            raise ClosedError("The orchestrator was closed during the run")
        if _running_loop() is loop:
            raise RuntimeError("A callback of the engine can't wait for the engine; hand the work elsewhere.")

    def start(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs from here on."""
        with self._lock:
            return self._started()

    def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """Ends all that runs in it, then `last`, then the thread."""
        with self._lock:
            finalizer, self._finalizer, self._loop = self._finalizer, None, None
            before, self._last = self._last, []
        if finalizer is not None:
            before.append(last)
            finalizer()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            ready: List[Any] = []
            signal, last = threading.Event(), self._last
            thread = threading.Thread(
                target=lambda: _run_loop(ready, signal, last), name="claude-force", daemon=True
            )
            thread.start()
            signal.wait()
            if isinstance(ready[0], BaseException):
                raise ready[0]
            self._loop, end = ready
            self._finalizer = weakref.finalize(self, _end, self._loop, end, thread)
        return self._loop

    def after_fork(self) -> None:
        """Called in a forked child: it has this object, not the thread that it stands for."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._lock, self._finalizer, self._loop, self._last = threading.Lock(), None, None, []


def _run_loop(
    ready: List[Any], signal: threading.Event, last: Iterable[Callable[[], Awaitable[None]]]
) -> None:
    # Not asyncio.run: it may start a thread at its end, which Python 3.12 forbids while a program exits.
    try:
        loop = asyncio.new_event_loop()
    except Exception as error:
        # Such as no file descriptor left. Whoever waits for the loop would wait for ever.
        ready.append(error)
        signal.set()
        return
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(ready, signal, last))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _serve(
    ready: List[Any], signal: threading.Event, last: Iterable[Callable[[], Awaitable[None]]]
) -> None:
    end = asyncio.Event()
    ready.extend((asyncio.get_running_loop(), end))
    signal.set()
    await end.wait()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    # Not at the program's exit, where it is nobody's any more: it may take a thread.
    for work in last:
        await work()


def _end(loop: asyncio.AbstractEventLoop, end: asyncio.Event, thread: threading.Thread) -> None:
    # The loop then cancels what still runs and closes the engine's connections.
    loop.call_soon_threadsafe(end.set)
    if thread is not threading.current_thread():
        thread.join(timeout=5)


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
