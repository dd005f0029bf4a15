"""A part of a study's page, and what each is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from prunedge.report.study.numbers import Groups, Row, groups
from prunedge.report.study.tables import Table
from prunedge.tasks import Metric
from prunedge.utils.wording import counted


@dataclass(frozen=True)
class Section:
    """A part of the page. `html` holds the drawings as HTML, once they are numbered."""

    key: str
    title: str
    note: str
    drawings: Sequence[go.Figure] = ()
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()
    html: Sequence[Markup] = field(default=())


@dataclass(frozen=True)
class StudyRows:
    """The steps of all finished trials, what differs between them, the metric, and the bench of
    each timed trial by its name.
    """

    rows: Sequence[Row]
    axes: Sequence[str]
    metric: Metric
    benches: Mapping[str, Mapping[str, Any]]

    def combinations(self) -> Groups:
        """The trials of each combination, under its name."""
        return groups(self.rows, self.axes)

    def names(self) -> dict[str, str]:
        """The combination of each trial."""
        names = {}
        for name, trials in self.combinations().items():
            for trial in trials:
                names[trial[0]["trial"]] = name
        return names

    def axes_without(self, axis: str) -> list[str]:
        """The axes but one."""
        return [key for key in self.axes if key != axis]


def views_left_out(count: int) -> str:
    """What is to be said of views that a figure doesn't show."""
    if count <= 0:
        return ""
    return f" {counted(count, 'more view is', 'more views are')} left out; the table has all."
