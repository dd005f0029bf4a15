"""Masks of several classes from black and white ones, beside their photographs in a folder for each
class.

    python examples/masks_by_folder.py magtile/ classes/
    prunedge prune classes/photos --masks classes/masks --model smp:unet-resnet18 --out runs/magtile
"""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import copyfile

import numpy as np
from PIL import Image

root, out = map(Path, sys.argv[1:])
classes = ["background"]
for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    for mask in sorted(folder.rglob("*.png")):
        photo = mask.with_suffix(".jpg")
        name = photo.relative_to(root)
        is_damage = np.asarray(Image.open(mask).convert("L")) > 127
        # A folder whose masks are all black holds what is sound, and is no class.
        if is_damage.any() and folder.name not in classes:
            classes.append(folder.name)
        number = classes.index(folder.name) if is_damage.any() else 0

        for kind in ("photos", "masks"):
            (out / kind / name.parent).mkdir(parents=True, exist_ok=True)
        copyfile(photo, out / "photos" / name)
        numbers = Image.fromarray(is_damage * np.uint8(number))
        numbers.save((out / "masks" / name).with_suffix(".png"))
(out / "masks" / "classes.txt").write_text("\n".join(classes) + "\n")
print(f"{len(classes)} classes: {', '.join(classes)}")
