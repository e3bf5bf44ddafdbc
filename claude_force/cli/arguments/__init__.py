"""The command line as data: a table of options and a table of verbs, and what makes parsers of them."""

from .build import build_parser, option_flags, verbs_with
from .options import OPTIONS
from .types import number
from .verbs import VERBS, Verb

__all__ = ["OPTIONS", "VERBS", "Verb", "build_parser", "number", "option_flags", "verbs_with"]
