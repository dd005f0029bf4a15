"""TensorRT: the ONNX file, and a script that builds its engine on the Jetson. Nothing can be
checked before it is there.
"""

from __future__ import annotations

from prunedge.edge.targets import TARGETS
from prunedge.export.source import Source

SCRIPT = "build_tensorrt.sh"
LARGEST_BATCH = 32


def write(source: Source) -> list[str]:
    """Write model.onnx and the script; gives their names."""
    file = TARGETS["tensorrt"].file
    source.onnx()
    image = "x".join(map(str, source.task.image_shape))
    sizes = {"min": 1, "opt": 1, "max": LARGEST_BATCH}
    if source.batch is not None:
        sizes = dict.fromkeys(sizes, source.batch)
    shapes = {name: f"images:{batch}x{image}" for name, batch in sizes.items()}
    ranges = " ".join(f"--{name}Shapes={shape}" for name, shape in shapes.items())
    (source.folder / SCRIPT).write_text(
        f"""#!/bin/sh
# Builds model.engine (half precision) beside this script with TensorRT's own tool, and times it. For programs of your own;
# `prunedge bench --runtime tensorrt` builds an engine of its own through ONNX Runtime, and checks its answers.
set -eu
cd "$(dirname "$0")"
tool=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
[ -x "$tool" ] || {{ echo "no trtexec here: install TensorRT (on a Jetson: the package nvidia-tensorrt of its JetPack)" >&2; exit 2; }}
exec "$tool" --onnx={file} --saveEngine=model.engine --fp16 {ranges} --iterations=200 --avgRuns=50 "$@"
""",
        encoding="utf-8",
    )
    return [file, SCRIPT]
