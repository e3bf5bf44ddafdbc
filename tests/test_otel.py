"""OpenTelemetry: what the SDK's exporters get of calls to the fault server."""

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from extras import missing

if missing("otel"):
    pytest.skip(missing("otel"), allow_module_level=True)

from fleet import MODEL, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from claude_force.errors import ServerError
from claude_force.formatting import install_command
from claude_force.integrations import conventions
from claude_force.integrations.otel import OpenTelemetry, instrument
from claude_force.orchestrator import AgentOrchestrator
from claude_force.testing import MessagesServer, Script, faults, tool_calls
from claude_force.types import AgentResult, Attempt, Call, CallCompleted, Clock, Usage

CALL = Call("python-expert", ("You explain Python.",), "Explain decorators", MODEL, 300)
ANSWER = AgentResult(
    "python-expert",
    True,
    "A decorator wraps a function.",
    model=MODEL,
    usage=Usage(10, 20, 5, 7),
    cost=0.25,
    attempts=1,
    duration=2.0,
    stop_reason="end_turn",
    timeline=(Attempt(0.5, 1.75, 10),),
)


class Watched:
    """An application's OpenTelemetry, exporting to memory."""

    def __init__(self, **provider):
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracer_provider = TracerProvider(**provider)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._reader])
        self.tracer = self.tracer_provider.get_tracer("the application")

    @property
    def providers(self):
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def spans(self, start=""):
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(start)]

    def calls(self):
        return self.spans("invoke_agent")

    def requests(self):
        return sorted(self.spans("chat"), key=lambda span: span.start_time)

    def points(self, name):
        """The data points of a metric."""
        data = self._reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def config(tmp_path):
    return write_project(tmp_path)


def observe(watched, result=ANSWER, call=CALL, **executed):
    """Passes a completed call to the observer."""
    OpenTelemetry(base_url="http://localhost:8080", **watched.providers)(
        CallCompleted(call, result, 1_700_000_000.0, **executed)
    )


def parent_of(span):
    return span.parent.span_id if span.parent else None


async def test_call_and_request_are_spans(config, watched):
    async with fleet(config, clock=Clock(), prices={MODEL: {"input": 3.0, "output": 15.0}}) as (
        orchestrator,
        server,
    ):
        instrument(orchestrator, **watched.providers)
        result = await orchestrator.execute_agent("python-expert", "Explain decorators", max_tokens=300)
        port = int(server.base_url.rsplit(":", 1)[1])
    (call,), (request,) = watched.calls(), watched.requests()
    assert (call.name, call.kind) == ("invoke_agent python-expert", SpanKind.INTERNAL)
    assert (request.name, request.kind) == (f"chat {MODEL}", SpanKind.CLIENT)
    assert parent_of(call) is None
    assert parent_of(request) == call.context.span_id
    assert call.start_time <= request.start_time < request.end_time <= call.end_time
    assert call.end_time - call.start_time == pytest.approx(result.duration * 1e9, abs=1000)
    assert request.end_time - request.start_time == pytest.approx(result.service * 1e9, abs=1000)
    common = {
        "gen_ai.provider.name": "anthropic",
        "gen_ai.system": "anthropic",
        "gen_ai.agent.name": "python-expert",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": 300,
        "gen_ai.response.model": result.model,
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": result.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": result.usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_write.input_tokens": 0,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "anthropic.request.id": result.request_id,
    }
    assert dict(call.attributes) == {
        **common,
        "gen_ai.operation.name": "invoke_agent",
        "claude_force.source": "model",
        "claude_force.attempts": 1,
        "claude_force.wait": result.wait,
        "claude_force.cost": result.cost,
    }
    assert dict(request.attributes) == {
        **common,
        "gen_ai.operation.name": "chat",
        "server.address": "127.0.0.1",
        "server.port": port,
        "claude_force.attempt": 1,
    }
    assert call.status.status_code == request.status.status_code == StatusCode.UNSET


async def test_each_attempt_is_a_span(config, watched):
    async with fleet(config, {"faults": [faults.status(529)]}) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        await orchestrator.execute_agent("python-expert", "Explain decorators")
    (call,), (first, second) = watched.calls(), watched.requests()
    assert {parent_of(first), parent_of(second)} == {call.context.span_id}
    assert call.start_time <= first.start_time <= first.end_time < second.start_time <= second.end_time
    assert second.end_time <= call.end_time
    assert first.attributes["error.type"] == first.status.description == "OverloadedError"
    assert first.status.status_code == StatusCode.ERROR
    assert "gen_ai.usage.input_tokens" not in first.attributes
    assert "error.type" not in second.attributes
    assert [span.attributes["claude_force.attempt"] for span in (first, second)] == [1, 2]
    assert call.status.status_code == second.status.status_code == StatusCode.UNSET
    durations = {
        point.attributes.get("error.type"): point.count
        for point in watched.points("gen_ai.client.operation.duration")
    }
    assert durations == {"OverloadedError": 1, None: 1}


async def test_failed_call_has_its_error(config, watched):
    refused = faults.status(401, message="The key sk-ant-api03-0123456789 is not valid")
    async with fleet(config, {"faults": [refused]}) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        await orchestrator.execute_agent("python-expert", "Explain decorators")
    (call,), (request,) = watched.calls(), watched.requests()
    for span in (call, request):
        assert span.status.status_code == StatusCode.ERROR
        assert "is not valid" in span.status.description
        assert "0123456789" not in span.status.description
        assert span.attributes["error.type"] == "AuthenticationError"
        assert not [name for name in span.attributes if name.startswith("gen_ai.usage")]
    assert request.attributes["http.response.status_code"] == 401
    (duration,) = watched.points("gen_ai.invoke_agent.duration")
    assert duration.attributes["error.type"] == "AuthenticationError"
    assert watched.points("gen_ai.client.token.usage") == []


async def test_cached_answer_has_no_request(config, watched):
    async with fleet(config) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        for _ in range(2):
            result = await orchestrator.execute_agent("python-expert", "Explain decorators")
    assert result.cached
    sent, cached = watched.calls()
    assert [parent_of(span) for span in watched.requests()] == [sent.context.span_id]
    assert cached.attributes["claude_force.source"] == "cache"
    assert cached.attributes["claude_force.cache.age"] == result.cache_age
    assert not [name for name in cached.attributes if name.startswith("gen_ai.usage")]
    assert [point.count for point in watched.points("gen_ai.client.token.usage")] == [1, 1]
    assert [point.value for point in watched.points("claude_force.cache.hits")] == [1]


async def test_shared_answer_has_no_request(config, watched):
    async with fleet(config, {"time_to_first_token": 0.2}, clock=Clock()) as (orchestrator, server):
        instrument(orchestrator, **watched.providers)
        await asyncio.gather(*(orchestrator.execute_agent("python-expert", "Explain sets") for _ in range(5)))
        assert len(server.requests) == 1
    sources = sorted(span.attributes["claude_force.source"] for span in watched.calls())
    assert sources == ["model", "shared", "shared", "shared", "shared"]
    assert len(watched.requests()) == 1


async def test_content_is_off_by_default(config, watched):
    async with fleet(config, {"answer": lambda body: "The answer."}) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        await orchestrator.execute_agent("python-expert", "The task.")
    everything = "".join(span.to_json() for span in watched.spans())
    assert "The answer." not in everything
    assert "The task." not in everything
    assert "You explain Python" not in everything


async def test_content_follows_conventions(config, watched):
    async with fleet(config, {"answer": lambda body: "Die Lösung."}) as (orchestrator, _):
        instrument(orchestrator, content=True, **watched.providers)
        await orchestrator.execute_agent("python-expert", "Die Aufgabe: ¿?")
    (call,) = watched.calls()
    system = json.loads(call.attributes["gen_ai.system_instructions"])
    assert [part["type"] for part in system] == ["text", "text"]
    assert "You explain Python" in system[0]["content"]
    assert json.loads(call.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Die Aufgabe: ¿?"}]}
    ]
    assert json.loads(call.attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Die Lösung."}],
            "finish_reason": "stop",
        }
    ]
    assert "Lösung" in call.attributes["gen_ai.output.messages"]
    (request,) = watched.requests()
    assert not [name for name in request.attributes if name.endswith("messages")]


async def test_concurrent_calls_keep_parents(config, watched):
    async def ask(number):
        with watched.tracer.start_as_current_span(f"caller {number}"):
            return await orchestrator.execute_agent("python-expert", f"Explain {number}", max_tokens=number)

    async with fleet(config, max_concurrent=20) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        await asyncio.gather(*(ask(number) for number in range(1, 51)))
    callers = {span.context.span_id: int(span.name.split()[1]) for span in watched.spans("caller")}
    calls = watched.calls()
    assert len(calls) == len(watched.requests()) == 50
    for call in calls:
        assert callers[parent_of(call)] == call.attributes["gen_ai.request.max_tokens"]
    within = {call.context.span_id: call for call in calls}
    for request in watched.requests():
        call = within[parent_of(request)]
        assert request.context.trace_id == call.context.trace_id
        assert call.start_time <= request.start_time <= request.end_time <= call.end_time


def test_sync_call_keeps_its_parent(config, watched):
    with MessagesServer() as server, AgentOrchestrator(
        config, "test-key", base_url=server.base_url
    ) as orchestrator:
        observer = instrument(orchestrator, **watched.providers)
        with watched.tracer.start_as_current_span("caller"):
            orchestrator.run_agent("python-expert", "Explain decorators")
        orchestrator.observers.remove(observer)
        orchestrator.run_agent("python-expert", "Explain lists")
    (caller,), (call,) = watched.spans("caller"), watched.calls()
    assert parent_of(call) == caller.context.span_id


async def test_workflow_steps_are_named(config, watched):
    async with fleet(config) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        await orchestrator.execute_workflow("review", "Look at this")
    assert [
        (
            span.attributes["gen_ai.agent.name"],
            span.attributes["claude_force.workflow.name"],
            span.attributes["claude_force.workflow.position"],
        )
        for span in watched.calls()
    ] == [("python-expert", "review", 1), ("code-reviewer", "review", 2)]


async def test_metrics_match_results(config, watched):
    prices = {MODEL: {"input": 3.0, "output": 15.0}}
    async with fleet(config, prices=prices) as (orchestrator, _):
        instrument(orchestrator, **watched.providers)
        results = await orchestrator.execute_multiple(
            [("python-expert", f"Explain {number}") for number in range(8)], model=MODEL
        )
        again = await orchestrator.execute_agent("python-expert", "Explain 0", model=MODEL)
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in watched.points("gen_ai.client.token.usage")
    }
    assert tokens == {
        "input": sum(result.usage.prompt_tokens for result in results),
        "output": sum(result.usage.output_tokens for result in results),
    }
    (cost,) = watched.points("claude_force.cost")
    assert cost.value == pytest.approx(sum(result.cost for result in results))
    assert watched.points("claude_force.cost.unknown") == []
    (saved,) = watched.points("claude_force.saved_cost")
    assert saved.value == pytest.approx(again.saved_cost)
    durations = {
        point.attributes["claude_force.source"]: point.count
        for point in watched.points("gen_ai.invoke_agent.duration")
    }
    assert durations == {"model": 8, "cache": 1}


def test_buckets_follow_conventions(watched):
    observe(watched)
    bounds = {
        name: watched.points(name)[0].explicit_bounds
        for name in (
            "gen_ai.invoke_agent.duration",
            "gen_ai.client.operation.duration",
            "gen_ai.client.token.usage",
        )
    }
    assert bounds == {
        "gen_ai.invoke_agent.duration": tuple(0.1 * 2**power for power in range(13)),
        "gen_ai.client.operation.duration": tuple(0.01 * 2**power for power in range(14)),
        "gen_ai.client.token.usage": tuple(4**power for power in range(14)),
    }


def test_metrics_have_few_dimensions(watched):
    observe(watched, workflow_name="review", workflow_position=3)
    (duration,) = watched.points("gen_ai.client.operation.duration")
    assert duration.sum == 1.25
    assert dict(duration.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.agent.name": "python-expert",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "server.address": "localhost",
        "server.port": 8080,
    }
    (whole,) = watched.points("gen_ai.invoke_agent.duration")
    assert whole.sum == 2.0
    assert dict(whole.attributes) == {
        "gen_ai.agent.name": "python-expert",
        "gen_ai.request.model": MODEL,
        "claude_force.source": "model",
        "claude_force.workflow.name": "review",
    }


def test_prompt_cache_tokens_are_input(watched):
    observe(watched)
    (call,) = watched.calls()
    assert call.attributes["gen_ai.usage.input_tokens"] == 22
    assert call.attributes["gen_ai.usage.cache_write.input_tokens"] == 5
    assert call.attributes["gen_ai.usage.cache_read.input_tokens"] == 7
    (point,) = [
        point
        for point in watched.points("gen_ai.client.token.usage")
        if point.attributes["gen_ai.token.type"] == "input"
    ]
    assert point.sum == 22


def test_counts_unknown_prices(watched):
    observe(watched, replace(ANSWER, cost=None))
    assert watched.points("claude_force.cost") == []
    assert [point.value for point in watched.points("claude_force.cost.unknown")] == [1]
    assert "claude_force.cost" not in watched.calls()[0].attributes


def test_spans_have_request_options(watched):
    options = {"temperature": 0.5, "top_k": 3, "top_p": "much", "stop_sequences": ["END"], "metadata": {}}
    observe(watched, call=replace(CALL, options=options))
    (request,) = watched.requests()
    assert request.attributes["gen_ai.request.temperature"] == 0.5
    assert request.attributes["gen_ai.request.top_k"] == 3
    assert request.attributes["gen_ai.request.stop_sequences"] == ("END",)
    assert "gen_ai.request.top_p" not in request.attributes


def test_attempt_has_its_own_error(watched):
    late = replace(
        ANSWER,
        success=False,
        error=ServerError("The server failed"),
        timeline=(Attempt(0.0, 0.5, 1, "SilenceError"), Attempt(0.75, 2.0, 1, "CancelledError")),
    )
    observe(watched, late)
    assert [span.attributes["error.type"] for span in watched.requests()] == [
        "SilenceError",
        "CancelledError",
    ]
    assert watched.calls()[0].attributes["error.type"] == "ServerError"


def test_unsampled_call_is_counted():
    watched = Watched(sampler=ALWAYS_OFF)
    observe(watched)
    assert watched.spans() == []
    assert [point.count for point in watched.points("gen_ai.invoke_agent.duration")] == [1]


def test_works_unconfigured():
    done = run_python(
        f"""
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from claude_force.integrations.otel import OpenTelemetry
from claude_force.types import *

before = trace.get_tracer_provider(), metrics.get_meter_provider()
tell, executed = OpenTelemetry(), {CallCompleted(CALL, ANSWER, 1_700_000_000.0)!r}
tell(executed)
print(before == (trace.get_tracer_provider(), metrics.get_meter_provider()))
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
print(len(exporter.get_finished_spans()))
tell(executed)
print(len(exporter.get_finished_spans()))
"""
    )
    # The package configures nothing itself; a provider that is set later gets the spans from then on.
    assert (done.stdout.split(), done.stderr) == (["True", "0", "2"], "")


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.anthropic.com", {"server.address": "api.anthropic.com", "server.port": 443}),
        ("http://user:word@[::1]:8080/v1", {"server.address": "::1", "server.port": 8080}),
        ("unix:/run/model.sock", {}),
        (None, {}),
    ],
)
def test_server_attributes(base_url, expected):
    assert conventions.server_attributes(base_url) == expected


async def test_endpoint_from_environment(config, watched, monkeypatch):
    async with fleet(config) as (orchestrator, server):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        orchestrator.base_url = None
        instrument(orchestrator, **watched.providers)
        await orchestrator.execute_agent("python-expert", "Explain decorators")
    assert watched.requests()[0].attributes["server.address"] == "127.0.0.1"


@given(text=st.text(st.characters()))
def test_any_text_is_encodable(text):
    watched = Watched()
    result = replace(ANSWER, model=text, stop_reason=text, request_id=text, output=text)
    OpenTelemetry(content=True, **watched.providers)(
        CallCompleted(replace(CALL, task=text, system=(text,), model=text), result, 0.0, workflow_name=text)
    )
    for span in watched.spans():
        span.to_json().encode("utf-8")
        for value in [span.name, *span.attributes.values()]:
            str(value).encode("utf-8")


class Collector:
    """A collector for OTLP over HTTP on loopback; `bodies` are the trace requests."""

    def __init__(self):
        self.bodies = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    collector.bodies.append(body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


async def test_spans_reach_a_collector(config):
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    with Collector() as collector:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector.url)))
        async with fleet(config, {"answer": lambda body: "Fertig \ud800"}) as (orchestrator, _):
            instrument(orchestrator, content=True, tracer_provider=provider)
            await orchestrator.execute_multiple([("python-expert", f"Explain {n}") for n in range(3)])
        provider.shutdown()
    sent = [ExportTraceServiceRequest.FromString(body) for body in collector.bodies]
    spans = [
        span
        for export in sent
        for resource in export.resource_spans
        for scope in resource.scope_spans
        if scope.scope.name == "claude_force"
        for span in scope.spans
    ]
    assert sorted(span.name.split()[0] for span in spans) == ["chat"] * 3 + ["invoke_agent"] * 3
    calls = {span.span_id: span for span in spans if span.name.startswith("invoke_agent")}
    for span in spans:
        if span.name.startswith("chat"):
            call = calls[span.parent_span_id]
            assert call.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= call.end_time_unix_nano


def run_python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_package_does_not_import_otel():
    done = run_python(
        "import sys, claude_force, claude_force.orchestrator, claude_force.integrations.json_logs\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_extra_names_its_install():
    done = run_python(
        "import sys\nsys.modules['opentelemetry'] = None\nimport claude_force.integrations.otel"
    )
    assert done.returncode != 0
    assert done.stderr.strip().endswith(
        f"ImportError: OpenTelemetry is not installed: {install_command('otel')}"
    )


def test_unknown_endpoint_is_left_out(watched):
    orchestrator = SimpleNamespace(observers=[])
    instrument(orchestrator, **watched.providers)
    orchestrator.observers[0](CallCompleted(CALL, ANSWER, 1_700_000_000.0))
    assert "server.address" not in watched.requests()[0].attributes


def test_transport_adds_no_spans(config):
    program = (
        "import asyncio, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from fleet import fleet\n"
        "from opentelemetry import trace\n"
        "from test_otel import Watched\n"
        "watched = Watched()\n"
        "trace.set_tracer_provider(watched.tracer_provider)\n"
        "async def main():\n"
        f"    async with fleet({str(config)!r}) as (orchestrator, server):\n"
        "        for number in range(2):\n"
        "            with watched.tracer.start_as_current_span('caller'):\n"
        "                await orchestrator.execute_agent('python-expert', f'Explain {number}')\n"
        "        print(['traceparent' in request.headers for request in server.requests])\n"
        "asyncio.run(main())\n"
        "print([span.name for span in watched.spans()])\n"
    )
    done = run_python(program)
    assert done.stdout.splitlines() == ["[False, False]", "['caller', 'caller']"], done.stderr


class TestTools:
    """Agents that use tools: a span for each request and each tool call, below that of the agent."""

    LOOK = tool_calls(("Read", {"file_path": "a.txt"}), ("Nope\ud800", {"x": 1}))

    @pytest.fixture
    def spans(self, config, watched):
        """Runs an agent; returns a function that finds the spans whose names begin so."""

        def run(**options):
            with MessagesServer(answer=Script([self.LOOK, "Done."])) as server:
                with AgentOrchestrator(config, api_key="x", base_url=server.base_url) as orchestrator:
                    instrument(orchestrator, **watched.providers, **options)
                    self.result = orchestrator.run_agent("python-expert", "Look", tools="read")
            assert self.result.success
            return watched.spans

        return run

    def test_calls_are_children_of_the_agent(self, spans, watched):
        found = spans()("execute_tool")
        (agent,) = watched.calls()
        read, unknown = found
        assert read.name == "execute_tool Read" and unknown.name.startswith("execute_tool Nope")
        assert parent_of(read) == agent.context.span_id
        assert read.kind is SpanKind.INTERNAL
        attributes = dict(read.attributes)
        assert attributes["gen_ai.operation.name"] == "execute_tool"
        assert attributes["gen_ai.tool.name"] == "Read"
        assert attributes["gen_ai.tool.call.id"] == self.result.tool_calls[0].id
        assert attributes["gen_ai.tool.type"] == "function"
        assert "gen_ai.tool.call.arguments" not in attributes
        assert agent.start_time <= read.start_time <= read.end_time <= agent.end_time

    def test_failed_call_is_an_error_without_content(self, spans):
        failed = spans()("execute_tool")[1]
        assert failed.status.status_code is StatusCode.ERROR and failed.status.description is None
        assert failed.attributes["error.type"] == "tool_error"

    def test_content_has_the_arguments(self, spans):
        read = spans(content=True)("execute_tool")[0]
        assert json.loads(read.attributes["gen_ai.tool.call.arguments"]) == {"file_path": "a.txt"}

    def test_each_request_has_the_tokens_of_its_turn(self, spans, watched):
        spans()
        used = [one.attributes["gen_ai.usage.output_tokens"] for one in watched.requests()]
        assert used == [turn.usage.output_tokens for turn in self.result.turns]
        reasons = [one.attributes["gen_ai.response.finish_reasons"] for one in watched.requests()]
        assert reasons == [("tool_use",), ("end_turn",)]
        (agent,) = watched.calls()
        assert agent.attributes["gen_ai.usage.output_tokens"] == sum(used)
        assert (agent.attributes["claude_force.turns"], agent.attributes["claude_force.tool_calls"]) == (2, 2)

    def test_names_of_a_model_are_no_dimension(self, spans, watched):
        spans()
        names = {point.attributes["gen_ai.tool.name"] for point in watched.points("claude_force.tool_calls")}
        assert names == {"Read", "other"}
