"""Images of a folder, decoded beforehand, for the bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunedge.edge.bundle import Bundle
from prunedge.edge.folders import walk
from prunedge.edge.image.read import SUFFIXES, read_image
from prunedge.errors import DataError

POOL = 64  # images of --data that are kept decoded


def pool_of(bundle: Bundle, images: Path | None, folder: Path) -> str | None:
    """The file in `folder` that holds images of the folder `images` as the bundle's model sees
    them, (n, height, width, channels) uint8; None without images. Raises DataError where there are
    none.
    """
    if images is None:
        return None
    levels = walk(images, failed=lambda path, error: None, too_deep=lambda path: None)
    try:
        files = sorted(
            Path(level.path, name)
            for level in levels
            for name in level.files
            if Path(name).suffix.lower() in SUFFIXES
        )
    except OSError as error:
        what = f"the folder of images can't be read ({error.strerror})"
        raise DataError(
            what, where=images, remedy="name a folder with images, or leave --data out"
        ) from None
    if not files:
        raise DataError(
            "no images to classify",
            where=images,
            remedy="name a folder with images, or leave --data out",
        )
    task = bundle.manifest.task
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(POOL, len(files))).astype(int)]
    greys = bundle.greys
    name = f"{task.size}_{task.resize}_{task.in_channels}"
    if greys is not None:
        name += f"_{greys.low:g}_{greys.high:g}"
    file = folder / f"{name}.npy"
    if not file.exists():
        decoded = []
        for path in chosen:
            decoded.append(read_image(path, task.size, greys, task.resize, task.in_channels))
        np.save(file, np.stack(decoded))
    return str(file)
