"""Looking for damage: a bundle and photographs, videos or a camera in; regions, maps, images and
tables out. Needs no torch.
"""

from prunedge.edge.inspect.inspection import Inspection, inspect_image
from prunedge.edge.inspect.regions import Region
from prunedge.edge.inspect.settings import Settings

__all__ = ["Inspection", "Region", "Settings", "inspect_image"]
