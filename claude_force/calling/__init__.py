"""One call on the wire. `Caller` is the door; the rest of the package knows nothing behind it."""

from .budget import Budget, Prices
from .caller import Caller, CallerSettings
from .clock import Clock
from .limits import check_limits, check_max_tokens
from .single_flight import SingleFlight

__all__ = [
    "Budget",
    "Caller",
    "CallerSettings",
    "Clock",
    "Prices",
    "SingleFlight",
    "check_limits",
    "check_max_tokens",
]
