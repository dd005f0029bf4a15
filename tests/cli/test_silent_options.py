"""An option that would act on nothing is refused, and says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.runs.new import create
from tests.refusals import refusal

TRAIN = ["--model", "tests.small_models:tiny", "--weights", "none", "--size", 16]


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (["--sparsity-strength", 0.1], "--sparsity"),
        (["--runtime", "openvino"], "--device"),
        (["--device-threads", 2], "--device"),
    ],
)
def test_a_setting_without_what_it_is_of(
    tiny_data: Path, tmp_path: Path, words: list[object], needs: str
) -> None:
    line = refusal("prune", tiny_data, *TRAIN, *words, "--out", tmp_path / "run")
    assert str(words[0]) in line
    assert line.count(needs) >= 1
    assert not (tmp_path / "run").exists()


def test_weights_of_a_run(tmp_path: Path) -> None:
    run = create(
        tmp_path / "run", RunConfig.make("test", data="cracks", model="resnet18", weights="none")
    )
    assert "--weights" in refusal("audit", run.path, "--weights", "none")


@pytest.mark.parametrize("verb", ["train", "prune"])
def test_an_address_for_a_folder(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "s3:" in refusal(verb, tiny_data, *TRAIN, "--out", "s3://bucket/run")
    assert "s3:" in refusal("export", "run", "--out", "s3://bucket/bundle")
    assert not list(tmp_path.iterdir())


def test_the_groups_of_a_run_are_counted_at_its_size(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from prunedge.cli.groups import groups
    from prunedge.runs import execute
    from tests.small_runs import small_recipe

    run = execute.train(small_recipe(tiny_data), tmp_path / "run")
    groups(start=run.path, json=True)
    assert json.loads(capsys.readouterr().out)["macs"] == run.steps()[0].macs
