"""The ledger's figures in Prometheus' text exposition format, version 0.0.4, for a scrape or a textfile."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Mapping, Tuple

from ..ledger.ddsketch import Distribution
from ..ledger.metrics import Metrics, Summary

_PREFIX = "claude_force"
_QUANTILES = (0.5, 0.95, 0.99)

Labels = Mapping[str, str]
Sample = Tuple[Labels, float]


def exposition(summary: Summary) -> str:
    """Text with a final newline. Times are in seconds, money in USD, as Prometheus wants base units."""
    lines: List[str] = []
    for name, (text, samples_of) in _COUNTERS.items():
        lines += _head(name, "counter", text)
        lines += [
            _line(name, {**_labels(group), **more}, value)
            for group, figures in _groups(summary)
            for more, value in samples_of(figures)
        ]
    for name, (text, distribution_of) in _SUMMARIES.items():
        lines += _head(name, "summary", text)
        for group, figures in _groups(summary):
            lines += _spread(name, _labels(group), distribution_of(figures))
    lines += _of_the_whole(summary)
    return "\n".join(lines) + "\n"


def _groups(summary: Summary) -> Iterator[Tuple[Tuple[str, str, str], Metrics]]:
    named = {
        (agent, model or "", workflow or ""): figures
        for (agent, model, workflow), figures in summary.groups.items()
    }
    return iter(sorted(named.items(), key=lambda one: one[0]))


def _labels(group: Tuple[str, str, str]) -> Dict[str, str]:
    # A label that is empty is one that is absent.
    return {name: value for name, value in zip(("agent", "model", "workflow"), group) if value}


def _outcomes(figures: Metrics) -> List[Sample]:
    return [({"outcome": "success"}, figures.successes), ({"outcome": "error"}, figures.failures)]


def _tokens(figures: Metrics) -> List[Sample]:
    fresh = max(0, figures.input_tokens - figures.cache_read_tokens - figures.cache_write_tokens)
    return [
        ({"kind": "input"}, fresh),
        ({"kind": "cache_read"}, figures.cache_read_tokens),
        ({"kind": "cache_write"}, figures.cache_write_tokens),
        ({"kind": "output"}, figures.output_tokens),
    ]


_COUNTERS: Dict[str, Tuple[str, Callable[[Metrics], List[Sample]]]] = {
    "executions_total": ("Executions by their outcome.", _outcomes),
    "errors_total": (
        "Failed executions by the type of their error.",
        lambda one: [({"type": name}, count) for name, count in sorted(one.errors.items())],
    ),
    "cached_total": ("Executions that a kept answer served.", lambda one: [({}, one.cached)]),
    "shared_total": ("Executions that shared an identical call.", lambda one: [({}, one.shared)]),
    "incomplete_total": (
        "Answers that are not whole, by kind.",
        lambda one: [({"kind": kind}, getattr(one, kind)) for kind in ("empty", "refused", "truncated")],
    ),
    "attempts_total": ("Requests that were made.", lambda one: [({}, one.attempts)]),
    "retries_total": ("Requests beyond an execution's first.", lambda one: [({}, one.retries)]),
    "tokens_total": ("Tokens by kind; no token is of two kinds.", _tokens),
    "cost_usd_total": ("USD spent, as far as prices are known.", lambda one: [({}, one.cost)]),
    "unknown_price_total": ("Answers whose price is not known.", lambda one: [({}, one.unknown_price)]),
    "saved_usd_total": ("USD that kept and shared answers saved.", lambda one: [({}, one.saved_cost)]),
}
_SUMMARIES: Dict[str, Tuple[str, Callable[[Metrics], Distribution]]] = {
    "execution_seconds": ("From the call to its result.", lambda one: one.wall),
    "wait_seconds": ("Of an execution, without a request on the wire.", lambda one: one.wait),
    "service_seconds": ("Of an execution, with a request on the wire.", lambda one: one.service),
}


def _spread(name: str, labels: Labels, values: Distribution) -> List[str]:
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


def _of_the_whole(summary: Summary) -> List[str]:
    # May fall, where the prompt cache was written and not yet read: no counter.
    saving = summary.total().prompt_cache_saving
    share = summary.at_limit.share()
    lines = [
        *_head("prompt_cache_saving_usd", "gauge", "USD that the API's prompt cache saved."),
        _line("prompt_cache_saving_usd", {}, saving),
        *_head("skipped_lines", "gauge", "Lines of the ledger that could not be read."),
        _line("skipped_lines", {}, summary.skipped),
    ]
    if share is not None:
        text = "Share of the time with requests on the wire that had as many as there may be."
        lines += _head("time_at_concurrency_limit_ratio", "gauge", text)
        lines.append(_line("time_at_concurrency_limit_ratio", {}, share))
    return lines


def _head(name: str, kind: str, text: str) -> List[str]:
    return [f"# HELP {_PREFIX}_{name} {text}", f"# TYPE {_PREFIX}_{name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{_PREFIX}_{name}{'{' + inside + '}' if inside else ''} {value!r}"


def _escaped(text: str) -> str:
    # Half a character can't be written as UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
