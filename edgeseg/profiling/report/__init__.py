"""Make the report of a comparison: one HTML file that needs no network and no other file."""

from edgeseg.profiling.report.write import Report, report

__all__ = ["Report", "report"]
