"""One call on the wire. `Caller` is the door; the rest of the package knows nothing behind it."""

from .bill import Bill
from .budget import Budget, Price, Prices
from .caller import Caller, CallerSettings, Endpoint
from .clock import Clock
from .forecast import Forecast, byte_size
from .gate import Load
from .limits import (
    AUTO,
    MaxConcurrent,
    check_cache_ttl,
    check_limits,
    check_max_tokens,
    check_rates,
)
from .pace import Rates
from .single_flight import SingleFlight
from .terms import NOBODY, ORDINARY, Terms, Watch

__all__ = [
    "AUTO",
    "NOBODY",
    "ORDINARY",
    "Bill",
    "Budget",
    "Caller",
    "CallerSettings",
    "Clock",
    "Endpoint",
    "Forecast",
    "Load",
    "MaxConcurrent",
    "Price",
    "Prices",
    "Rates",
    "SingleFlight",
    "Terms",
    "Watch",
    "byte_size",
    "check_cache_ttl",
    "check_limits",
    "check_max_tokens",
    "check_rates",
]
