"""The agent with a bundle of several labels, beside a real Mosquitto: an image may have both, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from tests.edge.agent.mosquitto import Mosquitto, Subscriber, wait_for
from tests.edge.agent.test_kill import command
from tests.edge.made_bundles import write_dark_and_bright

DARK, BRIGHT = 0, 255


def write_spots(folder: Path, **spots: tuple[int, ...]) -> None:
    """Grey images, each by its name with spots of these greys, side by side."""
    folder.mkdir()
    for name, greys in spots.items():
        pixels = np.full((32, 48, 3), 128, np.uint8)
        for column, grey in enumerate(greys):
            pixels[4:8, 2 + 32 * column : 6 + 32 * column] = grey
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_each_label_is_found_where_it_is(
    broker: Mosquitto, subscriber: Subscriber, tmp_path: Path
) -> None:
    bundle = write_dark_and_bright(tmp_path / "bundle", size=16)
    images = tmp_path / "images"
    write_spots(images, crack=(DARK,), salt=(BRIGHT,), both=(DARK, BRIGHT), none=())
    # The command as a device runs it; both labels are damage unless it is told otherwise.
    asked = command(bundle, images, tmp_path / "state", broker.url, "--once", damage=())
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(subscriber.findings()) == 4, "the findings")
    found = {finding["image"]: finding for finding in subscriber.findings().values()}
    labels = {
        name: {region["label"] for region in finding["regions"]} for name, finding in found.items()
    }
    assert labels == {
        "crack.png": {"crack"},
        "salt.png": {"salt"},
        "both.png": {"crack", "salt"},
        "none.png": set(),
    }
    assert found["none.png"]["probability"] < 0.01
    assert not found["none.png"]["is_damaged"]
    assert not subscriber.on("/errors")
    (online, *_) = [told for told in subscriber.on("/status") if told["state"] == "online"]
    assert online["bundle"]["classes"] == ["crack", "salt"]
