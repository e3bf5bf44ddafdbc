"""Records requests and connections. Written by the server's thread, read by any."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple


@dataclass(frozen=True)
class RecordedRequest:
    """One request as received.

    Attributes:
        headers: names in lower case.
        body: the parsed JSON object, {} for any other body.
        at: the server's clock, seconds.
        connection: number of the connection, from 1 in the order in which they were accepted.
    """

    method: str
    path: str
    headers: Dict[str, str]
    body: Dict[str, Any]
    raw: bytes
    at: float
    connection: int


@dataclass
class BilledRequest:
    """What the API would bill for one request.

    Attributes:
        usage: as the API spells it; of a streamed answer that broke off, the output tokens that were written.
        whole: the answer was written to its end.
        lost: the client went away before that.
    """

    received: RecordedRequest
    request_id: str
    usage: Dict[str, Any]
    whole: bool = False
    lost: bool = False


class RequestLog:
    """The counters of one server.

    Attributes:
        requests: all requests in the order of arrival, including faulty and refused ones.
        connections: connections that were accepted.
        open_connections: those that are open now.
        in_flight: requests without a whole answer yet; `max_in_flight` is the most there ever were.
        disconnects: requests whose client went away before the end of its answer.
        bills: one for each answer that was begun, in the order of their begins.
    """

    def __init__(self) -> None:
        self.requests: List[RecordedRequest] = []
        self.connections: int = 0
        self.open_connections: int = 0
        self.in_flight: int = 0
        self.max_in_flight: int = 0
        self.disconnects: int = 0
        self.bills: List[BilledRequest] = []
        self._open: Dict[object, Tuple[int, asyncio.Transport]] = {}

    def _opened(self, protocol: object, transport: asyncio.Transport) -> None:
        self.connections += 1
        self._open[protocol] = self.connections, transport
        self.open_connections = len(self._open)

    def _closed(self, protocol: object) -> None:
        self._open.pop(protocol, None)
        self.open_connections = len(self._open)

    def _number_of(self, protocol: object) -> int:
        """The connection's number; 0 if it is closed."""
        return self._open[protocol][0] if protocol in self._open else 0

    def _transports(self) -> List[asyncio.Transport]:
        return [transport for _, transport in self._open.values()]

    def _enter(self) -> None:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def _leave(self, lost: bool) -> None:
        self.in_flight -= 1
        self.disconnects += lost
