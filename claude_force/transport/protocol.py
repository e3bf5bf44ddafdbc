"""The protocol between attempts and what sends them: Sender, Response, and the record of an attempt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, AsyncIterator, Awaitable, Callable, Mapping, Optional, Protocol, Sequence, Tuple, Type

from ..types import Usage
from .messages import BodyReader, Reader
from .services import Service


class NotSentError(ConnectionError):
    """The HTTP library refused the request before it connected."""


class Response(Protocol):
    """An answer whose body has not been read yet.

    Attributes:
        status_code: of HTTP.
        headers: by names in lower case.
        secrets: of its request, where credentials differ from one request to the next.
    """

    status_code: int
    headers: Mapping[str, str]
    secrets: Tuple[str, ...]

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body, decompressed, in pieces as they arrive."""

    async def aread(self) -> bytes:
        """The first 64 KB of the body, decompressed."""

    async def aclose(self) -> None:
        """Releases the connection; closes it if the body was not read to its end."""


class Sender(Protocol):
    """Sends requests to one service, over one HTTP library; `transport.make_sender` chooses it.

    Attributes:
        service: the service.
        base_url: its address, including a password.
        secrets: values that are sent and must not be shown.
        connection_errors: exceptions that mean that the connection failed.
    """

    service: Service
    base_url: str
    secrets: Sequence[str]
    connection_errors: Tuple[Type[Exception], ...]

    def send(self, fields: Mapping[str, Any]) -> Awaitable[Response]:
        """Sends one request for an answer.

        Raises CallError or InputError only where nothing was sent: without credentials, or with a field that
        can't be sent.
        """

    def count_tokens(self, fields: Mapping[str, Any]) -> Awaitable[Response]:
        """Asks how many tokens a prompt has, which costs nothing."""

    def check(self) -> None:
        """Raises AuthenticationError or PaidCallBlockedError for credentials that can't be used."""

    def check_credentials(self) -> None:
        """Raises MissingCredentialsError if there are none. May read files and ask servers of the cloud."""

    async def close(self) -> None:
        """Closes the connections. A later `send` raises RuntimeError."""


@dataclass
class AttemptRecord:
    """What is known about one request, however it ends.

    Attributes:
        usage: its tokens; None while nothing is known to be billed.
        in_doubt: it was sent, and no answer says whether it is billed.
        model: the model that answers; "" until it is known.
        headers: of the answer, names in lower case.
        began, ended: seconds on the engine's clock; None before that. `window` attempts were allowed then.
        on_begin: called when an answer begins.
        on_text: called with each piece of text of a streamed answer.
        hung_up: the call was cancelled in the middle of the answer.
        reader: assembles the answer; `only_pings` have arrived since its last step.
        secrets: of the request, where credentials differ from one request to the next.
    """

    usage: Optional[Usage] = None
    in_doubt: bool = False
    model: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    began: Optional[float] = None
    ended: Optional[float] = None
    window: int = 0
    on_begin: Optional[Callable[[], None]] = None
    on_text: Optional[Callable[[str], None]] = None
    reader: Reader = field(default_factory=BodyReader)
    only_pings: bool = False
    hung_up: bool = False
    secrets: Tuple[str, ...] = field(default=(), repr=False)

    def settle(self, most: int, thinks: bool) -> None:
        """Fills in usage and model at the end. The answer has at most `most` tokens; `thinks`: it may have
        thought."""
        reader = self.reader
        self.usage, self.model = reader.billed(most, thinks), reader.model
        if self.usage is not None and self.hung_up and not reader.stopped:
            # How far the model went until the server noticed is unknown.
            self.usage = replace(self.usage, output_tokens=max(self.usage.output_tokens, most))
        self.in_doubt = self.in_doubt and self.usage is None and not reader.refused
