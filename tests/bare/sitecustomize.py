"""Put before everything on PYTHONPATH: Python starts as on a device, without the training stack (see .ci/run)."""

import sys

for module in ("torch", "torchvision", "timm", "lightning_fabric", "sklearn"):
    sys.modules[module] = None
