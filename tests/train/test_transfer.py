from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from prunedge.data import load_folder
from prunedge.errors import TrainError
from prunedge.train import TransferSettings, make_engine, transfer
from tests.train.tiny import model


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Two classes of 40 images of 16 px: noise, and noise with a bright line."""
    generator = torch.Generator().manual_seed(0)
    for name in ("line", "plain"):
        (tmp_path / "lines" / name).mkdir(parents=True)
        for index in range(40):
            pixels = torch.randint(0, 120, (16, 16, 3), generator=generator, dtype=torch.uint8)
            if name == "line":
                pixels[:, 7] += 130
            Image.fromarray(pixels.numpy()).save(tmp_path / "lines" / name / f"{index}.png")
    return tmp_path / "lines"


def test_a_model_learns_a_folder_of_images_the_same_way_twice(lines: Path, tmp_path: Path) -> None:
    data, nets = (
        load_folder(lines, size=16, seed=0, cache_dir=tmp_path / "cache"),
        [model(), model()],
    )
    for net in nets:
        settings = TransferSettings(pretrained=False, epochs=6, lr=0.05, batch_size=8)
        result = transfer(net, data, settings, engine=make_engine(), seed=0)
    assert result.val is not None
    assert result.val.n == len(data.val)
    assert result.val.accuracy > 0.9
    assert all(
        torch.equal(a, b)
        for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True)
    )


def test_a_rate_of_nothing_is_refused(lines: Path, tmp_path: Path) -> None:
    data = load_folder(lines, size=16, seed=0, cache_dir=tmp_path / "cache")
    with pytest.raises(TrainError, match="lr = 0"):
        transfer(
            model(),
            data,
            TransferSettings(pretrained=True, epochs=1, lr=0),
            engine=make_engine(),
            seed=0,
        )
