from __future__ import annotations

import pytest

from prunedge.train.collapse import Taught, one_class_warning
from prunedge.utils.advice import speaking


@pytest.mark.parametrize(
    ("taught", "has", "lacks"),
    [
        (
            Taught(10, True, 0.003),
            ("a lower --lr (it was 0.003: try 0.0006), with --optimizer adamw", "more epochs"),
            ("weights",),
        ),
        (Taught(10, False, 0.02), ("--lr", "pretrained --weights"), ()),
        (Taught(0, False, 0.02), ("--train-epochs 10",), ("--lr", "lower")),
        (
            Taught(10, True, 0.003, "runs/vgg"),
            ("not from runs/vgg", "lower learning rate (it was 0.003", "or with AdamW"),
            ("--lr", "weights"),
        ),
        (
            Taught(10, True, 0.0003, "runs/vgg", tried_lower=True),
            ("not from runs/vgg", "with more epochs"),
            ("lower", "--lr"),
        ),
        (
            Taught(0, True, None, "runs/vgg"),
            ("not from runs/vgg", "trained on these images"),
            ("--lr", "lower"),
        ),
        (
            Taught(10, True, 0.0003, tried_lower=True),
            ("with --optimizer adamw, with more epochs, or on more images",),
            ("--lr", "try"),
        ),
        # What it was taught with already is no remedy.
        (
            Taught(10, True, 0.0003, tried_lower=True, optimizer="adamw"),
            ("anew with more epochs, or on more images",),
            ("--lr", "adamw", "AdamW"),
        ),
        (
            Taught(10, True, 0.0003, optimizer="adamw"),
            ("anew with a lower --lr (it was 0.0003: try 6e-05), or with more epochs",),
            ("adamw", "AdamW"),
        ),
        (
            Taught(10, True, 0.0003, "runs/vgg", optimizer="adamw"),
            ("with more epochs, not from",),
            ("adamw", "AdamW"),
        ),
        (None, ("pe.fit(", "lr=...", "optimizer='adamw'"), ("--",)),
    ],
)
def test_advice_is_what_can_be_done_there(
    taught: Taught | None, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    with speaking("command"):
        advice = one_class_warning("crack", taught).partition(": ")[2]
    assert all(word in advice for word in has)
    assert not any(word in advice for word in lacks)


def test_a_study_is_told_its_own_keys() -> None:
    with speaking("study"):
        assert "`lr`" in one_class_warning("crack", Taught(10, True, 0.003))
        assert "--" not in one_class_warning("crack", Taught(0, True))


@pytest.mark.parametrize(
    ("taught", "has", "lacks"),
    [
        (
            Taught(10, True, 0.003, "s2/starts/a"),
            (
                "another --out",
                "more `train_epochs`",
                '`optimizer = "adamw"`',
                "`lr` (it was 0.003)",
            ),
            ("lower", "s2/starts", "weights"),
        ),
        (
            Taught(10, False, 0.003, "s2/starts/a", tried_lower=True),
            ("another --out", "`train_epochs`", "pretrained `weights`"),
            ("lower", "`lr`"),
        ),
        (
            Taught(0, True, None, "s2/starts/a"),
            ("another --out", "`train_epochs = 10`"),
            ("`lr`", "s2/starts"),
        ),
    ],
)
def test_a_study_is_told_to_begin_anew_since_what_is_done_is_not_repeated(
    taught: Taught, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    with speaking("study"):
        advice = one_class_warning("crack", taught).partition(": ")[2]
    assert all(word in advice for word in has)
    assert not any(word in advice for word in lacks)
