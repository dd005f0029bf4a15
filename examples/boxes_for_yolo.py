"""Boxes of COCO's annotations, as ultralytics (and `yolo.py`) reads them.

    python examples/boxes_for_yolo.py annotations.json yolo-data
    python examples/yolo.py yolo-data/data.yaml

The annotations lie beside the images that they name. Every fourth image is for validation.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import cyclopts


def main(annotations: Path, out: Path) -> None:
    """Write `out/images`, `out/labels` and `out/data.yaml`."""
    listed = json.loads(annotations.read_text(encoding="utf-8"))
    classes = [category["id"] for category in listed["categories"]]
    boxes = defaultdict(list)
    for box in listed["annotations"]:
        boxes[box["image_id"]].append(box)

    for number, image in enumerate(listed["images"]):
        split = "val" if number % 4 == 3 else "train"
        lines = [line(box, image, classes) for box in boxes[image["id"]]]
        for kind in ("images", "labels"):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
        file = annotations.parent / image["file_name"]
        shutil.copy(file, out / "images" / split)
        (out / "labels" / split / f"{file.stem}.txt").write_text("\n".join(lines))

    names = [category["name"] for category in listed["categories"]]
    splits = {"train": "images/train", "val": "images/val"}
    data = {"path": str(out.resolve()), **splits, "names": names}
    (out / "data.yaml").write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML
    print(f"{len(listed['images'])} images, {len(listed['annotations'])} boxes: {out}/data.yaml")


def line(box: dict[str, Any], image: dict[str, Any], classes: list[int]) -> str:
    """The class's number, and the middle and the sides of a box in shares of the image's."""
    left, top, width, height = box["bbox"]
    across, down = image["width"], image["height"]
    middle = (left + width / 2) / across, (top + height / 2) / down
    shares = (*middle, width / across, height / down)
    return " ".join([str(classes.index(box["category_id"])), *map(str, shares)])


if __name__ == "__main__":
    cyclopts.run(main)
