"""What no trial could be run with is said before the first; what fails all the same is said once for its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.errors import PrunedgeError
from prunedge.study import Grid
from prunedge.study.engines.local import Failures
from prunedge.study.validate import check
from prunedge.utils.advice import speaking
from tests.commands import prunedge
from tests.masked_images import write_lines


def grid(images: Path, **values: object) -> Grid:
    return Grid({"data": str(images), "model": "resnet18", "weights": "none", **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"model": ["resnet18", "resnet81"]},
            r"no model is called 'resnet81' \(`model = \"resnet81\"`\): did you mean",
        ),
        ({"criterion": ["taylor", "tailor"]}, r"unknown criterion 'tailor' .*did you mean taylor"),
        ({"weights": ["none", "imagnet"]}, r"no such weights file \(imagnet\)"),
        ({"precision": "fp16"}, r"`precision = \"fp16\"`: input should be 'auto', '32', .*'bf16'"),
        ({"data": "/nowhere"}, r"no such file or folder \(/nowhere\)"),
        ({"model": "nowhere:build"}, "can't import nowhere:build"),
        (
            {"small": ["resnet18=none", "resnet81=none"]},
            r"no model is called 'resnet81' \(`small = \"resnet81=none\"`\): did you mean",
        ),
        ({"small": ["resnet18=gone.pth"]}, r"no such weights file \(`small = .*gone.pth\"`\)"),
        ({"device": "pi"}, "not a device's address: pi"),
    ],
)
def test_a_value_that_is_none_is_named_at_once(
    values: dict[str, object], said: str, tiny_data: Path
) -> None:
    with speaking("study"), pytest.raises(PrunedgeError, match=said):
        check(grid(tiny_data, **values))


def test_all_of_them_are_named_together(tiny_data: Path) -> None:
    with pytest.raises(PrunedgeError) as caught:
        check(
            grid(
                tiny_data,
                model=["resnet81", "resnet18"],
                criterion=["tailor", "taylor"],
                weights="gone.pth",
            )
        )
    assert str(caught.value).startswith("3 values of the grid are none: ")
    assert all(word in str(caught.value) for word in ("resnet81", "tailor", "gone.pth"))
    assert "\n" not in str(caught.value)


def test_a_sound_grid_passes_and_elsewhere_files_are_not_looked_for(tiny_data: Path) -> None:
    check(grid(tiny_data, criterion=["taylor", "random"]))
    check(grid(Path("/there"), weights="/there/weights.pth", model="there:model"), here=False)
    check(grid(Path("/there"), small=["resnet18=/there/weights.pth", "there:model"]), here=False)


def test_photographs_are_listed_with_their_masks(tmp_path: Path) -> None:
    write_lines(tmp_path, 6)
    of_masks = {"masks": str(tmp_path / "masks"), "model": "lraspp_mobilenet_v3_large"}
    check(grid(tmp_path / "photos", **of_masks, tile=[16, 32], metric=["iou", "recall"]))
    (tmp_path / "masks" / "003.png").unlink()
    with pytest.raises(PrunedgeError, match="1 of 6 photographs have no mask: 003"):
        check(grid(tmp_path / "photos", **of_masks))
    check(grid(tmp_path / "photos", **of_masks, skip_unreadable=True))


def test_no_trial_is_started_for_a_grid_that_can_not_be_run(
    tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text(
        f'data = "{tiny_data}"\nmodel = "resnet18"\nweights = "none"\ncriterion = ["taylor", "tailor"]\n'
    )
    done = prunedge("study", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: unknown criterion 'tailor' (`criterion`)"), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_reason_is_said_once_and_then_counted() -> None:
    failures = Failures()
    why = "the model answers 'sound' for every validation image (0.003)"
    assert failures.line("a-1", why) == f"a-1: failed: {why}"
    assert (
        failures.line("a-2", why.replace("3", "4"))
        == "a-2: failed for the same reason as a-1 (2 so far)"
    )
    assert failures.line("b", "no space") == "b: failed: no space"
    assert failures.line("c", why) == "c: failed for the same reason as a-1 (3 so far)"
