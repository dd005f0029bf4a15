"""`--trainer`: a training of the user's own from the command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import prunedge as pe
from prunedge.cli.app import main
from prunedge.utils import trust
from tests.own_trainings import OPTIONS, SETTINGS, TEXT, Training
from tests.refusals import refusal

OWN = "of which prunedge knows neither task nor images"


def obey(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the user's modules, and a run that has ended."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "my_own.py").write_text(
        TEXT
        + "from types import SimpleNamespace\n"
        + "def broken():\n    raise OSError('no such weights')\n"
        + "def failing_fit(model, epochs):\n    return {}['missing']\n"
        + "whole = training()\n"
        + "fields = dict(model=whole.model, example=whole.example, evaluate=whole.evaluate)\n"
        + "unfit = SimpleNamespace(**fields)\n"
        + "without_loss = SimpleNamespace(**fields, fit=whole.fit)\n"
        + "fails = SimpleNamespace(**fields, fit=failing_fit)\n"
        + "no_example = SimpleNamespace(model=whole.model)\n"
        + "bad_model = SimpleNamespace(model=3, example=whole.example)\n"
        + "once = SimpleNamespace(**fields, fit=whole.fit, loss=whole.loss, batches=iter([1]))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        obey("prune", "--trainer", "my_own:training", "--out", "run", *OPTIONS)
        yield folder
    sys.modules.pop("my_own", None)


def test_it_makes_the_run_that_python_makes(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training()
    for _ in pe.prune(
        training.model, training.example, out=tmp_path / "run", **training.arguments()
    ):
        pass
    wanted = pe.open_run(tmp_path / "run").steps()
    steps = pe.open_run(place / "run").steps()
    assert [(step.kept, step.metrics) for step in steps] == [
        (step.kept, step.metrics) for step in wanted
    ]
    capsys.readouterr()
    obey("show", "run")
    shown = capsys.readouterr().out
    assert "Net, taylor; mae on validation data" in shown
    assert "next: prunedge export run --out run/exported; prunedge report run" in shown
    obey("show", "run", "--json")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["trainer"], summary["metric"]) == ("my_own:training", "mae")
    assert summary["higher_is_better"] is False


def test_its_page_tells_what_is_known_and_nothing_of_images(place: Path) -> None:
    obey("report", "run")
    written = (place / "run" / "report.html").read_text(encoding="utf-8")
    page = re.sub("<script.*?</script>", "", written, flags=re.DOTALL)
    assert "judged by mae" in page
    assert "prunedge prune --trainer my_own:training --metric mae" in page
    assert "test split" not in page
    assert "accuracy" not in page
    assert "<td>in channels" not in page
    assert "judged from" not in page


def test_its_onnx_answers_as_torch_does_on_what_evaluate_shows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "exported"
    obey("export", "run", "--out", out)
    assert "on 24 examples of evaluate" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {
        "model.onnx", "model.safetensors", "plan.json", "export.json",
    }  # fmt: skip
    assert "the export of a training of your own" in refusal("bench", out)
    for words in (("--opset", 20), ("--fixed-batch", 2)):
        line = refusal("export", "run", "--out", tmp_path / "again", *words)
        assert f"{words[0]} can't be had of a training of your own" in line
    record = json.loads((out / "export.json").read_text())
    assert record["compared"]["relative_difference"] < 1e-3
    model = pe.load("run")
    images = torch.randn(5, 3, 8, 8)
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    (answer,) = session.run(None, {record["inputs"][0]["name"]: images.numpy()})
    with torch.no_grad():
        assert np.allclose(answer, model(images).numpy(), atol=1e-5)
    assert record["params"] == sum(tensor.numel() for tensor in model.parameters())
    assert "the folder is not empty" in refusal("export", "run", "--out", out)
    other = refusal("export", "run", "--out", tmp_path / "x", "--format", "onnx-int8")
    assert "there is onnx alone" in other
    assert "--operate can't be had" in refusal(
        "export", "run", "--out", tmp_path / "x", "--operate", "cost"
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ByName", "5 examples of evaluate"),
        ("ByPlace", "16 examples of batches"),
        ("Alone", "the example alone"),
    ],
)
def test_a_model_of_two_inputs_is_exported_and_compared(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, shown: str
) -> None:
    words = ["--criterion", "weight-l2", "--max-steps", "1", "--polish", "0", "--step-ratio", "0.5"]
    obey("prune", "--trainer", f"tests.own_trainings:{name}", "--out", tmp_path / "run", *words)
    assert pe.open_run(tmp_path / "run").best().index == 1
    obey("export", tmp_path / "run", "--out", tmp_path / "exported")
    assert f"on {shown}" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "exported" / "model.onnx"))
    pair = {side: np.random.rand(3, 3, 8, 8).astype("float32") for side in ("left", "right")}
    answer, chosen = session.run(None, pair)
    with torch.no_grad():
        wanted = pe.load(tmp_path / "run")(
            **{name: torch.from_numpy(x) for name, x in pair.items()}
        )
    assert np.allclose(answer, wanted["answer"], atol=1e-5)
    assert (chosen == wanted["class"].numpy()).all()


def test_it_goes_on_with_more_steps_and_with_nothing_else(place: Path, tmp_path: Path) -> None:
    obey("prune", "--trainer", "my_own:training", "--out", tmp_path / "run", *OPTIONS)
    obey("prune", "--resume", tmp_path / "run", "--max-steps", "3")
    assert max(step.number for step in pe.open_run(tmp_path / "run").steps()) == 3
    assert "--step-ratio can't change" in refusal(
        "prune", "--resume", tmp_path / "run", "--step-ratio", "0.9"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cracks", "--trainer", "my_own:training"), "DATA beside --trainer"),
        (("--trainer", "my_own:training", "--from", "run"), "--from beside --trainer"),
        (
            ("--trainer", "my_own:training", "--masks", "m", "--size", "8"),
            "--size, --masks belongs",
        ),
        (("--trainer", "my_own:training", "--model", "resnet18"), "--model belongs"),
        (("--trainer", "my_own:training", "--small", "resnet18"), "--small belongs"),
        (("--trainer", "my_own:training", "--metric", "psnr"), "gave no 'psnr'.*mae, other"),
        (("--trainer", "my_own"), "no name of an object .*package.module:object"),
        (("--trainer", "my_own:gone"), "can't import my_own:gone"),
        (("--trainer", "nowhere:gone"), "can't import nowhere:gone"),
        (("--trainer", "my_own:broken"), "raised OSError: no such weights .my_own.py, line 4"),
        (("--trainer", "my_own:no_example"), "has no example .*it needs model, example, fit"),
        (("--trainer", "my_own:bad_model"), "model of my_own:bad_model is int"),
        (("--trainer", "my_own:unfit"), "without fit= nothing is fine-tuned"),
        (("--trainer", "my_own:without_loss", "--metric", "mae"), "looks at training batches"),
        (("--trainer", "my_own:once", "--metric", "mae"), "only once"),
        (
            ("--trainer", "my_own:fails", "--metric", "mae", "--criterion", "weight-l2"),
            "fit raised KeyError: 'missing' .my_own.py, line 6",
        ),
    ],
)
def test_what_it_can_t_do_is_one_line(
    place: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    line = refusal("prune", *words, "--out", tmp_path / "run")
    assert re.search(message, line), line
    assert (tmp_path / "run").exists() is ("fails" in str(words))


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "run", "cracks"),
        ("audit", "run"),
        ("groups", "--from", "run"),
        ("prune", "--from", "run", "--out", "again"),
    ],
)
def test_what_needs_a_task_says_why_not(place: Path, words: tuple[str, ...]) -> None:
    assert OWN in refusal(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Training\n    pass\n", r"expected ':' .broken_own.py, line 1.: mend it there"),
        ("x = 1\nimport not_there\n", r"No module named 'not_there' .broken_own.py, line 2."),
    ],
)
def test_a_module_that_can_t_be_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "broken_own.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    line = refusal("prune", "--trainer", "broken_own:Training", "--out", tmp_path / "run")
    assert re.search(message, line), line


def test_a_name_from_a_file_is_imported_only_where_it_was_given(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "my_own.py").write_text(f"open({str(marker)!r}, 'w')\n{TEXT}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    monkeypatch.setattr(trust, "_everything", False)
    run = place / "run"
    for words in (("export", run, "--out", "x"), ("prune", "--resume", run, "--max-steps", "3")):
        assert "names code of its own, my_own:training" in refusal(*words)
    assert not marker.exists()
    obey("export", run, "--out", "x", "--trust-code")
    assert marker.exists()


def test_settings_are_those_of_the_options() -> None:
    assert len(OPTIONS) == 2 * len(SETTINGS) - 1
