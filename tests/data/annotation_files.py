"""The same polygons in each form of annotations, as the tools that write these would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

Polygon = tuple[str, Sequence[tuple[float, float]]]  # its label, and x and y of each point
Images = Mapping[str, Sequence[Polygon]]  # by the photograph's name
FORMS = ("COCO", "YOLO", "LabelMe", "CVAT", "Label Studio")


def write_form(
    form: str, folder: Path, images: Images, width: int, height: int, labels: Sequence[str]
) -> Path:
    """The file or the folder of annotations in this form, all images being of one size."""
    folder.mkdir(parents=True, exist_ok=True)
    write = {
        "COCO": write_coco,
        "YOLO": write_yolo,
        "LabelMe": write_labelme,
        "CVAT": write_cvat,
        "Label Studio": write_label_studio,
    }[form]
    return write(folder, images, width, height, labels)


def coco_value(images: Images, width: int, height: int, labels: Sequence[str]) -> dict:
    categories = [{"id": 10 + place, "name": name} for place, name in enumerate(labels)]
    listed = []
    annotations = []
    for number, (name, polygons) in enumerate(images.items()):
        listed.append({"id": number, "file_name": name, "width": width, "height": height})
        for label, points in polygons:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 10 + labels.index(label),
                    "segmentation": [[value for point in points for value in point]],
                    "iscrowd": 0,
                }
            )
    return {"images": listed, "categories": categories, "annotations": annotations}


def write_coco(
    folder: Path, images: Images, width: int, height: int, labels: Sequence[str]
) -> Path:
    file = folder / "instances.json"
    file.write_text(json.dumps(coco_value(images, width, height, labels)))
    return file


def write_yolo(
    folder: Path, images: Images, width: int, height: int, labels: Sequence[str]
) -> Path:
    for name, polygons in images.items():
        lines = []
        for label, points in polygons:
            shares = [f"{x / width:.7f} {y / height:.7f}" for x, y in points]
            lines.append(" ".join([str(labels.index(label)), *shares]))
        (folder / name).with_suffix(".txt").write_text("\n".join(lines))
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(labels))
    (folder / "data.yaml").write_text(f"path: .\nnames:\n{names}\n")
    return folder


def labelme_value(
    name: str, polygons: Sequence[Polygon], width: int, height: int
) -> dict[str, object]:
    shapes = []
    for label, points in polygons:
        shapes.append(
            {"label": label, "points": [list(p) for p in points], "shape_type": "polygon"}
        )
    return {
        "version": "5.4.1",
        "shapes": shapes,
        "imagePath": f"..\\photos\\{name}",
        "imageData": "iVBORw0K" * 1000,
        "imageHeight": height,
        "imageWidth": width,
    }


def write_labelme(
    folder: Path, images: Images, width: int, height: int, labels: Sequence[str]
) -> Path:
    for name, polygons in images.items():
        text = json.dumps(labelme_value(name, polygons, width, height))
        (folder / name).with_suffix(".json").write_text(text)
    (folder / "labels.txt").write_text("\n".join(("__ignore__", "_background_", *labels)))
    return folder


def cvat_text(elements: Mapping[str, str], width: int, height: int, labels: Sequence[str]) -> str:
    """The XML of images that hold these elements."""
    named = "".join(f"<label><name>{name}</name></label>" for name in labels)
    parts = [
        f"<annotations><version>1.1</version><meta><task><labels>{named}</labels></task></meta>"
    ]
    for number, (name, inside) in enumerate(elements.items()):
        about = f'id="{number}" name={quoteattr(name)} width="{width}" height="{height}"'
        parts.append(f"<image {about}>{inside}</image>")
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', *parts, "</annotations>"])


def write_cvat(
    folder: Path, images: Images, width: int, height: int, labels: Sequence[str]
) -> Path:
    elements = {}
    for name, polygons in images.items():
        inside = ""
        for label, points in polygons:
            text = ";".join(f"{x},{y}" for x, y in points)
            inside += f'<polygon label="{label}" occluded="0" points="{text}" z_order="0"/>'
        elements[name] = inside
    file = folder / "annotations.xml"
    file.write_text(cvat_text(elements, width, height, labels))
    return file


def label_studio_task(
    name: str, results: Sequence[Mapping[str, object]], width: int, height: int
) -> dict[str, object]:
    """A task with these values, each with its type."""
    result = []
    for value in results:
        kind = next(key for key in value if key.endswith("labels"))
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        result.append({"type": kind, "value": dict(value), **size})
    return {
        "data": {"image": f"/data/upload/3/0a1b2c3d-{name}"},
        "annotations": [{"result": result, "was_cancelled": False}],
        "predictions": [],
    }


def write_label_studio(
    folder: Path, images: Images, width: int, height: int, labels: Sequence[str]
) -> Path:
    tasks = []
    for name, polygons in images.items():
        results = []
        for label, points in polygons:
            shares = [[x / width * 100, y / height * 100] for x, y in points]
            results.append({"points": shares, "polygonlabels": [label]})
        tasks.append(label_studio_task(name, results, width, height))
    file = folder / "project.json"
    file.write_text(json.dumps(tasks))
    return file
