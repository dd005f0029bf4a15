"""Which classes are damage."""

from __future__ import annotations

import pytest

from prunedge.edge.tasks.damage import damage_classes, is_sound
from prunedge.errors import DataError

SOUND = [
    "non-crack",
    "noncrack",
    "no_crack",
    "NoCrack",
    "no_defect",
    "nodamage",
    "uncracked",
    "Undamaged",
    "not_damaged",
    "without_rust",
    "crack_free",
    "defect-free",
    "MT_Free",
    "OK",
    "ok",
    "good",
    "good_wall",
    "intact",
    "Intact_Concrete",
    "sound",
    "background",
    "negative",
    "Negative",
    "clean",
    "healthy",
    "functional",
    "normal",
    "none",
    "no",
    "0_functional",
    "notcracked",
    "unbroken",
    "ohne_Riss",
    "kein_riss",
]
DAMAGE = [
    "crack",
    "cracked",
    "corrosion",
    "rust",
    "noise",
    "nodule",
    "notch",
    "uneven",
    "MT_Uneven",
    "union",
    "unsound",
    "unhealthy",
    "nonfunctional",
    "non-functional",
    "not_ok",
    "abnormal",
    "defective",
    "broken",
    "clean_crack",
    "blowhole",
    "fray",
    "sound_defect",
    "unknown",
    "SEM_crack",
    "damage",
    "no_good",
    "不良",
]


@pytest.mark.parametrize("name", SOUND)
def test_names_that_say_all_is_well(name: str) -> None:
    assert is_sound(name)


@pytest.mark.parametrize("name", DAMAGE)
def test_names_that_do_not(name: str) -> None:
    assert not is_sound(name)


def test_a_negation_of_another_class_is_sound() -> None:
    assert is_sound("nonwarp", ["warp", "nonwarp"])
    assert not is_sound("nonwarp", ["other", "nonwarp"])
    assert not is_sound("uneven", ["even", "uneven"])
    assert not is_sound("nonfunctional", ["functional", "nonfunctional"])


def test_the_choice() -> None:
    assert damage_classes(["crack", "noncrack"]) == ("crack",)
    assert damage_classes(["functional", "defective"]) == ("defective",)
    assert damage_classes(["MT_Blowhole", "MT_Free", "MT_Uneven"]) == ("MT_Blowhole", "MT_Uneven")
    assert damage_classes(["a", "b", "c"], ["C", "a"]) == ("a", "c")


def test_all_classes_may_be_damage_where_an_image_can_show_none_of_them() -> None:
    assert damage_classes(["crack", "rust"], may_be_all=True) == ("crack", "rust")
    assert damage_classes(["crack", "ok"], may_be_all=True) == ("crack",)
    with pytest.raises(DataError, match="none of the classes"):
        damage_classes(["ok", "good"], may_be_all=True)


@pytest.mark.parametrize(
    ("classes", "wanted", "words"),
    [
        (["0", "1"], (), "say which do"),
        (["cat", "dog"], (), "cat, dog"),
        (["good", "normal"], (), "none of the classes"),
        (["crack", "ok"], ("rust",), "no class 'rust'"),
        (["crack", "ok"], ("crack", "ok"), "all classes"),
    ],
)
def test_what_the_names_do_not_tell_is_asked(
    classes: list[str], wanted: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        damage_classes(classes, wanted)
