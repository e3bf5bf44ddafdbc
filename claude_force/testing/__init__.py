"""A stand-in for Anthropic's Messages API on loopback, for tests and demonstrations without a model.

    with MessagesServer(faults=[faults.status(529)]) as server:
        client = anthropic.Anthropic(base_url=server.base_url, api_key="test-key")

`claude_force.testing.plugin` has the pytest fixture, `python -m claude_force.testing` the process.
"""

from . import faults
from .faults import Fault
from .limits import RateLimit
from .request_log import BilledRequest, RecordedRequest
from .scripts import Content, Script, by_text, tool_calls
from .server import MessagesServer

__all__ = [
    "BilledRequest",
    "Content",
    "Fault",
    "MessagesServer",
    "RateLimit",
    "RecordedRequest",
    "Script",
    "by_text",
    "faults",
    "tool_calls",
]
