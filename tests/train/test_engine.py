from __future__ import annotations

import warnings

import pytest
import torch

from prunedge.errors import ModelError, TrainError
from prunedge.train import TrainConfig, deterministic, fit, make_engine, measure_engine
from prunedge.train import engine as engines
from tests.train.tiny import model

EXAMPLE = torch.zeros(2, 3, 16, 16)


def test_the_fastest_wins_and_a_narrow_lead_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for timings, winner in (
        ({"32": 10.0, "32-channels-last": 9.8, "bf16": 11.0}, "32"),
        ({"32": 10.0, "32-channels-last": 8.0, "bf16": 9.0}, "32-channels-last"),
        ({"32": 10.0, "32-channels-last": 8.0, "bf16": 3.0}, "bf16"),
        ({"32": 10.0}, "32"),
    ):
        monkeypatch.setattr(engines, "_measured", {})
        monkeypatch.setattr(engines, "_race", lambda net, example, task, timings=timings: timings)
        chosen = measure_engine(model(), EXAMPLE)
        assert chosen.name == winner
        assert chosen.timings == timings


def test_measuring_happens_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_measured", {})
    net, random = model(), torch.get_rng_state()
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    chosen = measure_engine(net, EXAMPLE)
    assert chosen.name in engines.NAMES
    assert chosen.timings["32"] > 0
    assert measure_engine(model(1), EXAMPLE) is chosen
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_name_forces_an_engine_and_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_race", lambda net, example, task: pytest.fail("measured"))
    for name, precision, channels_last in (
        ("32", "32", False),
        ("32-channels-last", "32", True),
        ("bf16", "bf16", True),
    ):
        forced = measure_engine(model(), EXAMPLE, precision=name)
        assert (forced.name, forced.precision, forced.channels_last) == (
            name,
            precision,
            channels_last,
        )
    with pytest.raises(
        TrainError, match=r"no precision is called '16'.*auto, 32, 32-channels-last, bf16"
    ):
        measure_engine(model(), EXAMPLE, precision="16")


def test_threads_are_set_when_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        make_engine("32", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_held_model_is_laid_out_and_put_back() -> None:
    engine, net = make_engine("32-channels-last"), model()
    ids = [id(parameter) for parameter in net.parameters()]
    with engine.holding(net):
        assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.is_contiguous()
    assert ids == [id(parameter) for parameter in net.parameters()]
    assert engine.to_device(torch.zeros(2, 3, 4, 4)).is_contiguous(
        memory_format=torch.channels_last
    )


def test_images_that_the_model_does_not_take_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_measured", {})
    with pytest.raises(ModelError, match="doesn't take an image"):
        measure_engine(model(), torch.zeros(2, 4, 16, 16))


def test_strided_pointwise_layers_that_pruning_made_narrow_are_trained_in_the_plain_format() -> (
    None
):
    # oneDNN issue 6035: with channels last this step writes past its workspace, and the process dies or the gradients are wrong.
    narrow = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.Conv2d(4, 8, 1, stride=2),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(2),
    )
    narrow(torch.zeros(2, 3, 30, 30))
    engine = make_engine("32-channels-last")
    assert engine.suited(narrow).name == "32"
    assert engine.suited(model()).name == "32-channels-last"
    batches = [(torch.randn(8, 3, 30, 30), torch.tensor([0, 1] * 4))] * 4
    result = fit(narrow, batches, epochs=2, config=TrainConfig(batch_size=8), engine=engine, seed=0)
    assert all(bool(p.isfinite().all()) for p in result.model.parameters())


def test_a_gpu_is_timed_with_batches_that_keep_it_busy_and_a_processor_with_few_images() -> None:
    # multiply-accumulates and parameters
    tiny, huge = (10**6, 10**4), (10**12, 10**8)
    resnet18, vgg16 = (int(1.8e9), int(11e6)), (int(15.5e9), int(134e6))
    models = (tiny, resnet18, vgg16, huge)
    assert [engines.probe_size(*model, "cpu") for model in models] == [16, 2, 2, 2]
    assert [engines.probe_size(*model, "cuda") for model in models] == [32, 32, 32, 8]


def test_a_model_of_many_weights_is_timed_with_more_images() -> None:
    """VGG16 on small images: with two, casting its 134 million weights hides bfloat16's gain."""
    assert engines.probe_size(int(2.94e9), int(134e6), "cpu") == 9


def test_the_same_bits_on_a_gpu_leave_cudnn_on_and_torch_set_as_before() -> None:
    cudnn = torch.backends.cudnn
    before = (
        cudnn.enabled,
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )
    with deterministic.same_bits(torch.device("cuda")):
        assert cudnn.enabled
        assert cudnn.deterministic
        assert not cudnn.benchmark
        assert cudnn.allow_tf32 == before[3]
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert before == (
        cudnn.enabled,
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )
    with deterministic.same_bits(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_user_who_wants_errors_instead_of_other_bits_keeps_them() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with deterministic.same_bits(torch.device("cuda")):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_operation_that_may_give_other_bits_is_told_once_and_other_warnings_pass(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deterministic, "_reported", set())
    with warnings.catch_warnings(record=True) as passed:
        warnings.simplefilter("always")
        with deterministic.same_bits(torch.device("cuda")):
            for _ in range(2):
                warnings.warn(
                    "adaptive_pool_cuda does not have a deterministic implementation, but you set ...",
                    stacklevel=1,
                )
            warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in passed] == ["something else"]
    assert caplog.text.count("adaptive_pool_cuda may add up in any order") == 1


def test_training_takes_the_device_s_own_settings_and_evaluation_full_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cudnn, seen = torch.backends.cudnn, []
    outside = cudnn.conv.fp32_precision
    net = model()
    net.register_forward_hook(
        lambda module, args, out: seen.append(
            (module.training, cudnn.enabled, cudnn.conv.fp32_precision)
        )
    )
    batches = [(torch.randn(8, 3, 16, 16), torch.tensor([0, 1] * 4))] * 2
    fit(
        net,
        batches,
        epochs=1,
        config=TrainConfig(batch_size=8),
        engine=make_engine("32"),
        seed=0,
        val=batches,
    )
    assert set(seen) == {(True, True, outside), (False, True, "ieee")}


def test_the_race_leaves_out_what_is_not_safe_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels last would end the process in the backward pass, before a training could ask."""
    monkeypatch.setattr(engines, "_measured", {})
    narrow = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.Conv2d(6, 5, 1, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    chosen = measure_engine(narrow, EXAMPLE)
    assert chosen.name == "32"
    assert set(chosen.timings) == {"32"}

    # Another model of the same class, which it is safe for, has a race of its own.
    monkeypatch.setattr(engines, "_race", lambda net, example, task: {"32": 9.0, "bf16": 1.0})
    assert measure_engine(torch.nn.Sequential(*narrow[:1], *narrow[2:]), EXAMPLE).name == "bf16"
