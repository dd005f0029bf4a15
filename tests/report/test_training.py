"""`show` and the report of a run that was trained alone: what it reached, no word of what pruning saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.cli.parser import make_app
from prunedge.cli.show import show
from prunedge.report import write_report
from prunedge.report.run.repeat import command
from prunedge.runs import execute
from prunedge.runs.run import Run
from tests.small_runs import small_recipe


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute.train(small_recipe(tiny_data), tmp_path_factory.mktemp("runs") / "my run")


def test_show_tells_of_a_training(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show(trained.path)
    said = capsys.readouterr().out
    assert "fewer" not in said
    assert "has not ended" not in said
    assert "step" not in said
    assert "on validation data" in said
    assert (
        f"prunedge prune --from '{trained.path}' --out '{trained.path}-pruned'" in said
        or "answers '" in said
    )


def test_the_page_of_a_training_tells_of_no_pruning(trained: Run) -> None:
    text = write_report(trained).read_text(encoding="utf-8")
    body = text.partition("<header>")[2]
    assert "× less" not in body
    assert "× smaller" not in body
    assert "No pruned model" not in body
    assert "→" not in body
    assert "Every step" not in body
    assert "trained and pruned" not in body
    assert "nothing removed yet" in body
    assert "my run" in body
    assert "<td>train epochs</td><td>2</td>" in body
    assert "<td>seed</td>" in body
    for name in ("step ratio", "polish", "max drop", "criterion", "epochs", "for"):
        assert f"<td>{name}</td>" not in body


def test_the_command_repeats_the_training(trained: Run) -> None:
    import shlex

    config = trained.config.with_values(resize="pad")
    words = shlex.split(command(config, trained.path, "train"))
    assert words[words.index("--resize") + 1] == "pad"
    assert words[:2] == ["prunedge", "train"]
    assert words[words.index("--epochs") + 1] == "2"
    assert "--step-ratio" not in words
    make_app("train").parse_args(words[1:], exit_on_error=False, print_error=False)
