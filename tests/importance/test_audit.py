"""Whole audits: what is written, going on after an interruption, and folders that hold something else."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge import data as images
from prunedge.errors import PrunedgeError, RunError
from prunedge.importance import CRITERIA
from prunedge.importance.audit import AuditRequest, audit
from tests.small_models import Plain, Residual, randomise


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> images.Dataset:
    return images.load(tiny_data, size=12, cache_dir=tmp_path_factory.mktemp("cache"))


def test_every_criterion_is_compared(data: images.Dataset, tmp_path: Path) -> None:
    found = audit(
        randomise(Residual()),
        data,
        tmp_path / "a",
        AuditRequest(channels=None),
        model_name="residual",
    )
    assert {one.criterion for one in found.absolute} == set(CRITERIA)
    assert found.unjudged == {}
    record = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert record["recommendation"] == found.recommendation
    assert record["images"] == len(data.val)
    rows = list(csv.DictReader((tmp_path / "a" / "channels.csv").open()))
    assert (
        len(rows)
        == found.truth.channels
        == sum(len(change) for change in found.truth.changes.values())
    )
    assert float(rows[0]["change"]) == pytest.approx(
        float(next(iter(found.truth.changes.values()))[0])
    )
    best = {
        row["criterion"]: float(row["rho"])
        for row in csv.DictReader((tmp_path / "a" / "audit.csv").open())
        if row["scope"] == "all"
    }
    assert set(best) == set(CRITERIA)


def test_what_cannot_be_judged_is_said(data: images.Dataset, tmp_path: Path) -> None:
    found = audit(
        randomise(Plain()),
        data,
        tmp_path,
        AuditRequest(("taylor", "bn-scale", "taylor-bn"), 3),
        model_name="plain",
    )
    assert [one.criterion for one in found.absolute] == ["taylor"]
    assert "this model has none" in found.unjudged["bn-scale"]
    assert "this model has none" in found.unjudged["taylor-bn"]


def test_an_audit_goes_on_where_it_was_cut_off(data: images.Dataset, tmp_path: Path) -> None:
    model, asked = randomise(Residual()), AuditRequest(("taylor",), None)
    whole = audit(model, data, tmp_path / "whole", asked, model_name="residual")
    measured: list[int] = []

    class Cut(Exception):
        """As if the machine went off."""

    def cut(done: int, total: int, what: str) -> None:
        measured.append(done)
        if len(measured) == 20:
            raise Cut

    with pytest.raises(Cut):
        audit(model, data, tmp_path / "cut", asked, model_name="residual", progress=cut)
    assert (tmp_path / "cut" / "partial.safetensors").exists()
    assert not (tmp_path / "cut" / "audit.json").exists()
    measured.clear()
    measured.extend([0] * 100)
    again = audit(model, data, tmp_path / "cut", asked, model_name="residual", progress=cut)
    assert measured[100] > 1  # what was measured is not measured again
    for name, change in whole.truth.changes.items():
        assert torch.equal(again.truth.changes[name], change)
    before = len(measured)
    more = audit(
        model,
        data,
        tmp_path / "cut",
        AuditRequest(("weight-l1",), None),
        model_name="residual",
        progress=cut,
    )
    assert len(measured) == before  # other criteria need no other truth
    assert [one.criterion for one in more.absolute] == ["weight-l1"]


@pytest.mark.parametrize("change", ["model", "channels", "images", "seed"])
def test_a_folder_of_another_audit_is_refused(
    change: str, data: images.Dataset, tmp_path: Path
) -> None:
    model = randomise(Residual())
    audit(model, data, tmp_path, AuditRequest(("random",), 2), model_name="residual")
    if change == "model":
        with torch.no_grad():
            model.a.weight[0, 0, 0, 0] += 1
    asked = AuditRequest(
        ("random",),
        3 if change == "channels" else 2,
        5 if change == "images" else 512,
        int(change == "seed"),
    )
    with pytest.raises(RunError, match="another model, other images or other settings"):
        audit(model, data, tmp_path, asked, model_name="residual")


def test_folders_with_other_things_and_damaged_files_are_refused(
    data: images.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds other things"):
        audit(
            randomise(Residual()), data, tmp_path / "strange", AuditRequest(), model_name="residual"
        )
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "partial.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(RunError, match="delete this file to begin anew"):
        audit(
            randomise(Residual()), data, tmp_path / "damaged", AuditRequest(), model_name="residual"
        )


def test_a_model_without_channels_is_refused(data: images.Dataset, tmp_path: Path) -> None:
    with pytest.raises(PrunedgeError, match="no channels that could be pruned"):
        audit(
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2)),
            data,
            tmp_path,
            AuditRequest(),
            model_name="linear",
        )
