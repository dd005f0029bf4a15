"""The options of `prunedge inspect` and `prunedge agent` that say how large things in a photograph
are, and where it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.errors import DataError

if TYPE_CHECKING:
    from prunedge.edge.inspect.footprint import Pose
    from prunedge.edge.inspect.scale.scaling import Scaling
    from prunedge.edge.inspect.widths import WidthClasses

# A text that may begin with a minus sign.
Signed = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


@Parameter(name="*")
@dataclass(frozen=True)
class ScaleOptions:
    """How large things in a photograph are.

    Parameters
    ----------
    mm_per_pixel
        Millimetres that a pixel shows, 0.12 or 0.12±0.01 (also +-): gives sizes in millimetres too.
    marker
        A marker of known size in each photograph that gives them: apriltag:36h11:50mm (the side of
        its black square), or checkerboard:9x6:25mm (inner corners, the side of a square). Needs
        `prunedge[marker]`.
    distance
        From the lens to what is photographed, 2.5m or 2.5±0.1m: gives them with the focal length in
        the photographs' EXIF.
    no_scale
        What is done with a photograph whose scale is not found: it is measured in pixels, unless
        skip is given.
    width_classes
        Classes of cracks by their largest width, "< 0.1, 0.1-0.3, > 0.3": in millimetres, or in
        pixels where no scale is asked for.
    height
        Of a camera that looks straight down above the ground, 30m or 30±0.5m: the distance as well,
        and with a GPS position and heading where damage lies on a map.
    ground
        In place of the height the altitude of the ground, 412m or 412±3m, which is taken from the
        photographs' GPSAltitude.
    heading
        Of the photographs' upper edge, in degrees clockwise from true north; without it the
        GPSImgDirection of their EXIF.
    """

    mm_per_pixel: Signed = None
    marker: str | None = None
    distance: Signed = None
    no_scale: str | None = None
    width_classes: str | None = None
    height: Signed = None
    ground: Signed = None
    heading: float | None = None

    def given(self) -> tuple[float | None, float]:
        """Millimetres a pixel, and the uncertainty of that; DataError where they can't be."""
        from prunedge.edge.inspect.scale.scaling import parse_mm_per_pixel

        if self.mm_per_pixel is None:
            return None, 0.0
        given = parse_mm_per_pixel(self.mm_per_pixel)
        return given.value, given.uncertainty

    def scaling(self) -> Scaling:
        """The other ways to a scale; DataError where a value can't be."""
        from prunedge.edge.inspect.scale.distance import parse_distance
        from prunedge.edge.inspect.scale.marker import parse_marker
        from prunedge.edge.inspect.scale.scaling import Scaling, parse_missing

        is_sought = self.marker or self.distance or self.height or self.ground
        if self.no_scale is not None and not is_sought:
            raise DataError(
                "no scale is looked for in photographs",
                where="--no-scale",
                remedy="give --marker, --distance or --height, or leave --no-scale out",
            )
        return Scaling(
            uncertainty=self.given()[1],
            marker=None if self.marker is None else parse_marker(self.marker),
            distance=None if self.distance is None else parse_distance(self.distance),
            missing="pixels" if self.no_scale is None else parse_missing(self.no_scale),
        )

    def classes(self) -> WidthClasses | None:
        """Classes of widths; DataError where they leave gaps or overlap."""
        from prunedge.edge.inspect.widths import parse_width_classes

        return None if self.width_classes is None else parse_width_classes(self.width_classes)

    def pose(self) -> Pose:
        """Where the camera was; DataError where a value can't be."""
        from prunedge.edge.inspect.footprint import (
            Pose,
            parse_ground,
            parse_heading,
            parse_height,
        )

        if self.height is not None and self.ground is not None:
            raise DataError("--height and --ground both tell the height", remedy="give one of them")
        return Pose(
            height=None if self.height is None else parse_height(self.height),
            ground=None if self.ground is None else parse_ground(self.ground),
            heading=None if self.heading is None else parse_heading(self.heading),
        )


# Shared, since it is frozen.
NO_SCALE = ScaleOptions()
