"""What the model is shown on the device is what training showed it, pixel by pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from prunedge.data import Dataset, cut_patches, load
from prunedge.data.patch_names import are_patches
from prunedge.edge import Bundle, open_bundle
from prunedge.edge.image.size import square
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.inspect.settings import parse_patch
from prunedge.edge.manifest import GreyRange, View, view_of
from prunedge.edge.session import open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import BundleError, DataError
from prunedge.export import export_bundle
from prunedge.runs.export import _view
from tests.deep_images import save, scene
from tests.edge.inspect.conftest import SIZE
from tests.edge.made_bundles import write_darkest

TASK = TaskSpec(name="classification", classes=("crack", "sound"), size=square(SIZE))
NAMED: dict[str, Any] = {"model_name": "darkest", "task": TASK, "macs": 1, "params": 8}


class Darkest(nn.Module):
    """Logits of crack and sound from the darkest pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.answer = nn.AdaptiveMaxPool2d(1), nn.Linear(3, 2)
        with torch.no_grad():
            self.answer.weight.copy_(torch.tensor([[4.0] * 3, [-4.0] * 3]))
            self.answer.bias.copy_(torch.tensor([-15.0, 15.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer(self.pool(-images).flatten(1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_darkest(tmp_path_factory.mktemp("bundle") / "darkest", SIZE)


class Watching:
    """A session that remembers the pixels that it was shown."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.shown = bundle, np.zeros((0, SIZE, SIZE, 3), np.uint8)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        self.shown = np.concatenate([self.shown, pixels])
        return np.tile(np.float32([0.1, 0.9]), (len(pixels), 1))


def bundle_of(data: Dataset, bundle: Path) -> Bundle:
    """The bundle, as if it had been exported from these images."""
    opened, greys = open_bundle(bundle), data.greys
    span = None if greys is None else GreyRange(low=greys.low, high=greys.high, mixed=greys.mixed)
    return replace(
        opened, manifest=opened.manifest.model_copy(update={"view": _view(data), "greys": span})
    )


def write_set(root: Path, kind: str) -> Path:
    """Class folders of 16 images each; their sizes and depth by `kind`."""
    generator = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for place, label in enumerate(("crack", "sound")):
        for i in range(16):
            many = (int(generator.integers(30, 200)), int(generator.integers(30, 200)))
            height, width = {
                "whole": many,
                "whole deep": many,
                "square": (30, 30),
                "photographs": (40, 40),
                "tall": (80, 24),
            }.get(kind, (24, 60))
            file = root / label / f"{i}.png"
            values = scene(100 * place + i, label == "crack", (height, width))
            if "deep" in kind:
                save(file, 1000 + 146 * values, "png")
                continue
            image = Image.fromarray(
                np.stack([values * 255, values * 200, values * 90], axis=2).astype(np.uint8)
            )
            if kind == "transparent":
                image.putalpha(
                    Image.fromarray((scene(i, True, (height, width)) * 255).astype(np.uint8))
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file, exif=exif if kind == "turned" else Image.Exif())
    return root


@pytest.mark.parametrize(
    "kind",
    [
        "square",
        "photographs",
        "wide",
        "tall",
        "turned",
        "transparent",
        "wide deep",
        "whole",
        "whole deep",
    ],
)
def test_a_training_image_is_seen_on_the_device_as_it_was_in_training(
    kind: str, tmp_path: Path, bundle: Path
) -> None:
    data = load(write_set(tmp_path / "d", kind), size=SIZE)
    told = bundle_of(data, bundle)
    view = told.manifest.view
    assert view is not None
    is_whole = "whole" in kind or kind == "photographs"
    assert view.kind == ("whole" if is_whole else "patch")
    if kind == "turned":
        assert (view.width, view.height) == (24, 60)
    for i in range(len(data.test)):
        session = Watching(told)
        found = inspect_image(data.test.samples[i].path, session, Settings())
        np.testing.assert_array_equal(session.shown, data.test.pixels([i]))
        assert found.patches == 1
        assert found.patch == (
            (found.width, found.height) if is_whole else (view.width, view.height)
        )


KINDS = ("RGB", "RGBA", "LA", "L", "P", "I;16")


@pytest.mark.parametrize("orientation", [1, 6])
# A PNG has neither whole numbers of 32 bits nor floats.
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, "png") for kind in KINDS), *((kind, "tif") for kind in (*KINDS, "I", "F"))],
)
def test_patches_are_cut_for_training_as_an_inspection_cuts_them(
    kind: str, orientation: int, suffix: str, tmp_path: Path, bundle: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(8):
        values = scene(i, i % 2 == 0, (48, 72))
        if kind in ("I;16", "I", "F"):
            image = Image.fromarray(
                (1000 + 146 * values).astype(
                    {"I;16": np.uint16, "I": np.int32, "F": np.float32}[kind]
                )
            )
        else:
            image = Image.fromarray(
                np.stack([values * 255, values * 200, values * 90], axis=2).astype(np.uint8)
            )
            if kind in ("RGBA", "LA"):
                image.putalpha(
                    Image.fromarray((scene(i + 50, True, (48, 72)) * 255).astype(np.uint8))
                )
            image = image.quantize(16) if kind == "P" else image.convert(kind)
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image.save(tmp_path / "photos" / f"{i}.{suffix}", exif=exif)
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 0, 24, 24))
        mask.save(tmp_path / "masks" / f"{i}.png", exif=exif)
    cut_patches(tmp_path / "photos", tmp_path / "masks", tmp_path / "d", size=24)
    data = load(tmp_path / "d", size=SIZE)
    told = bundle_of(data, bundle)
    assert told.manifest.view == View(kind="patch", width=24, height=24)
    trained = {
        sample.path.stem: data.train.pixels([i])[0] for i, sample in enumerate(data.train.samples)
    }
    for photo in sorted((tmp_path / "photos").iterdir()):
        session = Watching(told)
        found = inspect_image(photo, session, Settings(overlap=0))
        assert found.patches == len(session.shown) == 6
        assert found.patch == (24, 24)
        places = [(x, y) for y in range(0, found.height, 24) for x in range(0, found.width, 24)]
        for place, shown in zip(places, session.shown, strict=True):
            if (name := f"{photo.stem}_{place[0]}_{place[1]}") in trained:
                np.testing.assert_array_equal(shown, trained.pop(name))
    assert not trained


def test_a_larger_photograph_is_cut_into_patches_of_the_training_s_width_and_height(
    tmp_path: Path, bundle: Path
) -> None:
    told = bundle_of(load(write_set(tmp_path / "d", "wide"), size=SIZE), bundle)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 120, 3), dtype=np.uint8))
    session = Watching(told)
    found = inspect_image(large, session, Settings(overlap=0))
    assert (found.patches, found.patch) == (4, (60, 24))
    wanted = [
        large.crop((x, y, x + 60, y + 24)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        for y in (0, 24)
        for x in (0, 60)
    ]
    np.testing.assert_array_equal(session.shown, np.stack([np.asarray(one) for one in wanted]))
    nearly = inspect_image(large.crop((0, 0, 63, 25)), Watching(told), Settings())
    assert nearly.patches == 1
    assert nearly.patch == (63, 25)
    assert inspect_image(large, Watching(told), Settings(patch="whole")).patch == (120, 48)
    assert inspect_image(large, Watching(told), Settings(patch=(30, 24), overlap=0)).patches == 8


def test_the_view_is_whole_where_sizes_differ_and_a_patch_where_nearly_none_does() -> None:
    assert view_of([(96, 48)] * 39 + [(10, 10)]) == View(kind="patch", width=96, height=48)
    assert view_of([(96, 48), (100, 50), (92, 46)]) == View(kind="patch", width=96, height=48)
    assert view_of([(640, 480)] * 10 + [(480, 640)] * 10).kind == "whole"
    assert view_of([(103, 300), (392, 300), (250, 200)]).kind == "whole"


def test_images_of_one_size_that_training_shrinks_are_whole_photographs() -> None:
    sizes = [(1600, 1200)] * 20
    assert view_of(sizes, square(224)) == View(kind="whole", width=1600, height=1200)
    assert view_of(sizes, square(601)).kind == "patch"  # 1200 is not twice as high
    assert view_of(sizes).kind == "patch"  # known to be cut, or found pixel by pixel


@pytest.mark.parametrize(
    ("stems", "is_cut"),
    [
        (["a_0_0", "a_0_112", "b_0_0", "b_112_0"], True),
        (["a_0_10_0000_0000", "a_0_10_0056_0112", "a_0_11_0056_0112", "a_0_11_0_0"], True),
        (["a_0_10", "a_0_11", "b_3_10", "b_3_12"], False),  # places and numbers
        (["IMG_2024_0001", "IMG_2024_0002"], False),
        (["a_0_0", "b_0_0", "c_0_0", "d_0_0"], False),
        (["wall", "bridge"], False),
        ([], False),
    ],
)
def test_patches_are_known_by_their_names(stems: list[str], is_cut: bool) -> None:
    assert are_patches(stems) == is_cut


def test_the_view_in_words(tmp_path: Path, bundle: Path) -> None:
    old = open_bundle(bundle).manifest
    assert "for want of better" in Settings().fitted(old).looked(old)
    assert "export it again" in Settings().fitted(old).looked(old)
    assert Settings(patch=(9, 5)).fitted(old).looked(old) == "patches of 9 x 5 pixels"
    for overlap, shared in ((0.0, "nothing"), (0.2, "20%")):
        said = Settings(patch=(9, 5), overlap=overlap).fitted(old).looked(old)
        assert (
            f"patches of 9 x 5 pixels that share {shared}: damage across their edges may be missed"
            in said
        )
    assert "share" not in Settings(patch=(9, 5), overlap=0.25).fitted(old).looked(old)
    new = bundle_of(load(write_set(tmp_path / "d", "whole"), size=SIZE), bundle).manifest
    assert Settings().fitted(new).looked(new) == "each photograph whole, as in training"
    assert Settings().fitted(old).view == View(kind="patch", width=SIZE, height=SIZE)


@pytest.mark.parametrize(("text", "found"), [("224", 224), ("96x48", (96, 48)), ("whole", "whole")])
def test_patches_that_can_be(text: str, found: object) -> None:
    assert parse_patch(text) == found


@pytest.mark.parametrize("text", ["", "half", "9x", "x9", "1.5", "-3", "9x9x9"])
def test_patches_that_can_not_be(text: str) -> None:
    with pytest.raises(DataError, match="--patch 96x48"):
        parse_patch(text)


def test_a_bundle_with_a_range_that_is_none_is_damaged(tmp_path: Path) -> None:
    data = load(write_set(tmp_path / "d", "wide deep"), size=SIZE)
    images = next(iter(data.val.batches(4)))[0]
    bundle = export_bundle(
        Darkest().eval(),
        tmp_path / "b",
        images=images,
        view=_view(data),
        greys=data.greys,
        **NAMED,
    )
    assert bundle.greys == data.greys
    assert bundle.manifest.view == View(kind="patch", width=60, height=24)
    file = tmp_path / "b" / "manifest.json"
    text = file.read_text()
    assert '"low": 1' in text
    file.write_text(text.replace('"low": 1', '"low": 9991'))
    with pytest.raises(BundleError, match=r"greys.*low must be below high"):
        open_bundle(tmp_path / "b")


def test_a_bundle_whose_model_gives_probabilities_is_told(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_session(open_bundle(bundle)).warning() is None
    monkeypatch.setattr(
        "prunedge.export.bundle.refuse_probabilities", lambda *_: None
    )  # as somebody else may export
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    uneven = torch.nn.Linear(
        2, 2
    )  # of Darkest's two logits one is the other's negative, and their sigmoids add up to 1
    torch.nn.init.constant_(uneven.weight, 0.1)
    with torch.no_grad():
        uneven.bias.copy_(
            torch.tensor([1.0, -0.5])
        )  # one sigmoid above a half and one below, whatever was drawn before
    for end, name in (
        (torch.nn.Softmax(1), "softmax"),
        (torch.nn.Sequential(uneven, torch.nn.Sigmoid()), "sigmoid"),
    ):
        old = export_bundle(
            torch.nn.Sequential(Darkest(), end).eval(), tmp_path / name, images=images, **NAMED
        )
        assert f"ends in a {name}" in (open_session(old).warning() or "")
