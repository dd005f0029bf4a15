"""A run folder in, one self-contained HTML page out: `write_report(run) -> Path`."""

from prunedge.report.page import write_report

__all__ = ["write_report"]
