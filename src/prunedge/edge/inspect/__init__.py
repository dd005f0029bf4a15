"""Looking for damage: a bundle and photographs, videos or a camera in; regions, maps, images and
tables out. Needs no torch.
"""

from prunedge.edge.inspect.inspection import Inspection, Settings, inspect_image
from prunedge.edge.inspect.regions import Region

__all__ = ["Inspection", "Region", "Settings", "inspect_image"]
