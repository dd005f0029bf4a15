"""Put before everything on PYTHONPATH: Python starts as on a device, without the training stack (see .ci/run)."""

import sys

MISSING = ("torch", "torchvision", "timm", "lightning_fabric", "sklearn")


class Missing:
    """Finds none of these, as on a machine that has not got them.

    `sys.modules["torch"] = None` would say so too, but scipy looks there for torch's tensors.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
