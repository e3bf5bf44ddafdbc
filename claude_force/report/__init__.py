"""The report: one HTML file that shows what a fleet did, how long it took, and what it cost."""

from .page import Report, build_report
from .selection import LAST, Selection, select

__all__ = ["LAST", "Report", "Selection", "build_report", "select"]
