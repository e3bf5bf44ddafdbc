"""What an attempt needs of the way to a service: a Sender, its Responses, and the record of the attempt."""

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
        """The beginning of the body, decompressed: of an error nothing else is needed."""

    async def aclose(self) -> None:
        """Gives the connection back, or closes it where the body was not read to its end."""


class Sender(Protocol):
    """A way to one service.

    Attributes:
        service: which one.
        base_url: its address, with the password that it may hold.
        secrets: all that is sent and must not be shown.
        connection_errors: exceptions that mean that the connection failed.
    """

    service: Service
    base_url: str
    secrets: Sequence[str]
    connection_errors: Tuple[Type[Exception], ...]

    def send(self, fields: Mapping[str, Any]) -> Awaitable[Response]:
        """Sends one request for an answer. Raises CallError only where nothing was sent, for want of
        credentials."""

    def count_tokens(self, fields: Mapping[str, Any]) -> Awaitable[Response]:
        """Asks how many tokens a prompt has, which costs nothing."""

    def check(self) -> None:
        """Raises AuthenticationError or PaidCallBlockedError for credentials that can't be used."""

    def check_credentials(self) -> None:
        """Raises MissingCredentialsError where there are none. May read files and ask the cloud's servers."""

    async def close(self) -> None:
        """Closes the connections. A later `send` raises RuntimeError."""


@dataclass
class AttemptRecord:
    """What is known of one request, however it ends. No I/O.

    Attributes:
        usage: its tokens; None as long as nothing is known to be billed.
        in_doubt: it was sent, and whether it is billed is unknown: no answer came that tells.
        model: the model that answers, as far as the answer has told.
        headers: those of the answer, names in lower case.
        began, ended: seconds on the engine's clock; None before that. `window` attempts were allowed then.
        on_begin: called when the answer begins, if it is one.
        on_text: called with each piece of a streamed answer's text.
        hung_up: the connection was closed here, in the middle of the answer.
        reader: puts the answer together; `only_pings` have come since its last step.
        secrets: of the request, where credentials differ from one to the next.
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
        """Takes over what the answer has told by its end. `most` is the longest that it can be, in tokens;
        `thinks`: it may have begun with thinking."""
        reader = self.reader
        self.usage, self.model = reader.billed(most, thinks), reader.model
        if self.usage is not None and self.hung_up and not reader.stopped:
            # How far the model went until the server noticed is unknown.
            self.usage = replace(self.usage, output_tokens=max(self.usage.output_tokens, most))
        self.in_doubt = self.in_doubt and self.usage is None and not reader.refused
