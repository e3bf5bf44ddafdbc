"""OpenTelemetry: a span for each call, one under it for each of its requests, and their figures as metrics.

Needs the extra `otel`. Where spans and figures go is up to the application, which sets OpenTelemetry up.
"""

from __future__ import annotations

from typing import List, Optional, Protocol

from .. import __version__, settings
from ..advice import install_command
from ..costs import is_unpriced
from ..types import Attempt, CallCompleted, Observer
from . import conventions

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import SpanKind, StatusCode
except ImportError as error:
    raise ImportError(f"OpenTelemetry is not installed: {install_command('otel')}") from error

__all__ = ["OpenTelemetry", "instrument"]

_NAME = "claude_force"
_DEFAULT_ENDPOINT = "https://api.anthropic.com"


class Observed(Protocol):
    """An orchestrator of either kind."""

    @property
    def observers(self) -> List[Observer]: ...


def instrument(
    orchestrator: Observed,
    *,
    content: bool = False,
    tracer_provider: Optional[trace.TracerProvider] = None,
    meter_provider: Optional[metrics.MeterProvider] = None,
) -> OpenTelemetry:
    """Has `orchestrator` tell of all its calls from now on; `orchestrator.observers.remove(...)` ends it.

    Takes the same as OpenTelemetry; the endpoint is the orchestrator's, where it says it.
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
    """One of an orchestrator's `observers`. Its spans are children of the caller's current one.

    Args:
        content: whether spans hold the system prompt, the task and the answer, word for word.
        base_url: the endpoint, for `server.address`; None leaves that out.
        tracer_provider, meter_provider: None for the application's global ones.
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
        self._endpoint = conventions.server(base_url)
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        self._figures = _Figures(metrics.get_meter(_NAME, __version__, meter_provider), self._endpoint)

    def __call__(self, executed: CallCompleted) -> None:
        """Makes the spans of a call that has ended, at the times at which it was under way."""
        call, result = executed.call, executed.result
        began = _nanoseconds(executed.started)
        span = self._tracer.start_span(
            f"invoke_agent {call.agent_name}",
            kind=SpanKind.INTERNAL,
            attributes=conventions.of_call(executed),
            start_time=began,
        )
        within = trace.set_span_in_context(span)
        if span.is_recording():
            span.set_attributes(conventions.of_result(result))
            if self._content:
                span.set_attributes(conventions.of_content(executed))
            if not result.success:
                span.set_status(StatusCode.ERROR, conventions.description(result))
            for number, attempt in enumerate(result.timeline, 1):
                self._request(executed, attempt, number, began, within)
        self._figures.add(executed, within)
        span.end(began + _nanoseconds(result.duration))

    def _request(
        self, executed: CallCompleted, attempt: Attempt, number: int, call_began: int, within: context.Context
    ) -> None:
        result = executed.result
        span = self._tracer.start_span(
            conventions.sendable(f"chat {executed.call.model}"),
            within,
            SpanKind.CLIENT,
            conventions.of_attempt(executed, number, self._endpoint),
            start_time=call_began + _nanoseconds(attempt.began),
        )
        if attempt.error is not None:
            last = number == len(result.timeline)
            span.set_status(StatusCode.ERROR, conventions.description(result) if last else attempt.error)
        span.end(call_began + _nanoseconds(attempt.ended))


class _Figures:
    """The instruments, by the conventions' names and bounds where they have any."""

    def __init__(self, meter: metrics.Meter, endpoint: conventions.Attributes) -> None:
        self._endpoint = endpoint
        self._calls = meter.create_histogram(
            "gen_ai.invoke_agent.duration",
            "s",
            "From a call to its result, waits and retries included.",
            explicit_bucket_boundaries_advisory=conventions.CALL_BUCKETS,
        )
        self._requests = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "One request on the wire.",
            explicit_bucket_boundaries_advisory=conventions.REQUEST_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of an answer; those of the prompt cache are input.",
            explicit_bucket_boundaries_advisory=conventions.TOKEN_BUCKETS,
        )
        self._cost = meter.create_counter("claude_force.cost", "USD", "What calls cost, where it is known.")
        self._unknown = meter.create_counter(
            "claude_force.cost.unknown", "{call}", "Answers without a price."
        )
        self._saved = meter.create_counter(
            "claude_force.saved_cost", "USD", "What kept and shared answers saved."
        )
        self._hits = meter.create_counter("claude_force.cache.hits", "{call}", "Answers from the cache.")

    def add(self, executed: CallCompleted, within: context.Context) -> None:
        """`within` has the call's span, for exemplars."""
        result = executed.result
        call = conventions.of_measure(executed)
        self._calls.record(result.duration, call, within)
        for attempt in result.timeline:
            told = conventions.of_request_measure(executed, self._endpoint, attempt.error)
            self._requests.record(max(0.0, attempt.ended - attempt.began), told, within)
        tokens = conventions.tokens(result)
        told = conventions.of_request_measure(executed, self._endpoint, None) if tokens else {}
        for kind, count in tokens:
            self._tokens.record(count, {**told, "gen_ai.token.type": kind}, within)
        if result.cost:
            self._cost.add(result.cost, call, within)
        if is_unpriced(result.success, result.cost):
            self._unknown.add(1, call, within)
        if result.saved_cost:
            self._saved.add(result.saved_cost, call, within)
        if result.cached:
            self._hits.add(1, call, within)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
