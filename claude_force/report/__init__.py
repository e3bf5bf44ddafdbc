"""The report: one HTML file that shows what a fleet did, how long it took, what it cost and what went wrong."""

from .page import Report, build_report

__all__ = ["Report", "build_report"]
