"""Every page is made here: one environment of templates, which escapes all text."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from prunedge.utils.sanitize import shown
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from jinja2 import Environment


def render_template(template: str, **values: Any) -> str:
    """A page of `prunedge/report/templates` as HTML.

    Text is escaped, and without what a terminal obeys, for whoever reads the page in one; only
    `markupsafe.Markup` stays as it is. Raises jinja2's UndefinedError where a template asks for a
    value that isn't given.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: Any) -> Any:
        if isinstance(value, Markup) or not isinstance(value, str):
            return value
        return shown(value, keep="\n\t")

    environment = Environment(
        loader=PackageLoader("prunedge", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters["counted"] = counted
    return environment
