"""What training starts from and whether it taught anything, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.commands import prunedge
from tests.small_models import Residual

MODELS = """
import torch
from torch import nn

class Dull(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    def forward(self, x):
        return self.body(x).tanh() + torch.tensor([9.0, 0.0])

def dull(num_classes):
    return Dull()
"""


HOW = ("--size", 16, "--batch-size", 8, "--precision", "32")


def test_weights_rate_and_majority_are_told_and_stand_in_run_and_report(
    tiny_data: Path, tmp_path: Path
) -> None:
    state = {f"encoder.{name}": tensor for name, tensor in Residual().state_dict().items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(2)}}, tmp_path / "ssl.ckpt")
    here = Path(__file__).parents[2]
    how = (
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        tmp_path / "ssl.ckpt",
        "--epochs",
        3,
        *HOW,
    )
    done = prunedge("train", tiny_data, *how, "--out", tmp_path / "run", cwd=here)
    assert done.returncode == 0, done.stderr
    weights, rate = (
        next(line for line in done.stderr.splitlines() if line.startswith(word))
        for word in ("weights:", "learning rate")
    )
    assert "without 'encoder.'" in weights
    assert "left out of the file: loss" in weights
    assert "--lr overrides it" in rate
    assert "always answering '" in done.stdout
    shown = prunedge("show", tmp_path / "run", cwd=here).stdout
    # The last word, where the training ended in one answer and began anew at a lower rate.
    last = [line for line in done.stderr.splitlines() if line.startswith("learning rate")][
        -1
    ].removesuffix("; --lr overrides it")
    assert weights in shown
    assert last in shown
    found = json.loads(prunedge("show", tmp_path / "run", "--json", cwd=here).stdout)
    assert found["learning_rate"]["curve"]
    assert found["weights_loaded"]["left_out"] == ["loss.weight"]
    assert prunedge("report", tmp_path / "run", cwd=here).returncode == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "left out of the file: loss" in page
    assert "Always answering" in page
    assert last in page


def test_a_model_with_one_answer_is_reported_by_train_and_report_and_refused_by_prune(
    tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MODELS)
    how = ("--model", "mine:dull", "--weights", "none", *HOW)
    done = prunedge("train", tiny_data, *how, "--epochs", 1, "--out", "dull", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "for every validation image" in done.stdout
    assert "a lower --lr (it was 0.01: try 0.002)" in done.stdout
    for start in (("--from", "dull"), (tiny_data, *how, "--train-epochs", 1)):
        refused = prunedge("prune", *start, "--out", "pruned", cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert "for every validation image" in refused.stderr, refused.stderr
        assert refused.stderr.count("error:") == 1
        assert "Traceback" not in refused.stderr
    assert prunedge("report", "dull", cwd=tmp_path).returncode == 0
    assert "for every validation image" in (tmp_path / "dull" / "report.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("verb", ["train", "prune"])
def test_weights_that_do_not_fit_are_one_line(verb: str, tiny_data: Path, tmp_path: Path) -> None:
    state = Residual().state_dict()
    torch.save(
        {
            name: tensor.to(torch.int8) if tensor.ndim > 1 else tensor
            for name, tensor in state.items()
        },
        tmp_path / "int8.pth",
    )
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    for file, said in (("int8.pth", "not of floating point"), ("whole.pt", "python -c")):
        how = ("--model", "tests.runs.test_run:small", "--weights", tmp_path / file, *HOW)
        done = prunedge(
            verb, tiny_data, *how, "--out", tmp_path / "run", cwd=Path(__file__).parents[2]
        )
        assert done.returncode == 2, done.stderr
        assert said in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "run").exists()
