"""`prunedge probe`: times small models, for prunedge itself on another machine. Needs no
torch.
"""

from __future__ import annotations

from pathlib import Path


def probe(folder: Path, *, runtime: str = "onnx", threads: int = 1) -> None:
    """Time every .onnx file of a folder and print the milliseconds as JSON (what `prunedge prune
    --device` asks of a device).

    Parameters
    ----------
    folder
        Holds the files.
    runtime
        onnx, openvino or tensorrt.
    threads
        Threads that one inference may use.
    """
    from prunedge.cli.console import print_json
    from prunedge.edge.bench.probe import time_files

    print_json(time_files(folder, target=runtime, threads=threads))
