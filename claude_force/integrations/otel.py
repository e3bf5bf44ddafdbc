"""OpenTelemetry: spans for calls and their requests, and metrics.

Needs the extra `otel`. The application configures OpenTelemetry, and so decides where spans and metrics go.
"""

from __future__ import annotations

from typing import List, Optional, Protocol, Sequence

from .. import __version__, settings
from ..costs import is_unpriced
from ..formatting import install_command
from ..transport.redaction import redact
from ..types import Attempt, CallCompleted, Observer, ToolCall
from . import conventions

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import SpanKind, StatusCode
except ImportError as error:
    raise ImportError(f"OpenTelemetry is not installed: {install_command('otel')}") from error

__all__ = ["OpenTelemetry", "instrument"]

_NAME = "claude_force"
_DEFAULT_ENDPOINT = "https://api.anthropic.com"


class Observable(Protocol):
    """An orchestrator, sync or async."""

    @property
    def observers(self) -> List[Observer]: ...


def instrument(
    orchestrator: Observable,
    *,
    content: bool = False,
    tracer_provider: Optional[trace.TracerProvider] = None,
    meter_provider: Optional[metrics.MeterProvider] = None,
) -> OpenTelemetry:
    """Traces and measures all further calls of `orchestrator`.

    Returns an observer; `orchestrator.observers.remove(observer)` ends it. The arguments are those of
    `OpenTelemetry`, and the endpoint is the orchestrator's if it has a `base_url`.

    Example:

        >>> with AgentOrchestrator() as orchestrator:
        ...     instrument(orchestrator)
        ...     orchestrator.run_agent("python-expert", "Explain generators")
    """
    base_url = None
    if hasattr(orchestrator, "base_url"):
        clouds = settings.clouds(getattr(orchestrator, "api_key", None))
        default = settings.endpoint(clouds[0]) if clouds else settings.endpoint() or _DEFAULT_ENDPOINT
        base_url = orchestrator.base_url or default
    observer = OpenTelemetry(
        content=content, base_url=base_url, tracer_provider=tracer_provider, meter_provider=meter_provider
    )
    orchestrator.observers.append(observer)
    return observer


class OpenTelemetry:
    """An observer that makes spans as children of the caller's current span, and records metrics.

    Args:
        content: whether spans contain the system prompt, the task, the answer and what tools were given.
        base_url: the endpoint for `server.address`; None leaves that out.
        tracer_provider, meter_provider: None for the application's global ones.

    Example:

        >>> orchestrator = AsyncAgentOrchestrator(observers=[OpenTelemetry(content=True)])
    """

    def __init__(
        self,
        *,
        content: bool = False,
        base_url: Optional[str] = None,
        tracer_provider: Optional[trace.TracerProvider] = None,
        meter_provider: Optional[metrics.MeterProvider] = None,
    ) -> None:
        self._content = content
        self._endpoint = conventions.server_attributes(base_url)
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self._instruments = _Instruments(meter, self._endpoint)

    def __call__(self, completed: CallCompleted) -> None:
        """Makes the spans of a completed call, with the times of the call and of its requests."""
        call, result = completed.call, completed.result
        began = _nanoseconds(completed.started)
        span = self._tracer.start_span(
            f"invoke_agent {call.agent_name}",
            kind=SpanKind.INTERNAL,
            attributes=conventions.call_attributes(completed),
            start_time=began,
        )
        within = trace.set_span_in_context(span)
        if span.is_recording():
            span.set_attributes(conventions.result_attributes(result))
            if self._content:
                span.set_attributes(conventions.content_attributes(completed))
            if not result.success:
                span.set_status(StatusCode.ERROR, conventions.error_description(result))
            for number, attempt in enumerate(result.timeline, 1):
                self._request_span(completed, attempt, number, began, within)
            for one in result.tool_calls:
                self._tool_span(one, began, within)
        self._instruments.record(completed, within)
        span.end(began + _nanoseconds(result.duration))

    def _request_span(
        self,
        completed: CallCompleted,
        attempt: Attempt,
        number: int,
        call_began: int,
        within: context.Context,
    ) -> None:
        result = completed.result
        span = self._tracer.start_span(
            conventions.encodable(f"chat {completed.call.model}"),
            within,
            SpanKind.CLIENT,
            conventions.attempt_attributes(completed, number, self._endpoint),
            start_time=call_began + _nanoseconds(attempt.began),
        )
        if attempt.error is not None:
            is_last = number == len(result.timeline)
            message = conventions.error_description(result) if is_last else attempt.error
            span.set_status(StatusCode.ERROR, message)
        span.end(call_began + _nanoseconds(attempt.ended))

    def _tool_span(self, call: ToolCall, call_began: int, within: context.Context) -> None:
        attributes = conventions.tool_attributes(call, self._content)
        began = call_began + _nanoseconds(call.began)
        span = self._tracer.start_span(
            f"execute_tool {attributes['gen_ai.tool.name']}",
            within,
            SpanKind.INTERNAL,
            attributes,
            start_time=began,
        )
        if call.error is not None:
            # What a tool said may have content of files.
            message = conventions.encodable(redact(call.error)) if self._content else None
            span.set_status(StatusCode.ERROR, message)
        span.end(began + _nanoseconds(call.seconds))


class _Instruments:
    """The metrics, with the names and bounds of the conventions where they have any."""

    def __init__(self, meter: metrics.Meter, endpoint: conventions.Attributes) -> None:
        def histogram(name: str, unit: str, text: str, buckets: Sequence[float]) -> metrics.Histogram:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=buckets)

        self._endpoint = endpoint
        self._calls = histogram(
            "gen_ai.invoke_agent.duration", "s", "Time from a call to its result.", conventions.CALL_BUCKETS
        )
        self._requests = histogram(
            "gen_ai.client.operation.duration", "s", "Time of one request.", conventions.REQUEST_BUCKETS
        )
        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of an answer.", conventions.TOKEN_BUCKETS
        )
        self._cost = meter.create_counter("claude_force.cost", "USD", "Known cost of calls.")
        self._unknown = meter.create_counter(
            "claude_force.cost.unknown", "{call}", "Answers with an unknown price."
        )
        self._saved = meter.create_counter(
            "claude_force.saved_cost", "USD", "Cost saved by cached and shared answers."
        )
        self._tool_calls = meter.create_counter(
            "claude_force.tool_calls", "{call}", "Tool calls of agents, also failed and denied ones."
        )
        self._hits = meter.create_counter("claude_force.cache.hits", "{call}", "Answers from the cache.")

    def record(self, completed: CallCompleted, within: context.Context) -> None:
        """Records a call; `within` has its span, for exemplars."""
        result, call = completed.result, conventions.call_dimensions(completed)
        self._calls.record(result.duration, call, within)
        for attempt in result.timeline:
            request = conventions.request_dimensions(completed, self._endpoint, attempt.error)
            self._requests.record(max(0.0, attempt.ended - attempt.began), request, within)
        tokens = conventions.used_tokens(result)
        request = conventions.request_dimensions(completed, self._endpoint, None) if tokens else {}
        for kind, count in tokens:
            self._tokens.record(count, {**request, "gen_ai.token.type": kind}, within)
        if result.cost:
            self._cost.add(result.cost, call, within)
        if is_unpriced(result.success, result.cost):
            self._unknown.add(1, call, within)
        if result.saved_cost:
            self._saved.add(result.saved_cost, call, within)
        for one in result.tool_calls:
            self._tool_calls.add(1, conventions.tool_dimensions(completed, one), within)
        if result.cached:
            self._hits.add(1, call, within)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
