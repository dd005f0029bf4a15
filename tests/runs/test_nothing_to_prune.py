"""A model of which nothing can be pruned is trained as any other, and refused before a pruning trains it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import prunedge as pe
from prunedge.errors import PrunedgeError
from prunedge.report import write_report
from prunedge.report.text import trained
from prunedge.runs import unpruned
from prunedge.runs.run import open_run
from tests.refusals import refusal


def pooled(num_classes: int) -> nn.Module:
    """Pool, flatten, linear: every channel is an input or an answer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))


WORDS = [
    "--model",
    "tests.runs.test_nothing_to_prune:pooled",
    "--weights",
    "none",
    "--size",
    16,
    "--precision",
    "32",
]


def test_it_is_trained(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from prunedge.cli.app import main

    with pytest.raises(SystemExit) as end:
        main(
            list(
                map(
                    str,
                    [
                        "train",
                        tiny_data,
                        *WORDS,
                        "--epochs",
                        2,
                        "--lr",
                        0.05,
                        "--out",
                        tmp_path / "run",
                    ],
                )
            )
        )
    assert end.value.code == 0
    run = open_run(tmp_path / "run")
    assert run.steps()[0].channels == 0
    assert run.steps()[0].fraction_removed == 0
    assert "MACs" in trained(run)
    assert write_report(run).is_file()
    assert "could be pruned" in refusal("prune", "--from", run.path, "--out", tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


def test_a_pruning_is_refused_before_it_trains(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpruned, "transfer", lambda *args, **kwargs: pytest.fail("it trained"))
    line = refusal("prune", tiny_data, *WORDS, "--out", tmp_path / "run")
    assert "could be pruned" in line
    assert "prunedge groups --model" in line
    assert not (tmp_path / "run").exists()


def test_in_python(tiny_data: Path) -> None:
    data = pe.load_folder(tiny_data, size=16)
    torch.manual_seed(0)
    with pytest.raises(PrunedgeError, match="could be pruned"):
        next(pe.prune(pooled(2), data))
