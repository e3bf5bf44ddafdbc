"""The report: one HTML file that shows what a fleet did, how long it took, and what it cost."""

from .executions import LAST, Selection, select
from .page import Report, build_report

__all__ = ["LAST", "Report", "Selection", "build_report", "select"]
