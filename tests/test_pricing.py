"""Prices of calls, compared with prices that were looked up by hand; unknown prices are None."""

import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.errors import InvalidOptionError
from claude_force.limits import prices as pricing
from claude_force.limits.budget import worst_cost
from claude_force.limits.prices import cost, price_lookup
from claude_force.types import Call, Usage

genai_prices = pytest.importorskip("genai_prices")

SONNET, HAIKU, OPUS = "claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5"
TELLS_HOURS_APART = hasattr(genai_prices.Usage(), "cache_write_1h_tokens")
KNOWS_FAST_MODE = version("genai-prices") >= "0.2"
newest_list = pytest.mark.skipif(not TELLS_HOURS_APART, reason="an older price list")


def known(model):
    """Skips a test where the installed list is older than the model."""
    if cost(model, Usage(1, 1)) is None:
        pytest.skip(f"the installed price list has no {model}")


# Sonnet 5.5, USD per million tokens: 2 fresh, 10 out, 0.10 read, 2.50 written for 5 minutes, 4 for an hour.
@pytest.mark.parametrize(
    "usage, usd",
    [
        (Usage(1000, 100), 0.002 + 0.001),
        (Usage(0, 0), 0.0),
        (Usage(100, 10, cache_read_input_tokens=10_000), 0.0002 + 0.0001 + 0.001),
        (Usage(100, 10, cache_creation_input_tokens=10_000), 0.0002 + 0.0001 + 0.025),
        pytest.param(Usage(100, 10, 10_000, 0, 10_000), 0.0002 + 0.0001 + 0.04, marks=newest_list),
        pytest.param(Usage(100, 10, 10_000, 500, 4000), 0.0003 + 0.015 + 0.016 + 0.00005, marks=newest_list),
    ],
)
def test_each_kind_of_token_has_its_price(usage, usd):
    known(SONNET)
    assert cost(SONNET, usage) == pytest.approx(usd, rel=1e-12)


# Haiku 5.5: 0.10 fresh, 0.50 out, 0.01 read; five times that for a prompt above 100,000 tokens, all of it.
@pytest.mark.parametrize(
    "usage, usd",
    [
        (Usage(100_000, 1000), 0.01 + 0.0005),
        (Usage(100_001, 1000), 0.0500005 + 0.0025),
        (Usage(1, 1000, cache_read_input_tokens=100_000), 0.0000005 + 0.0025 + 0.005),
    ],
)
def test_a_long_prompt_costs_more(usage, usd):
    known(HAIKU)
    assert cost(HAIKU, usage) == pytest.approx(usd, rel=1e-12)


@newest_list
def test_a_batch_costs_half_of_it():
    known(OPUS)
    assert cost(OPUS, Usage(1000, 100, 200, 300), batch=True) == pytest.approx(
        cost(OPUS, Usage(1000, 100, 200, 300)) / 2
    )
    assert cost("claude-opus-4-1", Usage(1000, 100), batch=True) is None


@pytest.mark.skipif(not KNOWS_FAST_MODE, reason="an older price list")
def test_option_price_is_own_or_none():
    known(OPUS)
    # Opus 5.5 in fast mode: 8 in, 40 out.
    assert cost(OPUS, Usage(1000, 100), {"speed": "fast"}) == pytest.approx(0.008 + 0.004)
    assert cost(OPUS, Usage(1000, 100), {"speed": "standard"}) == cost(OPUS, Usage(1000, 100))
    assert cost(SONNET, Usage(1000, 100), {"speed": "fast"}) is None
    assert cost(OPUS, Usage(1000, 100), {"inference_geo": "us"}) == pytest.approx(1.1 * (0.004 + 0.002))
    assert cost(OPUS, Usage(1000, 100), {"inference_geo": "eu"}) is None
    assert cost(OPUS, Usage(1000, 100), {"stop_sequences": ["x"], "speed": None}) is not None
    fast = Call("a", ("s",), "task", OPUS, 1000, {"speed": "fast"})
    assert worst_cost(fast, cost) > 0.04


@pytest.mark.parametrize("model", ["", "my-own-model", "gpt-4o"])
def test_unknown_price_is_none(model):
    assert cost(model, Usage(1000, 100)) is None


class UnknownList:
    """A price list whose prices are written in a way that this package does not know."""

    Usage = SimpleNamespace

    def __init__(self, **rates):
        self._price = SimpleNamespace(total_price=7.0, model_price=SimpleNamespace(**rates), model=None)
        self.asked = 0

    def calc_price(self, usage, **_):
        self.asked += 1
        return self._price


@pytest.fixture
def use_list(monkeypatch):
    """Replaces the package of the price list; None is for one that is not installed."""

    def use(package):
        monkeypatch.setitem(sys.modules, "genai_prices", package)
        pricing.price_list.cache_clear()
        pricing._tiers.cache_clear()
        return package

    yield use
    monkeypatch.undo()
    pricing.price_list.cache_clear()
    pricing._tiers.cache_clear()


def test_without_a_list_no_price_is_known(use_list):
    use_list(None)
    assert cost(SONNET, Usage(1000, 100)) is None


def models():
    from genai_prices.data import providers

    (provider,) = [one for one in providers if one.id == "anthropic"]
    return [model.id for model in provider.models]


def usages():
    written = st.integers(0, 150_000)
    return st.builds(Usage, st.integers(0, 250_000), st.integers(0, 30_000), written, st.integers(0, 150_000))


@given(st.sampled_from(models()), usages(), st.floats(0, 1))
def test_it_is_what_the_list_itself_says(model, usage, share):
    """Of which only the first answer for each model is its own."""
    if TELLS_HOURS_APART:
        long_lived = int(usage.cache_creation_input_tokens * share)
        usage = Usage(**{**vars(usage), "cache_creation_1h_input_tokens": long_lived})
    assert cost(model, usage) == pytest.approx(pricing._by_list(model, usage, ()), rel=1e-12)


RATES = dict.fromkeys(pricing._RATES, 2.0)


@pytest.mark.parametrize("rates", [{}, RATES], ids=["no rates", "another sum"])
def test_unknown_list_is_asked_each_time(use_list, rates):
    """Where its rates are missing, or do not add up to its own price, the list prices each answer."""
    prices = use_list(UnknownList(**rates))
    assert cost(SONNET, Usage(1000, 100)) == 7.0
    before = prices.asked
    assert cost(SONNET, Usage(2000, 200)) == 7.0
    assert prices.asked == before + 1


class TestOwnPrices:
    OWN = {
        "mine": {"input": 3.0, "output": 15.0},
        "all": dict.fromkeys(["input", "output", "cache_write", "cache_write_1h", "cache_read"], 1.0),
    }

    def test_custom_prices_come_first(self):
        price = price_lookup(self.OWN, lambda *_: None)
        assert price("mine", Usage(1000, 100)) == pytest.approx(0.003 + 0.0015)
        # 1.25 of input for 5 minutes, 2 for an hour, 0.1 for a read.
        assert price("mine", Usage(0, 0, 3000, 1000, 1000)) == pytest.approx(0.0075 + 0.006 + 0.0003)
        assert price("all", Usage(100, 100, 300, 100, 100)) == pytest.approx(0.0006)

    def test_they_hold_whatever_the_options(self):
        assert price_lookup(self.OWN, cost)("mine", Usage(1000, 100), {"speed": "fast"}) == pytest.approx(
            0.0045
        )

    def test_other_models_keep_list_price(self):
        price = price_lookup(self.OWN, cost)
        assert price("nobodys", Usage(1, 1)) is None
        known(SONNET)
        assert price(SONNET, Usage(1000, 100)) == cost(SONNET, Usage(1000, 100))
        assert price(SONNET, Usage(1000, 100), {"speed": "fast"}) is None

    @pytest.mark.parametrize("rate", ["3", None, -1, float("nan"), float("inf")])
    def test_a_rate_has_to_be_an_amount(self, rate):
        with pytest.raises(InvalidOptionError, match=r"prices\['m'\]\['output'\]"):
            price_lookup({"m": {"input": 1.0, "output": rate}}, cost)
