"""The options of `prunedge inspect` that say how its results are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.cli.console import split
from prunedge.errors import DataError

if TYPE_CHECKING:
    from prunedge.edge.inspect.exports import Outputs


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """How results are written; what is found does not depend on it.

    Parameters
    ----------
    write
        Further files for all images, with commas between them: coco or label-studio (outlines with
        scores, to correct them as labels), geojson (outlines on a map).
    decimal
        The decimal sign in tables: point (with commas between the columns, unless given), or comma
        (with semicolons), as spreadsheets of many languages read them.
    """

    write: Annotated[list[str] | None, Parameter(converter=split)] = None
    decimal: str | None = None

    def outputs(self, out: Path | None, source: str) -> Outputs:
        """What is written into `out` of a `source`; DataError where a value can't be, or nothing is
        written.
        """
        from prunedge.edge.inspect.exports import Outputs, parse_formats
        from prunedge.edge.inspect.tables import TableFormat, parse_table_format

        given = {"--write": self.write, "--decimal": self.decimal}
        for option, value in given.items():
            if value is not None and out is None:
                raise DataError(
                    "without --out no file is written",
                    where=option,
                    remedy=f"give --out FOLDER, or leave {option} out",
                )
        formats = parse_formats(self.write or ())
        self._refuse_frames(formats, source)
        table = TableFormat() if self.decimal is None else parse_table_format(self.decimal)
        return Outputs(table, formats)

    def _refuse_frames(self, formats: tuple[str, ...], source: str) -> None:
        """DataError where labels would be of images that are no files."""
        from prunedge.edge.inspect.exports import COCO, LABEL_STUDIO
        from prunedge.edge.inspect.sources import are_files

        of_labels = [name for name in formats if name in (COCO, LABEL_STUDIO)]
        if of_labels and not are_files(source):
            raise DataError(
                f"{of_labels[0]} names files of images, and frames are none",
                where="--write",
                remedy="save the frames as photographs, and name their folder",
            )


# Shared, since it is frozen.
DEFAULT_OUTPUT = OutputOptions()
