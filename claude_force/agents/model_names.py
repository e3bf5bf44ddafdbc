"""What can be the name of a model. Pure."""

from __future__ import annotations

from ..lazy_pattern import pattern

# Room for an inference profile's ARN on Bedrock.
LONGEST_NAME = 256
# Letters of any script, and what ids of the API, of clouds and of gateways have between them.
_NAME = pattern(r"[\w.:/@+~=-]+(?:\[\w+\])?")


def is_model_name(text: str) -> bool:
    """Whether `text` could name a model: it has no blank, comma, quote or sign of a shell."""
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None
