"""Masks that annotations hold: what is said of them, and what their numbers mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prunedge.data.annotations.draw import DrawnNotes
from prunedge.data.annotations.shapes import Annotations
from prunedge.data.mask_look import MaskLook
from prunedge.data.mask_reading import MaskReading
from prunedge.data.mask_sources import MaskedImages
from prunedge.data.masks import Pair
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)

_SOUND = "what shows no damage is listed, or has a file, without a shape"
UNMASKED = "an image without damage needs a mask, too, all black"


def unannotated(images: MaskedImages) -> str:
    """What to do about photographs that have no mask or annotation."""
    return UNMASKED if images.annotations is None else f"annotate them: {_SOUND}"


def refuse_strangers(images: MaskedImages, *, skips: bool) -> None:
    """DataError where images are annotated of which no photograph is there, unless these are left
    out.
    """
    strangers = images.strangers
    if not strangers:
        return
    if not skips:
        of_all = counted(len(images.annotations.images) if images.annotations else 0, "image")
        raise DataError(
            f"{len(strangers):,} of {of_all} that are annotated are not among the photographs in "
            f"{images.root}: {first_of(strangers)}",
            where=images.where,
            remedy=(
                "name the folder that they lie in, or go on without them: "
                f"{option('skip_unreadable', True)}"
            ),
        )
    for name in strangers:
        log.warning("skipped annotations of a photograph that is not there: %s", name)


def drawn_reading(classes: Sequence[str], known: Sequence[str] | None) -> MaskReading:
    """How drawn masks of these classes are read, which are numbers already. What annotations call
    the background a model may call otherwise: it is the first of the classes that it knows.
    """
    names = dict(enumerate(classes))
    if known and classes[0] not in known and known[0] not in classes:
        names[0] = known[0]
    return MaskReading(names, tuple(names.values()))


def tell_drawn(
    annotations: Annotations,
    classes: Sequence[str],
    listed: Sequence[tuple[Pair, MaskLook]],
) -> None:
    """Say how annotations are read, and what is unusual about them. DataError where no shape is
    drawn anywhere.
    """
    looks: dict[str, MaskLook] = {}
    for pair, look in listed:
        before = looks.get(pair.name)
        looks[pair.name] = look if before is None else before.joined(look)
    empty = sum(not any(look.values) for look in looks.values())
    if empty == len(looks):
        raise DataError(
            f"none of {counted(len(looks), 'photograph')} has a shape of damage in these "
            f"{annotations.form} annotations",
            where=annotations.where,
            remedy="draw the damage, or name other annotations",
        )
    photographs = counted(len(looks), "photograph")
    shapes = []
    for noun, count in annotations.shape_count().items():
        if count:
            shapes.append(counted(count, noun))
    line = (
        f"masks: {annotations.form}, {photographs}, {', '.join(shapes)}, classes "
        f"{', '.join(classes)}; {empty:,} of {photographs} hold {classes[0]} alone"
    )
    log.info("%s", line)
    _tell_assumed(annotations, len(looks))
    _tell_unused(annotations, classes)
    _tell_notes([(name, look.notes) for name, look in looks.items()])


def _tell_assumed(annotations: Annotations, count: int) -> None:
    if annotations.takes_rest_for_sound and count > len(annotations.images):
        log.warning(
            "%s without a text of labels: taken for sound, as YOLO has it",
            counted(count - len(annotations.images), "photograph is", "photographs are"),
        )


def _tell_unused(annotations: Annotations, classes: Sequence[str]) -> None:
    unused = [label for label in annotations.labels if label not in classes]
    used = {shape.label for image in annotations.images for shape in image.drawing.shapes}
    unused = [label for label in unused if label not in used]
    if unused:
        log.warning(
            "%s without a shape, and left out: %s",
            counted(len(unused), "label is", "labels are"),
            first_of(unused),
        )


def _tell_notes(notes: Sequence[tuple[str, DrawnNotes]]) -> None:
    """Say what is unusual, and in how many photographs."""
    for field, text in (
        ("overlapping", "%s in shapes of several classes: the later shape lies above (%s)"),
        (
            "disputed",
            "%s enclosed twice by an outline that crosses itself: left out, by the even-odd rule "
            "(%s)",
        ),
        ("cut", "%s beyond the edge of the photograph: cut off there (%s)"),
        (
            "nested",
            "%s inside of another one of the same annotation: filled, as COCO has it; a hole is "
            "told by run lengths (%s)",
        ),
    ):
        found = [(name, getattr(each, field)) for name, each in notes if getattr(each, field)]
        if not found:
            continue
        total = sum(count for _, count in found)
        nouns = {
            "overlapping": ("pixel lies", "pixels lie"),
            "disputed": ("pixel is", "pixels are"),
            "cut": ("shape reaches", "shapes reach"),
            "nested": ("polygon lies", "polygons lie"),
        }
        log.warning(text, counted(total, *nouns[field]), first_of([name for name, _ in found]))
