"""The library alone: from images to a trained and pruned model, a bundle and a page. README's own example is what runs."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

import prunedge as pe
from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.errors import ExportError, PrunedgeError, TrainError
from prunedge.report.text import lost_on_test_data
from prunedge.train import make_engine
from prunedge.utils.wording import times
from tests.small_models import Residual
from tests.tiny_images import write_tiny

README = Path(__file__).parents[2] / "README.md"
# The example on images that take seconds: a smaller model of random weights, since the test downloads nothing.
SMALLER = {
    "size=224": "size=32",
    '"resnet18"': '"tests.runs.test_run:small"',
    'weights="imagenet"': 'weights="none"',
    "epochs=10)": "epochs=5, batch_size=8, pretrained=False)",
    "max_drop=3.0": 'max_drop=3.0, max_steps=3, batch_size=8, engine=pe.make_engine("32")',
}
MAJORITY = 0.5


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> images.Dataset:
    return images.load(tiny_data, size=16, cache_dir=tmp_path_factory.mktemp("cache"))


def example() -> str:
    """README's library example, as it stands there."""
    (found,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def test_the_readmes_example_trains_prunes_exports_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = example()
    for words, smaller in SMALLER.items():
        assert words in code
        code = code.replace(words, smaller)
    write_tiny(tmp_path / "cracks", count=100)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)  # our own text
    data = names["data"]
    assert pe.evaluate(names["model"], data.test).accuracy >= MAJORITY + 0.4, "trained"
    assert pe.evaluate(names["small"], data.test).accuracy >= MAJORITY + 0.4, "pruned once"
    assert pe.evaluate(names["best"], data.test).accuracy >= MAJORITY + 0.35, (
        "pruned to the rule, from the bundle"
    )
    steps = names["steps"]
    best = [step for step in steps if step.accepted][-1]
    assert best.index > 0
    assert best.macs < 0.7 * steps[0].macs
    assert sum(parameter.numel() for parameter in names["best"].parameters()) == best.params
    assert len(printed.getvalue().splitlines()) == 2 + len(steps)
    page = (tmp_path / "cracks.html").read_text(encoding="utf-8")
    assert "measured once" in page
    assert "Right and wrong on the test split" in page
    assert not re.search(
        r"<(script|img|link)[^>]* (src|href)=.http", page
    )  # plotly.js names some in its code
    assert "--resume" not in page, "there is no run to go on with"
    assert "prunedge prune" not in page, "there is no run to go on with"
    assert f"{times(steps[0].macs / best.macs)} × less" in page
    assert "stays within" not in page, "the page was not told of the rule"


def test_training_is_repeatable_and_tells_its_epochs(data: images.Dataset) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        net = Residual()
        result = pe.fit(
            net, data, epochs=2, pretrained=False, batch_size=8, seed=4, engine=make_engine("32")
        )
        assert result.model is net
        assert len(result.history) == 2
        assert result.val is not None
        assert pe.evaluate(net, data.val).accuracy == result.val.accuracy
        found.append(net.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_what_a_training_was_asked_for_reaches_it(data: images.Dataset) -> None:
    found = {}
    for sparsity in ("none", "growing"):
        torch.manual_seed(0)
        net = Residual()
        settings = {"epochs": 1, "lr": 0.01, "batch_size": 8, "engine": make_engine("32")}
        pe.fit(net, data, pretrained=False, sparsity=sparsity, **settings)  # type: ignore[arg-type]
        found[sparsity] = torch.cat([value.flatten() for value in net.parameters()])
    assert not torch.equal(found["none"], found["growing"])


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": -1}, {"lr": 0.0}, {"augment": "twirl"}, {"metric": "mAP"}, {"seed": -1}],
)
def test_what_no_training_can_follow_is_refused_by_its_own_name(
    data: images.Dataset, wrong: dict[str, Any]
) -> None:
    with pytest.raises(PrunedgeError, match=rf"\b{next(iter(wrong))}="):
        pe.fit(Residual(), data, **wrong)


def test_evaluating_leaves_the_model_as_it_was_and_takes_any_batches(
    data: images.Dataset,
) -> None:
    net = Residual().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    whole = pe.evaluate(net, data.test)
    again = pe.evaluate(net, [(inputs, labels) for inputs, labels in data.test.batches(3)])
    assert (whole.confusion, whole.correct) == (
        again.confusion,
        again.correct,
    )
    assert whole.loss == pytest.approx(again.loss)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert whole.n == len(data.test)
    assert sum(map(sum, whole.confusion)) == whole.n
    with pytest.raises(TrainError, match="no image"):
        pe.evaluate(net, [])
    with pytest.raises(TrainError, match="labels from 5 to 5 for 2 classes"):
        pe.evaluate(net, [(torch.zeros(1, 3, 16, 16), torch.tensor([5]))])


def test_a_bundle_holds_the_model_that_was_given(data: images.Dataset, tmp_path: Path) -> None:
    net = pe.build("tests.runs.test_run:small", 2, "none").eval()
    plan = pe.Plan({"a": (0, 2, 3)})
    small = pe.remove(net, pe.trace(net, data.example()), plan).eval()
    bundle = pe.export_bundle(
        small, data, tmp_path / "b", model_name="tests.runs.test_run:small", plan=plan
    )
    inputs = torch.randn(2, 3, 16, 16)
    assert torch.equal(pe.load(tmp_path / "b")(inputs), small(inputs))
    assert bundle.manifest.task.classes == ("crack", "sound")
    assert bundle.manifest.task.size == (16, 16)
    assert bundle.manifest.params == sum(parameter.numel() for parameter in small.parameters())
    assert (
        bundle.manifest.metrics["validation"]["accuracy"] == pe.evaluate(small, data.val).accuracy
    )
    assert json.loads((tmp_path / "b" / "plan.json").read_text()) == {"a": [0, 2, 3]}
    pe.export_bundle(small, data, tmp_path / "c", model_name="tests.runs.test_run:small")
    assert not (tmp_path / "c" / "plan.json").exists(), "nobody has said what stayed"
    with pytest.raises(ExportError, match="'resnet18' is another model"):
        pe.export_bundle(small, data, tmp_path / "d", model_name="resnet18")
    with pytest.raises(ExportError, match="not empty"):
        pe.export_bundle(small, data, tmp_path / "b", model_name="tests.runs.test_run:small")


def test_a_report_needs_steps_and_says_what_was_not_measured(
    data: images.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(PrunedgeError, match="no step to report"):
        pe.write_report(tmp_path / "page.html", [], data)
    loop = pe.prune(Residual(), data, engine=make_engine("32"))
    steps = [next(iter(loop))[0]]
    page = pe.write_report(tmp_path / "page.html", steps, data).read_text(encoding="utf-8")
    assert "The test split is measured once, when the run ends" in page
    told = {"step_ratio": 0.25, "criterion": "fisher", "max_drop": 2.0}
    page = pe.write_report(tmp_path / "told.html", steps, data, **told).read_text(encoding="utf-8")  # type: ignore[arg-type]
    assert "<td>criterion</td><td>fisher</td>" in page
    assert "<td>step ratio</td><td>0.25</td>" in page
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>criterion</td>" not in page
    # Nobody told it of these, and their defaults would be guesses.
    assert "<td>max drop</td>" not in page
    assert "<td>train epochs</td>" not in page
    assert "<td>weights</td>" not in page


@pytest.mark.slow
def test_a_report_tells_the_rule_only_where_it_was_told(
    data: images.Dataset, tmp_path: Path
) -> None:
    loop = pe.prune(
        Residual(),
        data,
        metric="f1",
        max_drop=100.0,
        max_steps=1,
        confidence=None,
        engine=make_engine("32"),
    )
    steps = [step for step, _ in loop]
    best = [step for step in steps if step.keeps_rule][-1]
    assert best.index > 0

    page = pe.write_report(tmp_path / "page.html", steps, data).read_text(encoding="utf-8")
    text = page.partition("<header>")[2]
    assert "is the last model that kept the loop's rule" in text
    assert "stays within" not in text
    assert "the rule: at most" not in text
    assert "validation f1 (%)" in text
    assert "<td>metric</td><td>f1</td>" in text

    page = pe.write_report(tmp_path / "told.html", steps, data, max_drop=100.0).read_text("utf-8")
    assert "stays within 100 points of the unpruned model's f1" in page
    assert "the rule: at most 100 points lost" in page
    with pytest.raises(PrunedgeError, match="accuracy"):
        pe.write_report(tmp_path / "wrong.html", steps, data, metric="accuracy", max_drop=1.0)


def test_what_a_test_split_lost_is_not_held_against_a_rule_that_nobody_told() -> None:
    config = RunConfig.make("test", data="x", model="resnet18", max_drop=1.0)
    test = {"baseline": {"accuracy": 0.9}, "best": {"accuracy": 0.8}}
    assert "more than the 1" in lost_on_test_data(config, test)[0]
    assert lost_on_test_data(config, test, knows_rule=False) == []


def test_the_public_names_are_those_that_editors_see() -> None:
    """What is loaded lazily is imported for type checkers as well, name by name."""
    import prunedge

    text = Path(prunedge.__file__).read_text(encoding="utf-8")
    seen = set(re.findall(r"(\w+) as \1\b", text))
    assert seen == set(prunedge.__all__) - {"__version__"} == set(prunedge._HOMES)
    assert (Path(prunedge.__file__).parent / "py.typed").is_file()
