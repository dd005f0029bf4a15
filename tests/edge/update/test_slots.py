"""Which bundle is used: after updates, deaths and damage; and what the self-test lets through."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunedge.edge.agent.database import Store
from prunedge.edge.image.size import square
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.classification import Classification
from prunedge.edge.update import slots as shelf_module
from prunedge.edge.update.selftest import selftest, try_out
from prunedge.edge.update.slots import DEATHS, BundleSlots, load
from prunedge.errors import AgentError, BundleError, MachineError, PrunedgeError
from tests.edge.agent.conftest import altered, digest, write_images

TWO = TaskSpec(name="classification", classes=("crack", "sound"), size=square(8))


class Device:
    """An agent's slots, over several starts."""

    def __init__(self, folder: Path, given: Path) -> None:
        self.store, self.folder, self.given = Store(folder), folder, given
        self.start()

    def start(self) -> str:
        self.slots = BundleSlots(self.folder / "bundles", self.store, self.given, 1, None)
        return self.slots.start().sha256

    def update(self, bundle: Path) -> str:
        shutil.copytree(bundle, self.slots.incoming)
        return self.slots.accept(load(self.slots.incoming, 1)).sha256


@pytest.fixture
def device(tmp_path: Path, bundles: tuple[Path, Path]) -> Device:
    return Device(tmp_path / "state", bundles[0])


def test_an_accepted_bundle_stays_over_starts_and_does_not_need_its_origin(
    device: Device, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    origin = altered(bundles[1], tmp_path / "usb")
    accepted = device.update(origin)
    shutil.rmtree(origin)
    device.slots.begin()
    device.slots.proved()
    assert (
        device.start() == device.start() == accepted == digest(device.folder / "bundles" / accepted)
    )


def test_a_damaged_accepted_bundle_gives_way_to_the_one_before_and_for_good(
    device: Device, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    second, third = (
        device.update(bundles[1]),
        device.update(altered(bundles[1], tmp_path / "third", macs=11)),
    )
    (device.folder / "bundles" / third / "model.onnx").write_bytes(b"")
    assert device.start() == second
    assert "checksum" in device.slots.passed_over[0]
    assert device.store.is_refused(third)
    assert device.start() == second
    assert not device.slots.passed_over
    shutil.rmtree(device.folder / "bundles")
    assert device.start() == digest(bundles[0])
    assert device.start() == digest(bundles[0])
    assert not device.slots.passed_over


@pytest.mark.parametrize(
    "error",
    [MachineError("there is not enough memory"), MachineError("Permission denied")],
    ids=str,
)
def test_an_accepted_bundle_that_can_t_be_loaded_now_is_not_given_up(
    error: MachineError, device: Device, bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = device.update(bundles[1])

    def now(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as trouble:
        trouble.setattr(shelf_module, "open_session", now)
        with pytest.raises(MachineError):
            device.start()
    assert not device.store.is_refused(accepted)
    assert device.start() == accepted


def test_a_bundle_that_kills_the_agent_over_its_first_image_is_given_up(
    device: Device, bundles: tuple[Path, Path]
) -> None:
    accepted = device.update(bundles[1])
    for _ in range(5):
        assert device.start() == accepted  # starts without an image prove nothing against it
    for _ in range(DEATHS):
        assert device.start() == accepted
        device.slots.begin()
    assert device.start() == digest(bundles[0])
    assert device.store.is_refused(accepted)


def test_a_bundle_that_saw_one_image_through_is_trusted(
    device: Device, bundles: tuple[Path, Path]
) -> None:
    accepted = device.update(bundles[1])
    device.slots.begin()
    device.slots.proved()
    assert device.slots.roll_back() is None
    for _ in range(DEATHS + 1):
        assert device.start() == accepted
        device.slots.begin()


def test_rolling_back_takes_the_one_before(device: Device, bundles: tuple[Path, Path]) -> None:
    accepted = device.update(bundles[1])
    device.slots.begin()
    before = device.slots.roll_back()
    assert before is not None
    assert before.sha256 == digest(bundles[0])
    assert device.store.is_refused(accepted)


def test_the_operator_s_own_change_counts_more(
    device: Device, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    device.update(bundles[1])
    device.given = altered(bundles[0], tmp_path / "by hand", macs=12)
    assert device.start() == device.start() == digest(device.given)


def test_only_two_accepted_bundles_are_kept(
    device: Device, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    names = [device.update(altered(bundles[1], tmp_path / str(i), macs=i)) for i in range(4)]
    assert {folder.name for folder in (device.folder / "bundles").iterdir()} == set(names[-2:])


def test_without_any_bundle_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        Device(tmp_path / "state", tmp_path / "nothing")


def spoil(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(model, folder / "model.onnx")


def truncate(folder: Path) -> None:
    text = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(text[: len(text) // 2])


def test_a_good_bundle_passes_on_noise_and_on_images_also_on_those_that_have_gone(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    write_images(tmp_path, 2)
    assert (
        selftest(bundles[1], [tmp_path / "000.png", tmp_path / "001.png", tmp_path / "gone.png"])
        > 0
    )


@pytest.mark.parametrize(
    ("change", "manifest", "words"),
    [
        (spoil, {}, "not numbers"),
        (truncate, {}, "can't load"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), {}, "load"),
        (lambda folder: None, {"task": {"size": [32, 32]}}, "32 pixels"),
        (lambda folder: None, {"task": {"classes": ["crack", "sound"]}}, "2 classes"),
    ],
)
def test_bundles_that_are_what_they_say_and_don_t_work_fail(
    change: object,
    manifest: dict[str, object],
    words: str,
    bundles: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    bad = altered(bundles[1], tmp_path / "bad", change, **manifest)  # type: ignore[arg-type]
    with pytest.raises(AgentError, match=words) as caught:
        selftest(bad, [])
    assert "\n" not in str(caught.value)


def test_a_self_test_that_does_not_end_or_dies_is_one_line(
    bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AgentError, match="did not end"):
        selftest(bundles[1], [], timeout=0.001)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(AgentError, match="died"):
        selftest(bundles[1], [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n: np.full((n, 2), 0.5), None),
        (lambda n: np.full((n, 3), 1 / 3), "shape"),
        (lambda n: np.full((n, 2), np.inf), "no numbers"),
        (lambda n: np.full((n, 2), 0.4), "no probabilities"),
        (lambda n: np.tile([-0.5, 1.5], (n, 1)), "no probabilities"),
        (lambda n: np.tile([1 / n, 1 - 1 / n], (n, 1)), "alone"),
    ],
)
def test_answers_are_judged(answer: object, words: str | None) -> None:
    class Model:
        def predict(self, pixels: np.ndarray) -> np.ndarray:
            return answer(len(pixels))  # type: ignore[operator]

    found = try_out(Model(), Classification(TWO), np.zeros((4, 8, 8, 3), dtype=np.uint8))
    assert found is None if words is None else found is not None and words in found


def test_every_refusal_is_ours(tmp_path: Path) -> None:
    with pytest.raises(PrunedgeError):
        load(tmp_path, 1)
