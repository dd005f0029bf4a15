"""Batches: what the model sees, in which order, and how fast."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transform

from prunedge.data import Split, load
from prunedge.data import loader as making
from prunedge.data.transforms import augment, draw
from prunedge.edge.image.normalise import normalise
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError


@pytest.fixture(scope="module")
def split(tiny_data: Path) -> Split:
    return load(tiny_data, size=32).train


def collect(batches: object) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)  # type: ignore[call-overload]
    return torch.cat(images), torch.cat(labels)


def test_in_order_and_as_the_device_sees_them(split: Split) -> None:
    images, labels = collect(split.batches(10))
    assert images.shape == (56, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert labels.dtype == torch.int64
    assert labels.tolist() == split.targets().tolist()
    for i in (0, 33):
        expected = normalise(read_image(split.samples[i].path, square(32))[None])[0]
        assert np.array_equal(images[i].numpy(), expected)


def test_lengths(split: Split) -> None:
    assert len(split.batches(10)) == 6 == len(list(split.batches(10)))
    assert (
        len(split.batches(10, drop_last=True)) == 5 == len(list(split.batches(10, drop_last=True)))
    )
    assert len(list(split)) == 2
    with pytest.raises(ValueError, match="can't have 0 images"):
        split.batches(0)


def test_an_epoch_depends_on_seed_and_epoch_alone(split: Split) -> None:
    how = {"shuffle_seed": 3, "augment": "full"}
    first = split.batches(8, epoch=1, **how)
    a, b = collect(first), collect(first)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    c = collect(split.batches(20, epoch=1, **how))
    assert torch.equal(torch.get_rng_state(), state), (
        "the training thread's random numbers stay as they were"
    )
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[0], c[0])
    assert torch.equal(a[1], c[1])
    assert not torch.equal(a[0], collect(split.batches(8, epoch=2, **how))[0])
    assert not torch.equal(
        a[0], collect(split.batches(8, epoch=1, shuffle_seed=4, augment="full"))[0]
    )


def test_shuffling_loses_nothing(split: Split) -> None:
    plain, mixed = collect(split.batches(8)), collect(split.batches(8, shuffle_seed=0))
    assert not torch.equal(plain[0], mixed[0])
    key = lambda images: sorted(p.numpy().tobytes() for p in images)  # noqa: E731
    assert key(plain[0]) == key(mixed[0])


def test_without_a_cache_the_images_are_the_same(split: Split) -> None:
    assert torch.equal(
        collect(replace(split, cache=None).batches(16))[0], collect(split.batches(16))[0]
    )


def test_an_error_in_the_thread_is_raised_here(split: Split, tmp_path: Path) -> None:
    gone = replace(split.samples[20], path=tmp_path / "gone.png")
    broken = replace(split, samples=(*split.samples[:20], gone, *split.samples[21:]), cache=None)
    with pytest.raises(DataError, match=r"no such file .*gone\.png"):
        list(broken.batches(8))


def test_stopping_early_ends_the_thread(split: Split) -> None:
    for _ in split.batches(4):
        break
    deadline = time.monotonic() + 5
    while any(thread.name == "prunedge-batches" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_augmentation_is_each_images_own_and_keeps_what_it_shows() -> None:
    generator = torch.Generator().manual_seed(0)
    image = np.zeros((8, 8, 3), np.uint8)
    image[0, 1] = 200  # lies in another place for each of the eight ways to lay the square
    changes = draw(200, generator)
    made = augment(np.repeat(image[None], 200, 0), changes)
    assert made.shape == (200, 3, 8, 8)
    assert made.dtype == np.float32
    places = {np.unravel_index(p[0].argmax(), (8, 8)) for p in made}
    assert len(places) == 8
    assert len({int(p.max()) for p in made}) > 20, "brightness differs"
    assert all((p[0] > p.max() // 2).sum() == 1 for p in made)
    assert image.sum() == 600, "the cached pixels stay as they are"


def test_augmentation_is_what_torchvision_makes_of_the_same_changes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    changes = draw(40, torch.Generator().manual_seed(0))
    made = torch.from_numpy(augment(pixels, changes))
    for i, found in enumerate(made):
        image = torch.from_numpy(pixels[i]).permute(2, 0, 1).float() / 255
        image = transform.horizontal_flip(image) if changes.flip[i] else image
        # torch's quarter turns, as transform.rotate: against the clock.
        image = torch.rot90(image, int(changes.turns[i]), (1, 2))
        grey = transform.rgb_to_grayscale(float(changes.brightness[i]) * image).mean()
        factor = float(changes.contrast[i])
        wanted = (factor * float(changes.brightness[i]) * image + (1 - factor) * grey).clamp(0, 1)
        assert torch.allclose(found / 255, wanted, atol=1e-5)
        # torchvision cuts off after each change, and so differs where one of them leaves the range.
        steps = transform.adjust_contrast(
            transform.adjust_brightness(image, float(changes.brightness[i])), factor
        )
        assert (found / 255 - steps).abs().mean() < 0.02


def test_flips_turn_nothing_by_a_quarter_and_leave_the_light_alone() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[0, 1, 2] = 200
    made = augment(np.repeat(image, 100, 0), draw(100, torch.Generator().manual_seed(0), "flips"))
    assert {np.unravel_index(p[0].argmax(), (8, 8)) for p in made} == {
        (1, 2),
        (1, 5),
        (6, 2),
        (6, 5),
    }
    assert set(np.unique(made)) == {0.0, 200.0}
    assert np.array_equal(
        augment(image, draw(1, torch.Generator(), "none"))[0].transpose(1, 2, 0), image[0]
    )


def test_augmenting_is_fast() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 128, 128, 3), dtype=np.uint8)
    changes = draw(32, torch.Generator().manual_seed(0))
    augment(pixels, changes)
    best = float("inf")
    for _ in range(5):
        started = time.thread_time()
        augment(pixels, changes)
        best = min(best, time.thread_time() - started)
    assert best / 32 < 1.5e-3, "milliseconds an image; about 0.5 on a slow core"


@pytest.mark.parametrize(("batch_size", "processes"), [(10, 3), (11, 2), (6, 8)])
def test_the_shares_of_several_processes_are_the_batches_of_one(
    split: Split, batch_size: int, processes: int
) -> None:
    batches = split.batches(batch_size, shuffle_seed=3, augment="full", epoch=2)
    whole, parts = (
        list(batches),
        [list(batches.shards(rank, processes)) for rank in range(processes)],
    )
    assert all(len(part) == len(whole) for part in parts)
    for (images, labels), *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.images[: share.here] for share in shares]), images)
        assert torch.equal(torch.cat([share.targets[: share.here] for share in shares]), labels)
        assert all(
            share.whole == len(labels)
            and len(share.images) == len(share.targets) == max(1, share.here)
            for share in shares
        )
        assert all(torch.equal(share.images[0], images[share.start]) for share in shares)
    dealt = [list(batches.shard(rank, processes)) for rank in range(processes)]
    for index, (images, labels) in enumerate(whole):
        found = dealt[index % processes][index // processes]
        assert torch.equal(found[0], images)
        assert torch.equal(found[1], labels)


@pytest.mark.parametrize("makers", [2, 5])
def test_several_threads_make_the_same_batches_in_the_same_order(
    split: Split, monkeypatch: pytest.MonkeyPatch, makers: int
) -> None:
    alone = list(split.batches(7, shuffle_seed=3, augment="full"))
    monkeypatch.setattr(making, "_makers", lambda: makers)
    together = list(split.batches(7, shuffle_seed=3, augment="full"))
    assert len(alone) == len(together) > makers
    for (x, y), (z, w) in zip(alone, together, strict=True):
        assert torch.equal(x, z)
        assert torch.equal(y, w)


def test_several_threads_end_with_their_consumer_and_hand_over_an_error(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_makers", lambda: 3)
    for _ in split.batches(4):
        break
    assert not any(one.name.startswith("prunedge") for one in threading.enumerate())

    def broken(pixels: np.ndarray, *statistics: object) -> np.ndarray:
        raise DataError("the images are gone")

    monkeypatch.setattr(making, "normalise", broken)
    with pytest.raises(DataError, match="the images are gone"):
        list(split.batches(4))
