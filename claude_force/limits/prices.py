"""Prices of usage: the list prices of `genai-prices`, and the caller's own prices."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from functools import lru_cache
from typing import Any, Dict, List, Mapping, Optional, Protocol, Tuple

from ..agents.models import resolve_model
from ..errors import InvalidOptionError
from ..types import Call, Usage

logger = logging.getLogger(__name__)

_PROVIDER = "anthropic"
# Amazon Bedrock's ids of models. Google's ids are in Anthropic's list too, at the same prices.
_AWS_ID = re.compile(r"([a-z]+\.)?anthropic\.")
# Options that change a price, with the values that do not. Usage comes before the request's options.
_SPEEDS, _TIERS = (None, "standard"), (None, "standard", "auto", "standard_only")
# Factors of the price of each token, by where the model runs.
_REGIONS = {None: 1.0, "global": 1.0, "not_available": 1.0, "us": 1.1}
# What the names of one model may differ in: who hands it on, and the day of its release.
_PREFIX = re.compile(r"^(?:.*/)?(?:[a-z]+\.)?(?:anthropic\.)?")
_SUFFIX = re.compile(r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2}|latest))?(?:-v\d+(?::\d+)?)?$")
# Prices of a list may begin or end at a time.
_FRESH_SECONDS = 3600

NO_OPTIONS: Mapping[str, Any] = {}
# What decides a price besides the model, in the list's own words, such as ("processing", "batch").
Variant = Tuple[Tuple[str, str], ...]
# USD per million tokens, of prompts above so many: fresh, written for 5 minutes or an hour, read, answer.
_Tier = Tuple[int, Tuple[float, ...]]
_RATES = ("input_mtok", "cache_write_mtok", "cache_write_1h_mtok", "cache_read_mtok", "output_mtok")


_RATE_NAMES = {"input", "output", "cache_write", "cache_write_1h", "cache_read"}

Prices = Mapping[str, Mapping[str, float]]


class Price(Protocol):
    """Returns the USD that `usage` costs; None if that is unknown.

    `model` is the model of the request, `answered` the model that answered: "" if that is unknown, or if its
    price does not matter.
    """

    def __call__(
        self, model: str, usage: Usage, options: Mapping[str, Any] = NO_OPTIONS, answered: str = ""
    ) -> Optional[float]: ...


def cost(
    model: str,
    usage: Usage,
    options: Mapping[str, Any] = NO_OPTIONS,
    answered: str = "",
    *,
    batch: bool = False,
) -> Optional[float]:
    """USD at list price, for the tokens and for the web searches.

    Args:
        model: the model of the request.
        options: those of the call; one that changes the price, such as `speed`, makes it unknown where the
            list has no price for that.
        answered: the model that answered, whose price it is; "" for that of the request.
        batch: at the price of the Message Batches API.

    Returns:
        None where the price or the usage is not known.
    """
    place = usage.inference_geo or options.get("inference_geo")
    region = _REGIONS.get(place) if place is None or isinstance(place, str) else None
    variant = _variant(options, usage, batch)
    if not usage.is_known or region is None or variant is None or unknown_fee(options):
        return None
    hour = int(time.time() // _FRESH_SECONDS)
    priced = answered or model
    tiers = _tiers(priced, variant, hour)
    if tiers is None and priced != model and plain_name(priced) == plain_name(model):
        priced, tiers = model, _tiers(model, variant, hour)
    if tiers is None:
        return None
    tokens = _by_tier(tiers, usage) if tiers else _by_list(priced, usage, variant)
    return None if tokens is None else tokens * region + usage.web_search_requests * USD_PER_SEARCH


@lru_cache(maxsize=256)
def plain_name(model: str) -> str:
    """The model's name without the provider, date and version that servers add to it."""
    return _SUFFIX.sub("", _PREFIX.sub("", model.lower(), count=1)).replace(".", "-")


def load_prices(model: str) -> None:
    """Loads the price list, which takes a tenth of a second."""
    cost(model, Usage(1, 1))


@lru_cache(maxsize=1)
def price_list() -> Any:
    """The module `genai_prices`, or None where it is not installed; imported once."""
    try:
        import genai_prices
    except ImportError:
        logger.info("genai-prices is not installed: costs are unknown")
        return None
    return genai_prices


def _variant(options: Mapping[str, Any], usage: Usage, batch: bool) -> Optional[Variant]:
    """None for a service tier whose price is not listed, such as "priority"."""
    variant: Variant = ()
    tier = usage.service_tier or options.get("service_tier")
    if batch or tier == "batch":
        variant = (("processing", "batch"),)
    elif tier not in _TIERS:
        return None
    speed = usage.speed or options.get("speed")
    return variant if speed in _SPEEDS else (*variant, ("speed", str(speed)))


def _by_tier(tiers: List[_Tier], usage: Usage) -> float:
    prompt, long_lived = usage.prompt_tokens, usage.cache_creation_1h_input_tokens
    rates = next(rates for above, rates in reversed(tiers) if prompt > above)
    counts = (
        usage.input_tokens,
        usage.cache_creation_input_tokens - long_lived,
        long_lived,
        usage.cache_read_input_tokens,
        usage.output_tokens,
    )
    return math.fsum(count * rate for count, rate in zip(counts, rates)) / 1e6


@lru_cache(maxsize=256)
def _tiers(model: str, variant: Variant, _hour: int) -> Optional[List[_Tier]]:
    """The model's rates; empty where only the list itself can apply its prices, None where it has none.

    The list takes a sixth of a whole call's work for one answer, so it is used once for each model and hour.
    """
    if _by_list(model, Usage(1, 1), variant) is None:
        return None
    tiers = _read_tiers(_priced(model, Usage(1, 1), variant).model_price)
    edges = [prompt for above, _ in tiers for prompt in (above, above + 1) if prompt > 0]
    for prompt in [1000, *edges] if tiers else ():
        usage = Usage(prompt - 60, 1000, 50, 10, 20)
        known = _by_list(model, usage, variant)
        if known is None or not math.isclose(_by_tier(tiers, usage), known, rel_tol=1e-12):
            return []
    return tiers


def _read_tiers(price: Any) -> List[_Tier]:
    """Empty where it is written in another way than is known here."""
    by_start: List[Dict[int, float]] = []
    for name in _RATES:
        rate: Any = getattr(price, name, None)
        try:
            steps = {-1: rate.base, **{tier.start: tier.price for tier in rate.tiers}}
        except AttributeError:
            steps = {-1: rate}
        if any(step is None for step in steps.values()):
            return []
        by_start.append({start: float(step) for start, step in steps.items()})
    starts = sorted({start for steps in by_start for start in steps})
    return [
        (start, tuple(steps[max(one for one in steps if one <= start)] for steps in by_start))
        for start in starts
    ]


def _by_list(model: str, usage: Usage, variant: Variant) -> Optional[float]:
    price = _priced(model, usage, variant)
    return None if price is None else float(price.total_price)


def _priced(model: str, usage: Usage, variant: Variant) -> Any:
    """Returns the list's price. Its input tokens include those of the prompt cache; the API's do not."""
    prices = price_list()
    if prices is None or not model:
        return None
    counts: Dict[str, int] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "cache_write_tokens": usage.cache_creation_input_tokens,
        "cache_read_tokens": usage.cache_read_input_tokens,
    }
    if usage.cache_creation_1h_input_tokens:
        # The longer-lived entries cost more, and this version of the price list can't tell them apart.
        if not hasattr(prices.Usage(), "cache_write_1h_tokens"):
            return None
        counts["cache_write_1h_tokens"] = usage.cache_creation_1h_input_tokens
    asked: Dict[str, Any] = {"model_ref": model, "provider_id": "aws" if _AWS_ID.match(model) else _PROVIDER}
    try:
        found = prices.calc_price(prices.Usage(**counts), **asked)
        if not variant:
            return found
        # For a variant that it does not know the list has the ordinary price.
        known = [one.when for one in getattr(found.model, "price_variants", None) or ()]
        if dict(variant) not in known:
            return None
        return prices.calc_price(prices.Usage(**counts), price_context=dict(variant), **asked)
    except (LookupError, ValueError):
        return None


# USD.
USD_PER_SEARCH = 0.01

_SEARCH = "web_search"
# The caller's own tools, and those of the API's that charge nothing for each use.
_NO_FEE = ("custom", "bash", "text_editor", "computer", "memory", "web_fetch", "tool_search", "mcp")


def priced_options(call: Call) -> Mapping[str, Any]:
    """The options of the call that decide its price, the API's own tools of its conversation among them."""
    if call.conversation is None:
        return call.options
    tools = _server_tools(call.conversation.tools)
    return {**call.options, "tools": tools} if tools else call.options


@lru_cache(maxsize=64)
def _server_tools(tools: str) -> Tuple[Any, ...]:
    return tuple(one for one in json.loads(tools) if isinstance(one, Mapping) and _type_of(one))


def max_searches(options: Mapping[str, Any]) -> Optional[int]:
    """How many web searches a request may make; None where nothing bounds that."""
    searches = 0
    for tool in _tools(options):
        if _type_of(tool).startswith(_SEARCH):
            most = tool.get("max_uses")
            if type(most) is not int or most < 0:
                return None
            searches += most
    return searches


def unknown_fee(options: Mapping[str, Any]) -> Optional[str]:
    """The type of a tool that may charge what `usage` does not tell, or None."""
    for tool in _tools(options):
        kind = _type_of(tool)
        if kind and not kind.startswith((*_NO_FEE, _SEARCH)):
            return kind
    return None


def _tools(options: Mapping[str, Any]) -> Any:
    tools = options.get("tools") if options else None
    return [one for one in tools if isinstance(one, Mapping)] if isinstance(tools, (list, tuple)) else ()


def _type_of(tool: Mapping[str, Any]) -> str:
    kind = tool.get("type")
    return kind if isinstance(kind, str) else ""


def price_lookup(prices: Prices, fallback: Price) -> Price:
    """Returns a price function that uses the caller's `prices`, in USD per million tokens, before `fallback`.

    `prices[model]` has `input` and `output`, and may have `cache_write` (else 1.25 of input),
    `cache_write_1h` (else 2 of input) and `cache_read` (else 0.1 of input). A price for the
    model of the request comes before one for the model that answered. Options of the call and the server's
    terms do not change it, but a batch costs half. Web searches have their list price. Raises
    InvalidOptionError for other names and values.
    """
    for model, given in prices.items():
        _check_rates(model, given)
    # A price for an alias holds for the model that it means, unless that has a price too.
    prices = {**{resolve_model(name, None): given for name, given in prices.items() if name}, **prices}

    def price(
        model: str, usage: Usage, options: Mapping[str, Any] = NO_OPTIONS, answered: str = ""
    ) -> Optional[float]:
        given = prices.get(model)
        if given is None and answered:
            given = prices.get(answered)
        if given is None:
            return fallback(model, usage, options, answered) if answered else fallback(model, usage, options)
        if not usage.is_known or unknown_fee(options):
            return None
        fresh, long_lived = given["input"], usage.cache_creation_1h_input_tokens
        tokens = (
            usage.input_tokens * fresh
            + usage.output_tokens * given["output"]
            + (usage.cache_creation_input_tokens - long_lived) * given.get("cache_write", 1.25 * fresh)
            + long_lived * given.get("cache_write_1h", 2 * fresh)
            + usage.cache_read_input_tokens * given.get("cache_read", 0.1 * fresh)
        ) / 1e6
        share = 0.5 if usage.service_tier == "batch" else 1.0
        return tokens * share + usage.web_search_requests * USD_PER_SEARCH

    return price


def _check_rates(model: str, given: Mapping[str, float]) -> None:
    if not {"input", "output"} <= set(given) <= _RATE_NAMES:
        raise InvalidOptionError(
            f"prices[{model!r}] has {sorted(given)}; give input and output, and if they differ from the "
            "usual cache_write, cache_write_1h and cache_read, in USD per million tokens."
        )
    for name, rate in given.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate < float("inf"):
            raise InvalidOptionError(
                f"prices[{model!r}][{name!r}] is {rate!r}; give USD per million tokens, 0 or more."
            )
