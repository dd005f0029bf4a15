"""Files that are no weights of torch's, or not as they were written: what each is, and a remedy that works."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunedge.errors import WeightsError
from prunedge.models import read_weights
from prunedge.models.weights import load_weights


def refusal(file: Path) -> WeightsError:
    with pytest.raises(WeightsError) as error:
        read_weights(file)
    return error.value


@pytest.mark.parametrize("name", ["random.pth", "random.pt", "pickle.pth", "pickle.pkl", "cut.pth"])
def test_what_torch_never_saved_is_not_to_be_trusted(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name.startswith("random"):
        file.write_bytes(b"\xfe" + os.urandom(4000))
    elif name.startswith("pickle"):
        file.write_bytes(pickle.dumps({"a.weight": np.ones(3)}))
    else:
        torch.save({"a.weight": torch.ones(100, 100)}, file)
        file.write_bytes(file.read_bytes()[:-2000])
    said = refusal(file)
    assert said.remedy
    assert "weights_only=False" not in str(said)


@pytest.mark.parametrize("name", ["model.onnx", "model.pth"])
def test_a_model_of_onnx(name: str, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    save(helper.make_model(graph), tmp_path / name)
    said = refusal(tmp_path / name)
    assert "weights_only=False" not in str(said)
    assert name == "model.pth" or "an ONNX model" in str(said)


@pytest.mark.parametrize("is_inside", [False, True])
def test_arrays_of_numpy_and_a_remedy_that_works(is_inside: bool, tmp_path: Path) -> None:
    arrays = {
        "a.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "a.bias": np.ones(2, np.float32),
    }
    file = tmp_path / "arrays.pth"
    torch.save({"epoch": 3, "state_dict": arrays} if is_inside else arrays, file)
    said = refusal(file)
    assert "NumPy" in said.what
    code = re.search(r'python -c "(.*)"', str(said.remedy))
    assert code is not None
    subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, check=True)
    found = read_weights(tmp_path / "weights.pth")
    assert found.keys() == arrays.keys()
    assert found["a.weight"].equal(torch.from_numpy(arrays["a.weight"]))


def test_bytes_that_were_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a.weight": torch.ones(100, 100)}, file)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    file.write_bytes(content)
    said = refusal(file)
    assert "checksum" in said.what
    assert "copy or download it again" in str(said.remedy)


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a.weight": torch.ones(3)}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weights(file).keys() == {"a.weight"}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3])
def test_files_of_old_torch_are_read(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(
        {"a.weight": torch.ones(3)},
        file,
        _use_new_zipfile_serialization=False,
        pickle_protocol=protocol,
    )
    assert read_weights(file).keys() == {"a.weight"}


def test_a_file_of_one_tensor(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        load_weights(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)),
            {"scale": torch.ones(7)},
            where="f.pth",
        )
    assert "the file's only tensor is scale" in str(error.value)
    assert "1 tensors" not in str(error.value)
