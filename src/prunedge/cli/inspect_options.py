"""The options of `prunedge inspect` and `prunedge agent` that say what counts as damage, and what
the model is shown of a photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.cli.console import split
from prunedge.cli.options import Flag
from prunedge.cli.scale_options import NO_SCALE, ScaleOptions
from prunedge.errors import DataError

if TYPE_CHECKING:
    from prunedge.edge.inspect import Settings
    from prunedge.edge.inspect.settings import Patch


@Parameter(name="*")
@dataclass(frozen=True)
class InspectOptions:
    """What counts as damage, and what the model is shown. The defaults are those of the library's
    `Settings`, which `--help` does not import: it needs numpy.

    Parameters
    ----------
    damage
        Classes that count as damage, with commas between them, or given several times; without it
        those whose names don't say that all is well.
    threshold
        An area is damaged from this probability on (0.5 unless given), or from this number on where
        the model predicts numbers.
    patch
        Width of a patch in the photograph's pixels (224), or its width and height (96x48): as much
        as a training image showed. Without it, what the bundle tells.
    whole
        Photographs are not cut, as where the training images were whole photographs.
    overlap
        Share of a patch that the next one sees again: damage up to that share of a patch lies whole
        in some patch.
    batch
        Patches at a time.
    max_megapixels
        Larger images are refused before they are decoded.
    range
        LOW:HIGH, the stored values that become black and white in greys of more than eight bits;
        without it, what the bundle tells.
    """

    damage: Annotated[list[str] | None, Parameter(converter=split)] = None
    threshold: float | None = None
    patch: str | None = None
    whole: Flag = False
    overlap: float = 0.5
    batch: int = 16
    max_megapixels: float = 200.0
    range: str | None = None
    scale: ScaleOptions = NO_SCALE

    def settings(self) -> Settings:
        """The library's settings; DataError where a value can't be."""
        from prunedge.edge.image.read import parse_range
        from prunedge.edge.inspect import Settings

        return Settings(
            damage=tuple(self.damage or ()),
            threshold=self.threshold,
            patch=self._patch(),
            overlap=self.overlap,
            batch=self.batch,
            mm_per_pixel=self.scale.given()[0],
            max_megapixels=self.max_megapixels,
            range=None if self.range is None else parse_range(self.range),
            scaling=self.scale.scaling(),
            width_classes=self.scale.classes(),
            pose=self.scale.pose(),
        )

    def _patch(self) -> Patch | None:
        """What is cut of a photograph; DataError where two options tell it."""
        from prunedge.edge.inspect.settings import parse_patch

        if self.whole and self.patch is not None:
            raise DataError("--patch and --whole exclude each other", remedy="give one of them")
        if self.whole:
            return "whole"
        return None if self.patch is None else parse_patch(self.patch)


# Shared, since it is frozen.
DEFAULT = InspectOptions()
