"""What it costs to tell of one call: CPU time of the thread that makes it, and of the exporter's thread.

No server and no network: one call with two requests is told again and again, to exporters that drop what
they get, in a process of its own: `python -m benchmarks.observers`.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from claude_force.engine.result_builder import log_result
from claude_force.integrations import conventions
from claude_force.integrations.json_logs import log_as_json
from claude_force.integrations.otel import OpenTelemetry
from claude_force.types import AgentResult, Attempt, Call, CallCompleted, Usage

from .part import Found, Part, spread, table
from .processes import answered

CALLS, ROUNDS = 20_000, 5

CALL = Call("reviewer", ("You review code. " * 200,), "Review this. " * 300, "claude-sonnet-5-5", 4096)
RESULT = AgentResult(
    "reviewer",
    True,
    "It is fine. " * 120,
    model="claude-sonnet-5-5",
    usage=Usage(1500, 400, 0, 900),
    cost=0.011,
    attempts=2,
    duration=4.2,
    stop_reason="end_turn",
    request_id="req_011CS",
    timeline=(Attempt(0.0, 0.4, 10, "OverloadedError"), Attempt(1.1, 4.2, 10)),
)
EXECUTED = CallCompleted(CALL, RESULT, 1_700_000_000.0)


class Dropping(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Nowhere:
    """A stream that keeps nothing."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


def telling(content: bool = False, **sampling: Any) -> Tuple[Callable[[], Any], TracerProvider]:
    provider = TracerProvider(**sampling)
    provider.add_span_processor(BatchSpanProcessor(Dropping(), max_queue_size=100_000))
    observer = OpenTelemetry(
        content=content,
        base_url="https://api.anthropic.com",
        tracer_provider=provider,
        meter_provider=MeterProvider([InMemoryMetricReader()]),
    )
    return lambda: observer(EXECUTED), provider


def by_hand() -> Tuple[Callable[[], Any], TracerProvider]:
    """The SDK alone: the same spans and figures, their attributes made beforehand."""
    provider, reader = TracerProvider(), InMemoryMetricReader()
    provider.add_span_processor(BatchSpanProcessor(Dropping(), max_queue_size=100_000))
    tracer, meter = provider.get_tracer("by hand"), MeterProvider([reader]).get_meter("by hand")
    histogram, counter = meter.create_histogram("h"), meter.create_counter("c")
    endpoint = conventions.server_attributes("https://api.anthropic.com")
    outer = {**conventions.call_attributes(EXECUTED), **conventions.result_attributes(RESULT)}
    inner = [conventions.attempt_attributes(EXECUTED, number, endpoint) for number in (1, 2)]
    reported = conventions.request_dimensions(EXECUTED, endpoint, None)

    def tell() -> None:
        span = tracer.start_span("outer", attributes=outer)
        within = trace.set_span_in_context(span)
        for each in inner:
            tracer.start_span("inner", within, attributes=each).end()
        for _ in range(5):
            histogram.record(1.0, reported, within)
        counter.add(1, reported, within)
        span.end()

    return tell, provider


def cost(tell: Callable[[], Any]) -> Tuple[float, float]:
    """Microseconds of CPU a call: of this thread, of the process."""
    of_thread, of_process = time.thread_time(), time.process_time()
    for _ in range(CALLS):
        tell()
    return (time.thread_time() - of_thread) * 1e6 / CALLS, (time.process_time() - of_process) * 1e6 / CALLS


def reported() -> Dict[str, List[Tuple[float, float]]]:
    """The subjects in turn within each round."""
    logging.getLogger("claude_force").propagate = False
    full, first = telling()
    words, second = telling(content=True)
    sampled, third = telling(sampler=ALWAYS_OFF)
    alone, fourth = by_hand()
    bare = OpenTelemetry()
    logs = log_as_json(Nowhere())  # type: ignore[arg-type]
    subjects: Dict[str, Callable[[], Any]] = {
        "OpenTelemetry not set up": lambda: bare(EXECUTED),
        "spans and metrics": full,
        "the SDK's own part of that": alone,
        "spans with content, and metrics": words,
        "spans not sampled, and metrics": sampled,
        "a line of JSON": lambda: log_result(RESULT),
    }
    found: Dict[str, List[Tuple[float, float]]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, tell in subjects.items():
            found[name].append(cost(tell))
    logs.stop()
    for provider in (first, second, third, fourth):
        provider.shutdown()
    return found


def measure() -> Found:
    return {"rounds": ROUNDS, "us": answered("-m", "benchmarks.observers")}


def page(found: Found) -> Iterator[str]:
    yield (
        "One call with two requests, told to exporters that drop what they get: us of CPU, "
        f"{found['rounds']} rounds."
    )
    rows = [
        (name, *(spread(column, "{:.1f}") for column in zip(*rounds))) for name, rounds in found["us"].items()
    ]
    yield from ("", *table(("", "the call itself", "whole process"), rows))


PART = Part("observers", "What telling of a call costs", measure, page, versions=("opentelemetry-sdk",))


if __name__ == "__main__":
    print(json.dumps(reported()))
