"""Looking for damage: a bundle and photographs, videos or a camera in; regions, maps, pictures and
tables out. Needs no torch.
"""

from prunedge.edge.inspect.inspection import Inspection, Settings, inspect_picture
from prunedge.edge.inspect.regions import Region

__all__ = ["Inspection", "Region", "Settings", "inspect_picture"]
