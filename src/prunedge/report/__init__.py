"""A run's or a study's folder in, one self-contained HTML page out: `write_report(run)`,
`write_study_report(study)`.
"""

from prunedge.report.run.page import write_loop_report, write_report
from prunedge.report.study.page import write_study_report

__all__ = ["write_loop_report", "write_report", "write_study_report"]
