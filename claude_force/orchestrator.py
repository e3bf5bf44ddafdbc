"""AgentOrchestrator: the sync face of AsyncAgentOrchestrator, on an event loop in its own thread."""

from __future__ import annotations

from functools import wraps
from inspect import signature
from types import FunctionType
from typing import TYPE_CHECKING, Any, AsyncGenerator, Callable, Coroutine, Iterator, List, TypeVar

from .async_orchestrator import AsyncAgentOrchestrator
from .loop_thread import LoopThread
from .options import Configurable, Options, SyncOptions, delegated, takes
from .performance_tracker import PerformanceTracker
from .types import AgentResult, Observer

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

__all__ = ["AgentOrchestrator", "AgentResult"]

T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[AsyncAgentOrchestrator, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Makes a blocking method of an async one: it runs in the event loop's thread."""

    @wraps(method)
    def call(self: AgentOrchestrator, /, *args: P.args, **options: P.kwargs) -> T:
        return self._thread.run(method(self._inside, *args, **options))

    call.__doc__ = f"As `AsyncAgentOrchestrator.{method.__name__}`."
    return call


def _iterated(
    method: Callable[Concatenate[AsyncAgentOrchestrator, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Makes a blocking iterator of an async generator: each result is yielded as it comes."""

    @wraps(method)
    def call(self: AgentOrchestrator, /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return self._thread.iterate(method(self._inside, *args, **options))

    # Otherwise `help` shows what the async generator returns.
    shown = signature(method).replace(return_annotation="Iterator[AgentResult]")
    call.__signature__ = shown  # type: ignore[attr-defined]
    call.__doc__ = f"As `AsyncAgentOrchestrator.{method.__name__}`."
    return call


class AgentOrchestrator(Configurable):
    """Runs agents from ordinary code, from any number of threads, also inside a running event loop.

        with AgentOrchestrator() as orchestrator:
            print(orchestrator.run_agent("python-expert", "Explain decorators").output)

    Takes the options of AsyncAgentOrchestrator by keyword, and has them as attributes. `enable_memory` is
    accepted for older callers and does nothing: agents have no memory. With `validate_api_key`, missing
    credentials are a MissingCredentialsError, which is a ValueError too, here rather than at the first call.

    Callbacks are called in the event loop's thread, and `tasks` are iterated there. What a callback raises to
    end the program, SystemExit or KeyboardInterrupt, reaches the caller.
    """

    observers: List[Observer]

    @takes(SyncOptions)
    def __init__(self, given: SyncOptions) -> None:
        """Raises InvalidOptionError for an invalid limit, ConfigurationError for a missing file,
        DatabaseError for `durable` without the extra."""
        self._inside = AsyncAgentOrchestrator(**vars(given.as_options()))
        self._thread = LoopThread()
        if given.validate_api_key:
            try:
                self._thread.run(self._inside.check_credentials())
            except BaseException:
                self.close()
                raise

    @property
    def _options(self) -> Options:
        return self._inside._options

    def _configure(self, options: Options, changed: str) -> None:
        self._inside._configure(options, changed)

    run_agent = _blocking(AsyncAgentOrchestrator.execute_agent)
    run_multiple = _blocking(AsyncAgentOrchestrator.execute_multiple)
    stream_multiple = _iterated(AsyncAgentOrchestrator.stream_multiple)
    run_workflow = _blocking(AsyncAgentOrchestrator.execute_workflow)
    estimate = _blocking(AsyncAgentOrchestrator.estimate)
    plan = _blocking(AsyncAgentOrchestrator.plan)
    list_agents = delegated("_inside", AsyncAgentOrchestrator.list_agents)
    list_workflows = delegated("_inside", AsyncAgentOrchestrator.list_workflows)
    get_agent_info = delegated("_inside", AsyncAgentOrchestrator.get_agent_info)
    get_performance_summary = delegated("_inside", AsyncAgentOrchestrator.get_performance_summary)
    get_agent_performance = delegated("_inside", AsyncAgentOrchestrator.get_agent_performance)
    get_cost_breakdown = delegated("_inside", AsyncAgentOrchestrator.get_cost_breakdown)
    export_performance_metrics = delegated("_inside", AsyncAgentOrchestrator.export_performance_metrics)

    @property
    def spent_usd(self) -> float:
        """What was spent of `budget_usd`, in USD; 0 without a budget."""
        return self._inside.spent_usd

    @property
    def tracker(self) -> PerformanceTracker:
        """The ledger in the project's `.claude/metrics/`."""
        return self._inside.tracker

    def close(self) -> None:
        """Ends calls in flight, and closes connections, files and the thread; the next call opens new ones.

        Another thread that waits for a call gets a ClosedError.
        """
        self._thread.stop(self._inside.close)
        self._inside._close_files()

    def __enter__(self) -> AgentOrchestrator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Each method has the name of the async one so far, which `help` and tracebacks would show.
for _name, _member in vars(AgentOrchestrator).items():
    if isinstance(_member, FunctionType):
        _member.__name__, _member.__qualname__ = _name, f"{AgentOrchestrator.__name__}.{_name}"
        _member.__module__ = __name__
