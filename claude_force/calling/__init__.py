"""One call on the wire. `Caller` is the door; the rest of the package knows nothing behind it."""

from .bill import Bill, at_most
from .budget import Budget, Price, Prices, exceeded, nano, price_by
from .caller import Caller, CallerSettings, Endpoint, is_starting
from .clock import Clock
from .forecast import Forecast, byte_size, counted
from .gate import Load
from .limits import (
    AUTO,
    MaxConcurrent,
    check_cache_ttl,
    check_limits,
    check_max_tokens,
    check_options,
    check_rates,
)
from .meter import Meter
from .pace import KINDS, Need, Rates, header_number
from .run_gate import RunGate, RunGates
from .server_tools import most_searches
from .single_flight import SingleFlight, ended
from .terms import NOBODY, ORDINARY, Guard, Opening, Terms, Watch

__all__ = [
    "AUTO",
    "KINDS",
    "NOBODY",
    "ORDINARY",
    "Bill",
    "Budget",
    "Caller",
    "CallerSettings",
    "Clock",
    "Endpoint",
    "Forecast",
    "Guard",
    "Load",
    "MaxConcurrent",
    "Meter",
    "Need",
    "Opening",
    "Price",
    "Prices",
    "Rates",
    "RunGate",
    "RunGates",
    "SingleFlight",
    "Terms",
    "Watch",
    "at_most",
    "byte_size",
    "check_cache_ttl",
    "check_limits",
    "check_max_tokens",
    "check_options",
    "check_rates",
    "counted",
    "ended",
    "exceeded",
    "header_number",
    "is_starting",
    "most_searches",
    "nano",
    "price_by",
]
