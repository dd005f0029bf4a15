"""What the pages with figures share: plotly inside, figures as HTML, and a file that is there
whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from prunedge.report.run.figures import CONFIG
from prunedge.utils import advice
from prunedge.utils.files import write_text
from prunedge.utils.machine import unwritable
from prunedge.utils.pages import render_template


def render(template: str, **values: Any) -> str:
    """A page with plotly inside, from a template of this package."""
    return render_template(
        template, plotly=Markup(get_plotlyjs()), prunedge=advice.command, **values
    )


def drawn(figure: go.Figure, name: int | str) -> Markup:
    """A figure as a part of such a page."""
    return Markup(
        to_html(
            figure, include_plotlyjs=False, full_html=False, config=CONFIG, div_id=f"figure-{name}"
        )
    )


def save(page: str, target: Path) -> Path:
    """Write a page atomically; MachineError when that can't be done."""
    try:
        write_text(target, page)
    except OSError as error:
        raise unwritable(error, target, "can't write the report") from None
    return target
