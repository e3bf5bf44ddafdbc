"""What is known of one request while it is under way and after it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, Mapping, Optional, Tuple

from ..types import Usage
from .messages import BodyReader, Reader


@dataclass
class AttemptRecord:
    """What is known of one request, however it ends.

    Attributes:
        usage: its tokens; None as long as nothing is known to be billed.
        in_doubt: it was sent, and whether it is billed will never be known: no answer came that tells.
        model: the model that answers, as far as the answer has told.
        headers: those of the answer, names in lower case.
        began, ended: seconds on the engine's clock, None as long as it has not; `window` attempts might be on
            the wire then.
        on_begin: called when the answer begins, if it is one.
        on_text: called with each piece of a streamed answer's text.
        hung_up: the connection was closed here, in the middle of the answer.
        reader: puts the answer together; `only_pings` have come since its last step.
        secrets: of the request, where credentials change from one to the next.
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
        """Takes note of what the answer has told by its end. `most` is the longest that it can be, in tokens,
        `thinks` whether it may have begun with thinking."""
        reader = self.reader
        self.usage, self.model = reader.billed(most, thinks), reader.model
        if self.usage is not None and self.hung_up and not reader.stopped:
            # How far the model went until the server noticed, nobody tells.
            self.usage = replace(self.usage, output_tokens=max(self.usage.output_tokens, most))
        self.in_doubt = self.in_doubt and self.usage is None and not reader.refused
