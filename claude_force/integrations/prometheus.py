"""Writes ledger metrics in Prometheus' text format, version 0.0.4, for a scrape or a textfile collector."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Mapping, Tuple

from ..ledger.ddsketch import Distribution
from ..ledger.metrics import Metrics, Summary

_PREFIX = "claude_force"
_QUANTILES = (0.5, 0.95, 0.99)

Labels = Mapping[str, str]
Sample = Tuple[Labels, float]


def exposition(summary: Summary) -> str:
    """Returns text with a final newline. Durations are in seconds, money in USD: Prometheus' base units."""
    lines: List[str] = []
    for name, (text, samples_of) in _COUNTERS.items():
        lines += _head(name, "counter", text)
        lines += [
            _line(name, {**labels, **more}, value)
            for labels, metrics in _groups(summary)
            for more, value in samples_of(metrics)
        ]
    for name, (text, distribution_of) in _SUMMARIES.items():
        lines += _head(name, "summary", text)
        for labels, metrics in _groups(summary):
            lines += _quantiles(name, labels, distribution_of(metrics))
    return "\n".join([*lines, *_gauges(summary)]) + "\n"


def _groups(summary: Summary) -> Iterator[Tuple[Dict[str, str], Metrics]]:
    """Yields labels and metrics, sorted by agent, model and workflow."""
    named = {tuple(name or "" for name in group): metrics for group, metrics in summary.groups.items()}
    for group, metrics in sorted(named.items(), key=lambda one: one[0]):
        # Prometheus treats an empty label like an absent one.
        yield {name: value for name, value in zip(("agent", "model", "workflow"), group) if value}, metrics


def _tokens(metrics: Metrics) -> List[Sample]:
    fresh = max(0, metrics.input_tokens - metrics.cache_read_tokens - metrics.cache_write_tokens)
    return [
        ({"kind": "input"}, fresh),
        ({"kind": "cache_read"}, metrics.cache_read_tokens),
        ({"kind": "cache_write"}, metrics.cache_write_tokens),
        ({"kind": "output"}, metrics.output_tokens),
    ]


def _value(attribute: str) -> Callable[[Metrics], List[Sample]]:
    return lambda metrics: [({}, getattr(metrics, attribute))]


_COUNTERS: Dict[str, Tuple[str, Callable[[Metrics], List[Sample]]]] = {
    "executions_total": (
        "Executions by outcome.",
        lambda one: [({"outcome": "success"}, one.successes), ({"outcome": "error"}, one.failures)],
    ),
    "errors_total": (
        "Failed executions by error type.",
        lambda one: [({"type": name}, count) for name, count in sorted(one.errors.items())],
    ),
    "cached_total": ("Executions answered from the cache.", _value("cached")),
    "shared_total": ("Executions that shared the answer of an identical call.", _value("shared")),
    "incomplete_total": (
        "Incomplete answers by kind.",
        lambda one: [({"kind": kind}, getattr(one, kind)) for kind in ("empty", "refused", "truncated")],
    ),
    "turns_total": ("Turns of agents that used tools.", _value("turns")),
    "tool_calls_total": (
        "Tool calls by outcome.",
        lambda one: [
            ({"outcome": "success"}, one.tool_calls - one.failed_tool_calls),
            ({"outcome": "error"}, one.failed_tool_calls),
        ],
    ),
    "attempts_total": ("Requests made.", _value("attempts")),
    "retries_total": ("Requests after the first of an execution.", _value("retries")),
    "tokens_total": ("Tokens by kind; each token counts once.", _tokens),
    "cost_usd_total": ("USD spent, without unknown prices.", _value("cost")),
    "unknown_price_total": ("Answers with an unknown price.", _value("unknown_price")),
    "saved_usd_total": ("USD saved by cached and shared answers.", _value("saved_cost")),
}
_SUMMARIES: Dict[str, Tuple[str, Callable[[Metrics], Distribution]]] = {
    "execution_seconds": ("Seconds from the call to its result.", lambda one: one.wall),
    "wait_seconds": ("Seconds of an execution without a request on the wire.", lambda one: one.wait),
    "service_seconds": ("Seconds of an execution with a request on the wire.", lambda one: one.service),
}


def _quantiles(name: str, labels: Labels, values: Distribution) -> List[str]:
    quantiles = ((share, values.quantile(share)) for share in _QUANTILES)
    return [
        *(
            _line(name, {**labels, "quantile": f"{share:g}"}, milliseconds / 1000)
            for share, milliseconds in quantiles
            if milliseconds is not None
        ),
        _line(f"{name}_sum", labels, values.total / 1000),
        _line(f"{name}_count", labels, values.count),
    ]


def _gauges(summary: Summary) -> List[str]:
    """The values of the whole ledger. They may fall: writing to the prompt cache costs before it saves."""
    share = summary.at_limit.share()
    gauges: List[Tuple[str, str, float]] = [
        (
            "prompt_cache_saving_usd",
            "USD saved by the API's prompt cache.",
            summary.total().prompt_cache_saving,
        ),
        ("skipped_lines", "Lines of the ledger that could not be read.", summary.skipped),
    ]
    if share is not None:
        text = "Share of the time with requests on the wire that was at the concurrency limit."
        gauges.append(("time_at_concurrency_limit_ratio", text, share))
    return [
        line for name, text, value in gauges for line in (*_head(name, "gauge", text), _line(name, {}, value))
    ]


def _head(name: str, kind: str, text: str) -> List[str]:
    return [f"# HELP {_PREFIX}_{name} {text}", f"# TYPE {_PREFIX}_{name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{_PREFIX}_{name}{'{' + inside + '}' if inside else ''} {value!r}"


def _escaped(text: str) -> str:
    # UTF-8 has no lone surrogates.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
