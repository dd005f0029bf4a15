"""Options that mean the same in several verbs, typed and explained once."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group, Parameter

# What says nothing of the work itself; last in the help of a verb that has settings.
OTHER = Group("Other", sort_key=100)

# Off unless given: nobody needs a `--no-` twin of it.
Flag = Annotated[bool, Parameter(negative="")]

TrustCode = Annotated[
    bool,
    Parameter(
        negative="",
        help=(
            "Run code that a run names (package.module:function) from the working directory, as "
            "the one who made the run wanted. What you named there yourself needs no such word."
        ),
    ),
]
