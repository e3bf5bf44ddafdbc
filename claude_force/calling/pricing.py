"""What a call costs, by the price list that `genai-prices` carries."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Dict, Optional

from ..types import Usage

logger = logging.getLogger(__name__)


def cost(model: str, usage: Usage) -> Optional[float]:
    """USD at list price, or None where the price is not known.

    `genai-prices` counts the tokens of the prompt cache into the input tokens; the API does not.
    """
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
        # The longer-lived entries cost more; a price list that can't tell them apart is no price.
        if "cache_write_1h_tokens" not in prices.Usage.__dataclass_fields__:
            return None
        counts["cache_write_1h_tokens"] = usage.cache_creation_1h_input_tokens
    try:
        price = prices.calc_price(prices.Usage(**counts), model_ref=model, provider_id="anthropic")
    except LookupError:
        return None
    return float(price.total_price)


@lru_cache(maxsize=1)
def price_list() -> Any:
    """The module `genai_prices`, or None where it is not installed; imported once."""
    try:
        import genai_prices
    except ImportError:
        logger.info("genai-prices is not installed: costs are unknown")
        return None
    return genai_prices
