"""The options of `prunedge inspect` that say how its results are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from prunedge.errors import DataError

if TYPE_CHECKING:
    from prunedge.edge.inspect.tables import TableFormat


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """How results are written; what is found does not depend on it.

    Parameters
    ----------
    decimal
        The decimal sign in tables: point (with commas between the columns, unless given), or comma
        (with semicolons), as spreadsheets of many languages read them.
    """

    decimal: str | None = None

    def table(self, out: Path | None) -> TableFormat:
        """How tables are written into `out`; DataError where a value can't be, or nothing is
        written.
        """
        from prunedge.edge.inspect.tables import TableFormat, parse_table_format

        if self.decimal is None:
            return TableFormat()
        if out is None:
            raise DataError(
                "without --out no table is written",
                where="--decimal",
                remedy="give --out FOLDER, or leave --decimal out",
            )
        return parse_table_format(self.decimal)


# Shared, since it is frozen.
DEFAULT_OUTPUT = OutputOptions()
