"""Masks from annotations: each form gives the same mask, and what is wrong is said."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import prunedge as pe
from prunedge.data.annotations import draw as drawing
from prunedge.data.annotations.fill import fill_polygon
from prunedge.data.annotations.forms import find_annotations
from prunedge.data.annotations.run_lengths import (
    area_of,
    brush_mask,
    coco_counts,
    runs_of,
)
from prunedge.data.annotations.shapes import Runs, classes_of, numbers_of
from prunedge.data.dataset import Dataset
from prunedge.data.mask_listing import MaskOptions, list_images
from prunedge.data.records import Listing
from prunedge.errors import DataError
from tests.data.annotation_files import (
    FORMS,
    Images,
    coco_value,
    cvat_text,
    label_studio_task,
    labelme_value,
    write_form,
)

WIDTH, HEIGHT = 40, 30
LABELS = ("crack", "spall")
BOX = ((3.0, 4.0), (12.0, 4.0), (12.0, 9.0), (3.0, 9.0))
OTHER = ((8.0, 6.0), (20.0, 6.0), (20.0, 20.0), (8.0, 20.0))


def write_photos(root: Path, *names: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    for seed, name in enumerate(names):
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(path)
    return root / "photos"


def masks_in(place: Path, photos: Path) -> dict[str, np.ndarray]:
    """The mask of each annotated image by its first name, as large as it says or as photographs."""
    annotations = find_annotations(place, photos)
    assert annotations is not None
    numbers = numbers_of(classes_of(annotations))
    masks = {}
    for image in annotations.images:
        mask = drawing.DrawnMask(image.drawing, numbers)
        masks[image.names[-1]], _ = drawing.draw(mask, WIDTH, HEIGHT)
    return masks


def listed(photos: Path, masks: Path, **options: object) -> Listing:
    how = MaskOptions(cache_dir=masks.parent / "cache", **options)  # type: ignore[arg-type]
    return list_images(photos, masks, how)


def box_of(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The pixels from `left`, `top` to `right`, `bottom`, which belong to them."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


@st.composite
def polygons(draw: st.DrawFn) -> list[tuple[str, list[tuple[float, float]]]]:
    point = st.tuples(st.integers(0, 8 * (WIDTH - 1)), st.integers(0, 8 * (HEIGHT - 1)))
    drawn = []
    for _ in range(draw(st.integers(1, 4))):
        corners = draw(st.lists(point, min_size=3, max_size=7))
        drawn.append((draw(st.sampled_from(LABELS)), [(x / 8, y / 8) for x, y in corners]))
    return drawn


@settings(max_examples=25, deadline=None)
@given(polygons())
def test_all_forms_give_the_same_mask(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, list[tuple[float, float]]]]
) -> None:
    """Two more polygons give all forms the same classes."""
    root = tmp_path_factory.mktemp("forms")
    images: Images = {"a.png": [*drawn, *((label, BOX) for label in LABELS)]}
    found = []
    for form in FORMS:
        place = write_form(form, root / form.replace(" ", "_"), images, WIDTH, HEIGHT, LABELS)
        (mask,) = masks_in(place, root / "photos").values()
        found.append(mask)
    assert set(np.unique(found[0])) <= {0, 1, 2}
    for mask in found[1:]:
        np.testing.assert_array_equal(mask, found[0])


@settings(max_examples=40, deadline=None)
@given(polygons(), st.booleans())
def test_pixels_of_a_polygon_are_those_whose_centres_lie_in_it(
    drawn: list[tuple[str, list[tuple[float, float]]]], on_grid: bool
) -> None:
    """Against scikit-image, which asks of each pixel; thin parts have a pixel more."""
    measure = pytest.importorskip("skimage.draw")
    points = np.array(drawn[0][1])
    points = points.round() if on_grid else points
    area = fill_polygon(points, WIDTH, HEIGHT)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    rows, columns = area.is_inside.shape
    mask[area.top : area.top + rows, area.left : area.left + columns] = area.is_inside
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[measure.polygon(points[:, 1], points[:, 0], (HEIGHT, WIDTH))] = True
    assert (mask | ~wanted).all()
    # What is more is less than a pixel away from the outline.
    more = np.argwhere(mask & ~wanted)[:, ::-1]
    for x, y in more.tolist():
        assert distance_to(points, x, y) <= 1


def distance_to(points: np.ndarray, x: int, y: int) -> float:
    """From a pixel's centre to the nearest edge."""
    way = np.roll(points, -1, 0) - points
    length = (way**2).sum(1)
    along = ((np.array([x, y]) - points) * way).sum(1) / np.where(length, length, 1)
    nearest = points + along.clip(0, 1)[:, None] * way
    return float(np.hypot(*(nearest - (x, y)).T).min())


@pytest.mark.parametrize("find", ["opencv", "scikit-image"])
def test_outlines_of_a_mask_give_it_back(find: str) -> None:
    generator = np.random.default_rng(3)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(5):
        y, x = generator.integers(2, 22, 2)
        mask[y : y + int(generator.integers(1, 6)), x : x + int(generator.integers(1, 9))] = True
    mask[1, 5:30] = True  # as thin as a crack gets
    found = np.zeros_like(mask)
    if find == "opencv":
        cv2 = pytest.importorskip("cv2")
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        outlines = [np.resize(c[:, 0], (max(3, len(c)), 2)).astype(float) for c in contours]
        mask = cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, -1) > 0
    else:
        measure = pytest.importorskip("skimage.measure")
        padded = np.pad(mask.astype(float), 1)
        outlines = [c[:, ::-1] - 1 for c in measure.find_contours(padded, 0.5)]
    for outline in outlines:
        area = fill_polygon(outline, WIDTH, HEIGHT)
        rows, columns = area.is_inside.shape
        part = found[area.top : area.top + rows, area.left : area.left + columns]
        part ^= area.is_inside  # holes are outlines of their own
    np.testing.assert_array_equal(found, mask)


def test_a_crack_thinner_than_a_pixel_is_not_lost() -> None:
    flat = fill_polygon(np.array([(2, 5.2), (30, 5.3), (30, 5.5), (2, 5.4)]), WIDTH, HEIGHT)
    assert flat.is_inside.any(0).sum() == 28  # from 2 up to 30
    steep = fill_polygon(np.array([(5.2, 2), (5.4, 2), (9.4, 25), (9.2, 25)]), WIDTH, HEIGHT)
    assert steep.is_inside.any(1).sum() == 23


def test_what_an_outline_encloses_twice_is_left_out_and_told() -> None:
    star = np.array([(20, 1), (28, 27), (4, 10), (36, 10), (12, 27)], float)
    area = fill_polygon(star, WIDTH, HEIGHT)
    assert not area.is_inside[15 - area.top, 20 - area.left]
    assert area.disputed > 50
    # In, around a hole, and out again the same way.
    hole = [(2, 2), (30, 2), (30, 25), (2, 25), (2, 2), (8, 8), (8, 18), (20, 18), (20, 8), (8, 8)]
    area = fill_polygon(np.array(hole, float), WIDTH, HEIGHT)
    assert not area.is_inside[12 - area.top, 14 - area.left]
    assert area.is_inside[5 - area.top, 14 - area.left]
    assert area.disputed == 0


# What pycocotools 2.0.11 and label-studio-converter 0.0.59 make of this mask.
SMALL = """
1...111
....1..
.1.11.1
....11.
.1..1.1
.1...11
"""
COCO_TEXT = "0170J17OK4NL10O10O01"
BRUSH = bytes.fromhex(
    "000000a8391bfc7ff6c02dffdf008ffed8047ff1804fff18047ff7c027ff9c023ff9c023ff8c023ff8c023ffb6013ff8"
)


def small_mask() -> np.ndarray:
    return np.array([[char == "1" for char in line] for line in SMALL.split()])


def test_packed_run_lengths_are_read_as_their_libraries_write_them() -> None:
    mask = small_mask()
    counts = coco_counts(COCO_TEXT)
    np.testing.assert_array_equal(
        area_of(Runs(0, 0, 7, 6, counts, by_columns=True), 7, 6).is_inside, mask
    )
    np.testing.assert_array_equal(brush_mask(list(BRUSH), 7, 6), mask)
    for text in ("0170J17OK4NL10O10O0Q", "\x01", "0" * 3 + "o" * 30):
        with pytest.raises(ValueError, match="mask"):
            area_of(Runs(0, 0, 7, 6, coco_counts(text), by_columns=True), 7, 6)
    for packed in ([*BRUSH][:20], [1, 2, 3], [300], ["a"], [*BRUSH[:4], *[255] * 60]):
        with pytest.raises(ValueError, match="brush"):
            brush_mask(packed, 7, 6)


def test_masks_and_shapes_of_each_form(tmp_path: Path) -> None:
    """Run lengths, boxes, ellipses and what turns them: each beside the pixels that it stands for."""
    photos = write_photos(tmp_path, "a.png")
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[10:16, 20:27] = small_mask()

    value = coco_value({"a.png": []}, WIDTH, HEIGHT, LABELS)
    counts = runs_of(np.ascontiguousarray(wanted.T)).counts.tolist()
    segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
    entry = {"image_id": 0, "category_id": 10, "segmentation": segmentation, "iscrowd": 1}
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({**value, "annotations": [entry]}))

    rle = ", ".join(map(str, runs_of(small_mask()).counts.tolist()))
    cvat = tmp_path / "cvat.xml"
    element = f'<mask label="crack" left="20" top="10" width="7" height="6" rle="{rle}"/>'
    cvat.write_text(cvat_text({"a.png": element}, WIDTH, HEIGHT, LABELS))

    png = BytesIO()
    Image.fromarray(small_mask()).save(png, "PNG")
    labelme = tmp_path / "a.json"
    about = labelme_value("a.png", [("crack", [(20, 10), (26, 15)])], WIDTH, HEIGHT)
    about["shapes"][0] |= {  # type: ignore[index]
        "shape_type": "mask",
        "mask": base64.b64encode(png.getvalue()).decode(),
    }
    labelme.write_text(json.dumps(about))
    for place in (coco, cvat, labelme):
        (mask,) = masks_in(place, photos).values()
        np.testing.assert_array_equal(mask > 0, wanted)

    turned = '<box label="crack" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
    above = '<box label="spall" xtl="3" ytl="3" xbr="6" ybr="6" z_order="1"/>'
    below = '<polygon label="crack" points="0,0;9,0;9,9;0,9" z_order="0"/><tag label="x"/>'
    cvat.write_text(cvat_text({"a.png": turned + above + below}, WIDTH, HEIGHT, LABELS))
    (mask,) = masks_in(cvat, photos).values()
    expected = np.zeros((HEIGHT, WIDTH))
    expected[box_of(0, 0, 9, 9) | box_of(13, 7, 17, 17)] = 1
    expected[box_of(3, 3, 6, 6)] = 2
    np.testing.assert_array_equal(mask, expected)

    circle = {"x": 50, "y": 50, "radiusX": 12.5, "radiusY": 50 / 3, "rotation": 0}
    box = {"x": 5, "y": 10, "width": 10, "height": 10, "rotation": 0}
    task = label_studio_task(
        "a.png",
        [{**circle, "ellipselabels": ["a"]}, {**box, "rectanglelabels": ["b"]}],
        WIDTH,
        HEIGHT,
    )
    project = tmp_path / "project.json"
    project.write_text(json.dumps([task]))
    (mask,) = masks_in(project, photos).values()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - 20, y - 15)
    assert (mask == 1)[distance < 4.9].all()
    assert not (mask == 1)[distance > 5.1].any()
    np.testing.assert_array_equal(mask == 2, box_of(2, 3, 6, 6))


def test_data_of_each_form_is_what_masks_give(tmp_path: Path) -> None:
    """The whole way: classes, masks at the model's size, and photographs that show nothing."""
    names = [f"wall {index}.png" for index in range(12)]
    photos = write_photos(tmp_path, *names)
    images: Images = {
        name: [("crack", BOX), ("spall", OTHER)] if index % 3 else []
        for index, name in enumerate(names)
    }
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[box_of(3, 4, 12, 9)] = 1
    wanted[box_of(8, 6, 20, 20)] = 2
    prints = set()
    for form in FORMS:
        place = write_form(form, tmp_path / form, images, WIDTH, HEIGHT, LABELS)
        data = pe.load_folder(
            photos, masks=place, size=(HEIGHT, WIDTH), cache_dir=tmp_path / "cache"
        )
        assert data.classes[1:] == LABELS
        for name, mask in all_masks(data).items():
            shown = images[name]
            np.testing.assert_array_equal(mask, wanted if shown else 0)
        prints.add(tuple(sorted(sample.path.name for sample in data.train.samples)))
    assert len(prints) == 1


def all_masks(data: Dataset) -> dict[str, np.ndarray]:
    masks = {}
    for split in data.splits().values():
        for sample, mask in zip(split.samples, split.targets(), strict=True):
            masks[sample.path.name] = mask
    return masks


def test_the_cache_follows_what_annotations_hold(tmp_path: Path) -> None:
    photos = write_photos(tmp_path, *(f"{index}.png" for index in range(9)))
    images: Images = {f"{index}.png": [("crack", BOX)] for index in range(9)}

    def load() -> Dataset:
        return pe.load_folder(
            photos, masks=file, size=(HEIGHT, WIDTH), cache_dir=tmp_path / "cache"
        )

    file = write_form("COCO", tmp_path, images, WIDTH, HEIGHT, LABELS)
    first = load()
    assert first.train.masks is not None
    text = file.read_text()
    file.write_text(text + "\n")
    again = load()
    assert again.train.masks is not None
    assert again.train.masks.cache == first.train.masks.cache
    file.write_text(text.replace("12.0, 9.0", "22.0, 9.0"))
    other = load()
    assert other.train.masks is not None
    assert other.train.masks.cache != first.train.masks.cache
    assert other.fingerprint != first.fingerprint
    before = all_masks(first)["0.png"]
    assert before.sum() == 10 * 6
    assert all(mask.sum() > 60 for mask in all_masks(other).values())


def test_overlaps_cuts_and_unused_labels_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    beyond = [(30.0, 20.0), (44.0, 20.0), (44.0, 28.0), (30.0, 28.0)]
    images: Images = {
        "a.png": [("crack", BOX), ("spall", OTHER), ("crack", beyond)],
        "b.png": [],
    }
    place = write_form("YOLO", tmp_path / "labels", images, WIDTH, HEIGHT, (*LABELS, "rust"))
    (place / "b.txt").unlink()
    with caplog.at_level("INFO", logger="prunedge"):
        found = listed(photos, place)
    assert found.labels.mask_classes == ("background", *LABELS)
    assert [record.label for record in found.records] == ["crack;spall", ""]
    said = caplog.text
    assert "masks: YOLO, 2 photographs, 3 polygons, classes background, crack, spall" in said
    assert "20 pixels lie in shapes of several classes: the later shape lies above (a)" in said
    assert "1 shape reaches beyond the edge of the photograph" in said
    assert "1 label is without a shape, and left out: rust" in said
    assert "1 photograph is without a text of labels: taken for sound" in said


@pytest.mark.parametrize("form", FORMS)
def test_photographs_and_annotations_that_lack_the_other_are_refused_or_left_out(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    place = write_form(form, tmp_path / "x", {"a.png": [("crack", BOX)]}, WIDTH, HEIGHT, LABELS)
    if form == "YOLO":
        assert len(listed(photos, place).records) == 2
    else:
        with pytest.raises(DataError, match=r"1 of 2 photographs have no annotation: b .*skip"):
            listed(photos, place)
        assert len(listed(photos, place, skips=True).records) == 1

    images: Images = {"a.png": [("crack", BOX)], "gone.png": [("crack", BOX)]}
    place = write_form(form, tmp_path / "y", images, WIDTH, HEIGHT, LABELS)
    (photos / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images that are annotated are not among the phot"):
        listed(photos, place)
    assert len(listed(photos, place, skips=True).records) == 1
    assert "skipped annotations of a photograph that is not there" in caplog.text
    assert "gone" in caplog.text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(3.0, 4.0), (12.0, 4.0)], "a polygon of 2 points|a box, and no polygon"),
        ([(3.0, 4.0), (12.0, 4.0), (12.0, 900.0)], "far outside|no share of"),
        ([(-9.0, 4.0), (-2.0, 4.0), (-2.0, 9.0)], "a polygon outside of the image"),
        ([(3.0, 4.0), (float("nan"), 4.0), (12.0, 9.0)], "no numbers"),
    ],
)
def test_polygons_that_are_none_name_their_photograph(
    tmp_path: Path, form: str, points: list[tuple[float, float]], said: str
) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    images: Images = {"a.png": [("crack", points)], "b.png": [("crack", BOX)]}
    place = write_form(form, tmp_path / "x", images, WIDTH, HEIGHT, LABELS)
    with pytest.raises(DataError, match=f"1 of 2 masks can't be used: a \\(.*({said})"):
        listed(photos, place)
    assert len(listed(photos, place, skips=True).records) == 1


@pytest.mark.parametrize("form", FORMS)
def test_sizes_and_empty_annotations_are_compared_with_photographs(
    tmp_path: Path, form: str
) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    images: Images = {"a.png": [], "b.png": []}
    place = write_form(form, tmp_path / "empty", images, WIDTH, HEIGHT, LABELS)
    with pytest.raises(DataError, match=f"none of 2 photographs has a shape.*{form}"):
        listed(photos, place)
    if form == "YOLO":
        return
    images = {"a.png": [("crack", BOX)], "b.png": [("crack", BOX)]}
    place = write_form(form, tmp_path / "x", images, 80, 60, LABELS)
    with pytest.raises(
        DataError, match=r"a \(its annotations are for 80x60 pixels and not 40x30\)"
    ):
        listed(photos, place)


def test_a_turned_photograph_has_its_annotations_turned_where_their_size_tells(
    tmp_path: Path,
) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(photos / "a.png")
    (photos / "a.png").unlink()
    image.save(photos / "a.jpg", exif=exif)
    images: Images = {"a.jpg": [("crack", BOX)], "b.png": [("crack", BOX)]}
    place = write_form("COCO", tmp_path / "x", images, WIDTH, HEIGHT, LABELS)
    data = listed(photos, place)
    assert data.masked is not None
    from prunedge.data.mask_look import values_of

    upright = values_of(data.masked.pairs[0]).values
    stored = values_of(data.masked.pairs[1]).values
    np.testing.assert_array_equal(upright, np.rot90(stored, -1))


def test_names_are_matched_by_their_folders(tmp_path: Path) -> None:
    photos = write_photos(tmp_path, "x/a.png", "y/a.png", "y/b.png")
    both: Images = {"x/a.png": [("crack", BOX)], "images/y/a.png": [], "b.png": []}
    place = write_form("COCO", tmp_path / "x", both, WIDTH, HEIGHT, LABELS)
    assert [record.label for record in listed(photos, place).records] == ["crack", "", ""]
    unclear: Images = {"a.png": [("crack", BOX)], "b.png": []}
    place = write_form("COCO", tmp_path / "y", unclear, WIDTH, HEIGHT, LABELS)
    with pytest.raises(DataError, match=r"a.png may be x/a.png or y/a.png"):
        listed(photos, place)
    twice: Images = {"y/b.png": [("crack", BOX)], "b.png": []}
    place = write_form("COCO", tmp_path / "z", twice, WIDTH, HEIGHT, LABELS)
    with pytest.raises(DataError, match=r"1 photograph is annotated twice: y/b.png and b.png"):
        listed(photos, place)
    elsewhere: Images = {"z/b.png": [("crack", BOX)]}
    place = write_form("COCO", tmp_path / "w", elsewhere, WIDTH, HEIGHT, LABELS)
    with pytest.raises(DataError, match="are not among the photographs"):
        listed(photos, place)


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>
<annotations><meta><task><labels><label><name>&c;</name></label></labels></task></meta></annotations>"""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "this is no JSON"),
        ("a.json", "[" * 200_000, "this is no JSON|too deep a JSON"),
        ("a.json", "[]", "none of the known forms: an empty list"),
        ("a.json", '{"predictions": 1, "b": 2}', "none of the known forms.*'predictions', 'b'"),
        ("a.json", '[{"image": "a", "annotator": 1}]', "JSON-MIN"),
        ("a.json", '{"images": [], "annotations": 3, "categories": []}', "annotations: input"),
        ("a.json", "\xff", "no JSON"),
        ("a.xml", BOMB, "an XML with a DOCTYPE"),
        ("a.xml", "<annotation><object/></annotation>", "<annotation>, and not CVAT's"),
        ("a.xml", "<annotations><track/></annotations>", "tracks of a video"),
        ("a.xml", "<annotations>", "this is no XML"),
        ("a.txt", "0 0 0 1 1 1 0", "name the folder of the labels"),
        ("a.zip", "PK", "no annotations that are known"),
    ],
)
def test_files_of_no_known_form_are_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    photos = write_photos(tmp_path, "a.png")
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        listed(photos, file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", ["", "[]", "{}", "null", '{"vers', "\xff"])
def test_a_broken_json_among_labelme_s_is_named(tmp_path: Path, left: str) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    images: Images = {"a.png": [("crack", BOX)], "b.png": []}
    folder = write_form("LabelMe", tmp_path / "x", images, WIDTH, HEIGHT, LABELS)
    (folder / "settings.json").write_text("[]")  # no photograph is called so
    assert listed(photos, folder)
    (folder / "b.json").write_text(left)
    with pytest.raises(DataError, match=r"no JSON|no shapes and imagePath") as caught:
        listed(photos, folder)
    assert caught.value.where == folder / "b.json"


def test_folders_that_could_be_several_things_are_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path, "a.png", "b.png")
    images: Images = {"a.png": [("crack", BOX)], "b.png": []}
    folder = write_form("LabelMe", tmp_path / "x", images, WIDTH, HEIGHT, LABELS)
    write_form("YOLO", folder, images, WIDTH, HEIGHT, LABELS)
    with pytest.raises(DataError, match=r"LabelMe \(a.json\) and of YOLO \(a.txt\)"):
        listed(photos, folder)
    for file in folder.glob("*.txt"):
        file.unlink()
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "a.png")
    with pytest.raises(DataError, match=r"masks \(a.png\) and annotations \(a.json\)"):
        listed(photos, folder)
    # Beside photographs images are these.
    assert len(listed(folder, folder, skips=True).records) == 1

    only = write_form("COCO", tmp_path / "y", images, WIDTH, HEIGHT, LABELS).parent
    with pytest.raises(DataError, match=r"name the file of the annotations.*instances\.json"):
        listed(photos, only)
    labels = write_form("YOLO", tmp_path / "z", images, WIDTH, HEIGHT, LABELS)
    (labels / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"nothing names the classes.*data.yaml"):
        listed(photos, labels)
    (labels / "classes.txt").write_text("crack\n")
    (labels / "a.txt").write_text("1 0 0 .1 0 .1 .1\n")
    with pytest.raises(DataError, match=r"line 1 of a.txt: the class 1, which classes.txt lacks"):
        listed(photos, labels)


def test_what_people_left_open_is_not_taken_for_sound(tmp_path: Path) -> None:
    """Label Studio: skipped tasks, and several people's answers."""
    photos = write_photos(tmp_path, "a.png", "b.png", "c.png")
    points = [[10, 10], [30, 10], [30, 30]]
    drawn = [{"points": points, "polygonlabels": ["crack"]}]
    tasks = [label_studio_task(f"{name}.png", drawn, WIDTH, HEIGHT) for name in "abc"]
    tasks[1]["annotations"][0]["was_cancelled"] = True  # type: ignore[index]
    tasks[2]["annotations"] *= 2  # type: ignore[operator]
    file = tmp_path / "project.json"
    file.write_text(json.dumps(tasks))
    with pytest.raises(DataError, match="1 of 3 photographs have no annotation: b"):
        listed(photos, file)
    (photos / "b.png").unlink()
    with pytest.raises(DataError, match=r"c \(2 annotations of it, none of which is the truth\)|b"):
        listed(photos, file)
    assert [record.name for record in listed(photos, file, skips=True).records] == ["a.png"]


def test_a_model_s_classes_are_matched_by_name(tmp_path: Path) -> None:
    """The background has the name that the model knows."""
    photos = write_photos(tmp_path, "a.png")
    images: Images = {"a.png": [("spall", BOX)]}
    place = write_form("COCO", tmp_path, images, WIDTH, HEIGHT, LABELS)
    found = listed(photos, place, known=("sound", "crack", "spall"))
    assert found.masked is not None
    table = found.masked.reading.table(("sound", "crack", "spall"))
    assert table[:2].tolist() == [0, 2]
