"""What the plain install answers on this machine, as JSON: run it on two machines, compare what they say.

    python answers.py PICTURES BUNDLE [BUNDLE ...]

PICTURES is a folder; of each bundle, every form for ONNX Runtime classifies all of them. Needs nothing but prunedge.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.edge import Bundle, open_bundle
from prunedge.edge.image.read import SUFFIXES, read_image
from prunedge.edge.session import open_session
from prunedge.edge.targets import TARGETS


def answers(bundle: Bundle, files: list[Path]) -> dict[str, Any]:
    """The SHA-256 of the decoded pictures, and each form's probabilities and self-test."""
    pixels = np.stack([read_image(file, bundle.manifest.task.size) for file in files])
    forms = {}
    for target in bundle.manifest.forms:
        if TARGETS[target].runtime == "onnx":
            session = open_session(bundle, target=target)
            forms[target] = {"self_test": asdict(session.self_test()), "probabilities": session.predict(pixels).tolist()}
    return {"pixels": hashlib.sha256(pixels.tobytes()).hexdigest(), "forms": forms}


def main() -> None:
    pictures, *bundles = sys.argv[1:]
    files = sorted(file for file in Path(pictures).iterdir() if file.suffix.lower() in SUFFIXES)
    about = {name: version(name) for name in ("prunedge", "onnxruntime", "numpy", "pillow")} | {"python": platform.python_version()}
    found = {"machine": platform.machine(), "versions": about, "bundles": [answers(open_bundle(path), files) for path in bundles]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
