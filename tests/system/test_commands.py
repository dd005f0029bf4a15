"""Whole commands, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import prunedge as pe
from prunedge.importance import CRITERIA
from tests.commands import prunedge


def test_show_tells_what_machines_and_people_need(run: Path) -> None:
    told = json.loads(prunedge("show", run, "--json").stdout)
    assert {"model", "criterion", "baseline", "best", "test", "steps"} <= set(told)
    for key in ("baseline", "best"):
        assert {"accuracy", "macs", "params", "size_mb"} <= set(told[key])
        assert {"accuracy", "f1", "auroc"} <= set(told["test"][key])
    wanted = {
        "removed",
        "channels",
        "metrics_before",
        "metrics",
        "macs",
        "params",
        "seconds_rank",
        "seconds_finetune",
        "kept",
        "accepted",
    }
    assert all(wanted <= set(step) for step in told["steps"])
    assert "fewer" in prunedge("show", run).stdout


def test_from_run_to_bundle_to_measurement_to_report(run: Path, tmp_path: Path) -> None:
    small, whole = tmp_path / "small", tmp_path / "whole"
    assert prunedge("export", run, "--out", small).returncode == 0
    manifest = json.loads(prunedge("export", run, "--baseline", "--out", whole, "--json").stdout)
    assert manifest["forms"]["onnx"]["check"]["agreement"] == 1
    assert manifest["task"]["classes"] == ["crack", "sound"]
    measured = json.loads(
        prunedge("bench", small, "--against", whole, "--patches", 24, "--out", run, "--json").stdout
    )
    assert len(measured["bundles"]) == 2
    assert measured["ratios"][0]["speedup"]["median"] > 0
    page = Path(prunedge("report", run).stdout.strip())
    text = page.read_text(encoding="utf-8")
    assert "time for an image" in text
    assert 'src="http' not in text
    model, inputs = pe.load(run), torch.randn(2, 3, 16, 16)
    assert torch.equal(model(inputs), pe.load(small)(inputs))


def test_train_alone_then_prune_from_it(tiny_data: Path, tmp_path: Path) -> None:
    common = ("--weights", "none", "--size", 16, "--batch-size", 8, "--precision", "32")
    done = prunedge(
        "train",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--epochs",
        3,
        *common,
        "--augment",
        "flips",
        "--out",
        tmp_path / "a",
        "--json",
    )
    assert json.loads(done.stdout)["best"]["step"] == 0, done.stderr
    done = prunedge(
        "prune",
        "--from",
        tmp_path / "a",
        "--step-ratio",
        0.3,
        "--max-drop",
        99,
        "--target-macs",
        0.8,
        "--out",
        tmp_path / "b",
        "--json",
    )
    told = json.loads(done.stdout)
    assert told["size"] == 16
    assert told["best"]["macs"] <= 0.8 * told["baseline"]["macs"]
    assert "target" in told["stop"]
    assert 'augment = "flips"' in (tmp_path / "b" / "config.toml").read_text(), (
        "as the run that it goes on from"
    )


def test_groups_are_listed_and_drawn(tmp_path: Path) -> None:
    drawn = tmp_path / "graph.svg"
    found = json.loads(
        prunedge("groups", "--model", "resnet18", "--size", 64, "--svg", drawn, "--json").stdout
    )
    assert len(found["groups"]) == 12
    assert found["prunable_params"] > 0.99
    assert found["groups"][0]["makers"] == ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
    assert "layer1.0.conv1" in found["groups"][0]["consumers"]
    assert 0.3 < found["groups"][0]["macs_share"] < 0.4
    root = ElementTree.fromstring(drawn.read_text(encoding="utf-8"))
    assert (
        len(root.findall(".//{http://www.w3.org/2000/svg}rect/{http://www.w3.org/2000/svg}title"))
        == 12
    )
    shown = prunedge("groups", "--model", "resnet18", "--size", 64).stdout
    assert "layer4.1.conv1" in shown
    assert "is the model's output" in shown


def test_an_audit_of_a_run_stands_in_its_report(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    done = prunedge(
        "audit",
        run,
        "--channels",
        6,
        "--criterion",
        "taylor",
        "--criterion",
        "weight-l2",
        "--criterion",
        "random",
    )
    assert done.returncode == 0, done.stderr
    assert "use --criterion" in done.stdout
    assert "of an evaluation of the whole model" in done.stdout
    report = Path(prunedge("report", run).stdout.strip()).read_text(encoding="utf-8")
    assert "Which criterion is right" in report
    assert "Where each criterion is right" in report
    other = prunedge(
        "audit",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--channels",
        "all",
        "--out",
        tmp_path / "audit",
        "--json",
    )
    assert other.returncode == 0, other.stderr
    assert len(json.loads(other.stdout)["absolute"]) == len(CRITERIA) - len(
        json.loads(other.stdout)["unjudged"]
    )


def test_every_aid_and_control_in_one_run(tiny_data: Path, tmp_path: Path) -> None:
    trained = prunedge(
        "train",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--epochs",
        3,
        "--sparsity",
        "group-lasso",
        "--batch-size",
        8,
        "--precision",
        "32",
        "--out",
        tmp_path / "trained",
    )
    assert trained.returncode == 0, trained.stderr
    done = prunedge(
        "prune",
        "--from",
        tmp_path / "trained",
        "--criterion",
        "fisher",
        "--normalise",
        "mean",
        "--per-layer",
        "--compensate",
        "lstsq",
        "--rewind",
        "--distill",
        0.5,
        "--sparsity",
        "growing",
        "--sparsity-strength",
        0.05,
        "--baseline",
        "scratch",
        "--baseline",
        "random",
        "--max-drop",
        90,
        "--polish",
        0,
        "--max-steps",
        2,
        "--step-ratio",
        0.3,
        "--precision",
        "32",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    assert "baselines on test data: the same shape from random weights" in done.stdout
    assert "as many channels at random" in done.stdout
    baselines = json.loads((tmp_path / "run" / "baselines.json").read_text())
    assert baselines["scratch"]["epochs"] >= 5
    assert baselines["random"]["epochs"] >= 2
    assert "Baselines" in Path(prunedge("report", tmp_path / "run").stdout.strip()).read_text(
        encoding="utf-8"
    )
    assert (
        json.loads(prunedge("prune", "--resume", tmp_path / "run", "--json").stdout)["best"]["step"]
        == 2
    )


def test_check_and_patches(tiny_data: Path, tmp_path: Path) -> None:
    told = json.loads(prunedge("check", tiny_data, "--json").stdout)
    assert told["classes"]
    photos = Path(__file__).parents[3] / "shared/data/masonry/originals"
    if not photos.exists():
        pytest.skip("../shared/data is not here")
    done = prunedge(
        "patches",
        photos / "crack_detection_224_images",
        photos / "crack_detection_224_masks",
        "--size",
        112,
        "--out",
        tmp_path / "p",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p").is_dir()


NORMLESS = (
    "DATA",
    "--model",
    "tests.runs.test_run:normless",
    "--weights",
    "none",
    "--size",
    "16",
    "--out",
    "OUT",
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prune", "/nowhere", "--model", "resnet18", "--out", "OUT"), "/nowhere"),
        (("prune", "DATA", "--model", "resnet81", "--weights", "none", "--out", "OUT"), "resnet81"),
        (
            (
                "prune",
                "DATA",
                "--model",
                "resnet18",
                "--weights",
                "none",
                "--criterion",
                "tailor",
                "--out",
                "OUT",
            ),
            "taylor",
        ),
        (("prune", "DATA", "--model", "resnet18", "--step-ratio", "3", "--out", "OUT"), "step"),
        (("prune", "DATA", "--model", "resnet18"), "--out"),
        (("prune", "DATA", "--out", "OUT"), "--model"),
        (("prune", "--resume", "/nowhere"), "not a run"),
        (
            ("train", "DATA", "--model", "resnet18", "--weights", "/no.pth", "--out", "OUT"),
            "no.pth",
        ),
        (("show", "/nowhere"), "not a run"),
        (("report", "/nowhere"), "not a run"),
        (("export", "/nowhere", "--out", "OUT"), "not a run"),
        (("export", "RUN", "--step", "9", "--out", "OUT"), "steps with a model"),
        (("bench", "/nowhere"), "not a bundle"),
        (("check", "/nowhere"), "/nowhere"),
        (("prune", "--modle", "x"), "--model"),
        (("prune", "--from", "RUN", "--ignore", "layer9.*", "--out", "OUT"), "layer9.*"),
        (("audit",), "prunedge audit RUN"),
        (("audit", "/nowhere"), "not a run"),
        (("audit", "RUN", "--criterion", "tailor", "--out", "OUT"), "taylor"),
        (("audit", "RUN", "--channels", "1", "--out", "OUT"), "--channels 2"),
        (("audit", "DATA", "--model", "resnet18"), "--out"),
        (
            (
                "prune",
                "DATA",
                "--model",
                "resnet18",
                "--weights",
                "none",
                "--normalise",
                "l3",
                "--out",
                "OUT",
            ),
            "--normalise",
        ),
        (
            (
                "prune",
                "DATA",
                "--model",
                "resnet18",
                "--macs-penalty",
                "1",
                "--per-mac",
                "--out",
                "OUT",
            ),
            "exclude each other",
        ),
        (
            ("prune", *NORMLESS, "--criterion", "taylor-bn"),
            "the criterion 'taylor-bn' reads batch norms, and this model has none",
        ),
        (
            ("prune", *NORMLESS, "--criterion", "bn-scale"),
            "the criterion 'bn-scale' reads batch norms, and this model has none",
        ),
        (
            ("train", *NORMLESS, "--sparsity", "bn-l1"),
            "--sparsity bn-l1 reads batch norms, and this model has none",
        ),
        (("groups",), "--model"),
        (("groups", "--model", "resnet81"), "resnet81"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str, run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    places = {"DATA": tiny_data, "OUT": tmp_path / "out", "RUN": run}
    done = prunedge(*(places.get(word, word) for word in arguments))
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    assert words in lines[0], done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_auroc_without_a_class_is_refused_before_any_training(
    tiny_data: Path, tmp_path: Path
) -> None:
    table = ["path,label,split"]
    for folder in sorted(tiny_data.iterdir()):
        for place, file in enumerate(sorted(folder.iterdir())):
            table.append(
                f"{file},{folder.name},{'test' if place < 2 and folder.name == 'crack' else 'val' if place < 6 else 'train'}"
            )
    (tmp_path / "m.csv").write_text("\n".join(table) + "\n")
    done = prunedge(
        "prune",
        tmp_path / "m.csv",
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--metric",
        "auroc",
        "--out",
        tmp_path / "r",
    )
    assert done.returncode == 2
    assert "the test split has no image of 'sound', so auroc is not defined" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_device_steers_from_the_command_line(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "cache"))
    common = [
        "prune",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--train-epochs",
        3,
        "--batch-size",
        8,
        "--precision",
        "32",
    ]
    done = prunedge(
        *common,
        "--device",
        "local",
        "--max-steps",
        1,
        "--step-ratio",
        0.4,
        "--max-drop",
        100,
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    steps = (
        json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1]),
        json.loads((tmp_path / "run" / "latency.json").read_text()),
    )
    assert steps[0]["latency_ms"] > 0
    assert steps[1]["table"]["grids"]
    assert list((tmp_path / "cache" / "latency").iterdir())
    assert ("on the device" in done.stdout) or "makes it faster on the device" in done.stdout
    for more, words in (
        (["--target-latency", "fast"], "not a time (prunedge prune): write it as 5ms"),
        (
            ["--target-latency", "5"],
            "--target-latency 5: not a time (prunedge prune): write it as 5ms",
        ),
        (["--device", "local", "--per-mac"], "a device says itself what channels cost"),
        (["--device", "telnet://x"], "not a device's address"),
        (["--device", "ssh://nobody@127.0.0.1:9"], "can't copy to the device"),
    ):
        refused = prunedge(*common, *more, "--out", tmp_path / "refused")
        assert refused.returncode == 2, refused.stderr
        assert words in refused.stderr, refused.stderr
        assert not (tmp_path / "refused").exists(), refused.stderr


def test_forms_from_the_command_line(run: Path, tmp_path: Path) -> None:
    done = prunedge(
        "export",
        run,
        "--format",
        "onnx,onnx-int8,openvino",
        "--max-int8-drop",
        100,
        "--out",
        tmp_path / "b",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[1].split(",")[0] for line in done.stdout.splitlines()[:3]] == [
        "onnx",
        "onnx-int8",
        "openvino",
    ]
    assert "accuracy on validation data" in done.stdout.splitlines()[1]
    timed = prunedge(
        "bench",
        tmp_path / "b",
        "--runtime",
        "onnx,onnx-int8,openvino",
        "--patches",
        6,
        "--batches",
        4,
    )
    assert timed.returncode == 0, timed.stderr
    assert "onnx-int8" in timed.stdout, timed.stderr
    assert "a second, batch 4" in timed.stdout, timed.stderr
    refused = prunedge("bench", tmp_path / "b", "--runtime", "executorch", "--patches", 6)
    assert refused.returncode == 2
    assert "the bundle holds no 'executorch'" in refused.stderr
