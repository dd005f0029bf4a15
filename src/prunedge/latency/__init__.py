"""How long a model takes on a device, predicted layer by layer from what was measured there, to
steer the pruning.
"""

from prunedge.latency.steering import Steering, steer
from prunedge.latency.timer import Timer

__all__ = ["Steering", "Timer", "steer"]
