"""The stand-in as a server in its own thread and event loop, with the counters that tests read."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterable, Optional, Union

from aiohttp import web

from .default_answer import describe
from .faults import Fault
from .handler import Behaviour, Handler
from .limits import Limiter, RateLimit
from .prompt_cache import PromptCache
from .request_log import RecordedRequest, RequestLog
from .scripts import Answering

# The API's own limit for the body of a request.
_LARGEST_BODY = 32 * 1024 * 1024
_BACKLOG = 1024
_TURNS_TO_CLOSE = 1000

Faults = Union[Iterable[Optional[Fault]], Callable[[RecordedRequest], Optional[Fault]]]


class MessagesServer(RequestLog):
    """A Messages API on loopback; `with` starts and stops it. The counters are described at RequestLog.

    Args:
        time_to_first_token: seconds from the request to the first byte of its answer.
        tokens_per_second: speed of an answer; None sends it at once.
        answer: makes the text from the request's body; the default reports true facts on it. A `Script` plays
            an agent that calls tools.
        output_tokens: stretches or cuts each answer of one text to so many tokens.
        faults: one for each request in turn, None for a healthy one, all healthy after the last;
            or a function from the request to its fault.
        rate_limit: what a minute allows; more is answered with 429.
        clock: seconds, for `RecordedRequest.at` and the rate limit.
        prompt_cache_minimum: tokens below which a marked prefix of a prompt is not cached.
    """

    def __init__(
        self,
        *,
        time_to_first_token: float = 0.0,
        tokens_per_second: Optional[float] = None,
        answer: Optional[Answering] = None,
        output_tokens: Optional[int] = None,
        faults: Optional[Faults] = None,
        rate_limit: Optional[RateLimit] = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        prompt_cache_minimum: int = 1024,
    ) -> None:
        super().__init__()
        _check(host, time_to_first_token, tokens_per_second, output_tokens)
        behaviour = Behaviour(
            answer=answer or describe,
            next_fault=_plan(faults),
            output_tokens=output_tokens,
            time_to_first_token=time_to_first_token,
            tokens_per_second=tokens_per_second,
            clock=clock,
        )
        limiter = Limiter(rate_limit, clock) if rate_limit else None
        self._handler = Handler(behaviour, self, PromptCache(prompt_cache_minimum), limiter)
        self._address = (host, port)
        self._thread: Optional[threading.Thread] = None
        self._stop: Callable[[], Any] = _nothing

    @property
    def base_url(self) -> str:
        """Such as "http://127.0.0.1:4321"; the port is known once the server has started."""
        host, port = self._address
        if not port:
            raise RuntimeError("The server has no port before start().")
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def environment(self) -> Dict[str, str]:
        """Variables that point the SDK at this server."""
        return {"ANTHROPIC_BASE_URL": self.base_url, "ANTHROPIC_API_KEY": "test-key"}

    def start(self) -> MessagesServer:
        """Starts accepting connections. Raises OSError if the port is not available."""
        if self._thread is not None:
            raise RuntimeError("The server is running already.")
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="messages-server", daemon=True
        )
        self._thread.start()
        try:
            self._address = (self._address[0], started.result())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Closes every connection, even with requests in flight. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop()
            self._stop = _nothing
            thread.join()

    def __enter__(self) -> MessagesServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def _serve(self, started: Future[int]) -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        server = _CountingServer(self._handler, self)
        host, port = self._address
        try:
            listener = await loop.create_server(server, host, port, backlog=_BACKLOG)
        except BaseException as error:
            started.set_exception(error)
            return
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        self._handler.closing = False
        started.set_result(listener.sockets[0].getsockname()[1])
        await stopped.wait()
        self._handler.closing = True
        listener.close()
        await self._close_connections()

    async def _close_connections(self) -> None:
        # abort() instead of close(): a client that doesn't read must not hold up the end.
        for transport in self._transports():
            transport.abort()
        for _ in range(_TURNS_TO_CLOSE):
            if not self.open_connections and not self.in_flight:
                return
            await asyncio.sleep(0.001)


class _CountingServer(web.Server):
    """Records which connections open and close."""

    def __init__(self, handler: Handler, request_log: RequestLog) -> None:
        # handler_cancellation: an answer ends when its client goes away.
        super().__init__(handler, request_factory=_request, handler_cancellation=True, access_log=None)
        self._request_log = request_log

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._request_log._opened(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: Optional[BaseException] = None) -> None:
        super().connection_lost(handler, exc)
        self._request_log._closed(handler)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_BODY)


def _plan(faults: Optional[Faults]) -> Callable[[RecordedRequest], Optional[Fault]]:
    if callable(faults):
        return faults
    remaining = iter(faults or ())
    return lambda received: next(remaining, None)


def _nothing() -> None:
    pass


def _check(host: str, first: float, tokens_per_second: Optional[float], output_tokens: Optional[int]) -> None:
    if not _is_loopback(host):
        raise ValueError(f"host is {host!r}; the stand-in listens on loopback only, such as 127.0.0.1.")
    if not first >= 0:
        raise ValueError(f"time_to_first_token is {first!r}; it must be seconds from 0 up.")
    if tokens_per_second is not None and not tokens_per_second > 0:
        raise ValueError(f"tokens_per_second is {tokens_per_second!r}; it must be above 0, or None.")
    if output_tokens is not None and not output_tokens >= 1:
        raise ValueError(f"output_tokens is {output_tokens!r}; it must be from 1 up, or None.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
