"""Weights that are too small are counted without the onnx package, and a bench tells what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from prunedge.cli.bench_table import print_bench
from prunedge.edge import Candidate, bench, open_bundle
from prunedge.edge.denormals import TINY, count_tiny
from prunedge.edge.runtimes.onnx import tiny_weights
from prunedge.edge.runtimes.onnx_file import float_constants
from tests.edge.made_bundles import write_bundle

# By their bits: the thread may take denormal numbers for zeros, since a session was opened in it.
BITS = st.lists(st.integers(0, 2**32 - 1), max_size=20)
NUMBERS = st.lists(st.floats(width=32, allow_subnormal=False, allow_nan=False), max_size=20)


def floats(bits: list[int]) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


def graph(*tensors: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(tensors))


@given(raw=BITS, listed=NUMBERS, inner=BITS)
def test_every_constant_of_a_file_is_found_as_onnx_itself_finds_it(
    raw: list[int], listed: list[float], inner: list[int], tmp_path_factory: object
) -> None:
    values = [floats(raw), np.array(listed, np.float32), floats(inner)]
    in_list = helper.make_tensor("listed", TensorProto.FLOAT, [len(listed)], values[1].tolist())
    constant = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(values[2], "inner")
    )
    branch = helper.make_node(
        "If", ["x"], ["y"], then_branch=graph(nodes=(constant,)), else_branch=graph(in_list)
    )
    others = numpy_helper.from_array(np.array([1, 2], np.int64), "integers")
    half = numpy_helper.from_array(np.array([1e-7], np.float16), "half")
    model = helper.make_model(
        graph(numpy_helper.from_array(values[0], "raw"), others, half, nodes=(branch,))
    )
    file = tmp_path_factory.getbasetemp() / "model.onnx"  # type: ignore[attr-defined]
    file.write_bytes(model.SerializeToString())

    found = b"".join(sorted(array.tobytes() for array in float_constants(file)))
    assert found == b"".join(sorted(array.tobytes() for array in values))
    assert tiny_weights(file) == sum(map(count_tiny, values))


def test_a_file_that_is_cut_anywhere_is_no_model_and_nothing_worse(tmp_path: Path) -> None:
    whole = helper.make_model(
        graph(numpy_helper.from_array(np.ones(3, np.float32), "a"))
    ).SerializeToString()
    file = tmp_path / "model.onnx"
    for length in range(1, len(whole)):
        file.write_bytes(whole[:length])
        assert tiny_weights(file) in (None, 0)


def test_tiny_is_neither_zero_nor_of_an_ordinary_size() -> None:
    values = np.array([0, -0.0, 2e-38, -2e-38, 9e-31, 1.1e-30, 1, np.inf, np.nan], np.float32)
    assert count_tiny(values) == 3
    assert count_tiny(floats([1, 0x80000001, 0x007FFFFF, 0x80000000])) == 3
    assert count_tiny(values.astype(np.float64)) == 0
    assert TINY == 1e-30


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a convolution such as weight decay leaves: what the next one makes of it is denormal."""
    draw = np.random.default_rng(0)
    head = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    weights = {
        "stem": draw.normal(0, 1e-32, (4, 3, 3, 3)),
        "next": draw.normal(0, 1e-8, (4, 4, 1, 1)),
        "head": head,
        "shift": np.array([1.0, -1.0]),
    }
    nodes = [
        helper.make_node("Conv", ["images", "stem"], ["x"], kernel_shape=[3, 3]),
        helper.make_node("Conv", ["x", "next"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "head", "shift"], ["logits"], transB=1),
    ]
    folder = tmp_path_factory.mktemp("denormal") / "bundle"
    return write_bundle(folder, nodes, weights, model_name="m", classes=["a", "b"], size=8)


def test_a_bench_tells_how_many_and_how_much_slower_they_are(
    slow: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates = [Candidate(open_bundle(path)) for path in (slow, bundle)]
    result = bench(candidates, patches=2)
    first, other = (record["denormals"] for record in result.bundles)
    assert first["weights"] == 4 * 3 * 9
    assert first["slower"] > 0
    assert other is None

    print_bench(result)
    told = " ".join(capsys.readouterr().out.split())
    assert "bundle, onnx: 108 weights below 1e-30" in told
    assert told.count("below 1e-30") == 1
