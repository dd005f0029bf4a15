"""What can't be read now, or gets no memory, is not called damaged, foreign or missing: whoever believed that would delete it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prunedge.config import read_toml
from prunedge.data import load
from prunedge.edge.bundle import open_bundle
from prunedge.edge.runtimes import missing
from prunedge.edge.session import open_session
from prunedge.edge.targets import TARGETS
from prunedge.errors import BundleError, MachineError
from prunedge.importance.audit import AuditRequest, audit
from prunedge.models import build
from tests.edge.made_bundles import write_convolutional


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_convolutional(tmp_path / "bundle", model="small", classes=["crack", "sound"])


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Let nobody open files of that name; root may read everything, so their rights would not do."""

    def refuse(name: str, number: int) -> None:
        real = Path.open

        def opened(self: Path, *arguments: object, **named: object) -> object:
            if self.name == name:
                raise OSError(number, os.strerror(number), str(self))
            return real(self, *arguments, **named)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", opened)

    return refuse


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_a_manifest(number: int, bundle: Path, refuse: Callable[[str, int], None]) -> None:
    refuse("manifest.json", number)
    with pytest.raises(MachineError, match=r"manifest\.json"):
        open_bundle(bundle)


def test_a_recipe(tmp_path: Path, refuse: Callable[[str, int], None]) -> None:
    (tmp_path / "config.toml").write_text("")
    refuse("config.toml", errno.EACCES)
    with pytest.raises(MachineError, match=r"Permission denied.*config\.toml"):
        read_toml(tmp_path / "config.toml", "recipe")


def test_a_model_whose_runtime_gets_no_memory(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    def told(words: str) -> None:
        def session(*arguments: object, **named: object) -> None:
            raise RuntimeException(words)

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)

    opened = open_bundle(bundle)
    told("Exception during initialization: std::bad_alloc")
    with pytest.raises(MachineError, match=r"not enough memory.*model\.onnx"):
        open_session(opened)
    told("Protobuf parsing failed")
    with pytest.raises(BundleError, match="export the bundle again"):
        open_session(opened)


def test_a_runtime_that_is_installed_and_gets_no_memory() -> None:
    with pytest.raises(MachineError, match="not enough memory"):
        missing(
            TARGETS["openvino"],
            ImportError("libopenvino.so: failed to map segment from shared object"),
        )
    assert "not installed" in str(
        missing(
            TARGETS["openvino"], ModuleNotFoundError("No module named 'openvino'", name="openvino")
        )
    )


def test_what_an_audit_has_measured_so_far(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load(tiny_data, size=16)
    asked = AuditRequest(("weight-l1",), channels=2, images=4)

    def unreadable(*arguments: object, **named: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "partial.safetensors").write_bytes(b"x")
    monkeypatch.setattr("prunedge.importance.audit.records.safe_open", unreadable)
    with pytest.raises(MachineError, match=r"Permission denied.*partial\.safetensors"):
        audit(
            build("tests.runs.test_run:small", images.classes, "none"),
            images,
            tmp_path,
            asked,
            model_name="small",
        )
