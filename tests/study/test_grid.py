"""Grids in, trials out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.errors import PrunedgeError
from prunedge.study import Grid, presets, trials

VALUES = {"data": "/images/cracks", "model": "resnet18", "weights": "none"}


def test_every_combination_and_every_fold() -> None:
    found = trials(
        Grid(
            {
                **VALUES,
                "criterion": ["taylor", "random"],
                "epochs": [1, 2, 5],
                "folds": 4,
                "baseline": ["scratch"],
            }
        )
    )
    assert len(found) == len({trial.name for trial in found}) == 24
    assert {
        (t.config.prune.criterion, t.config.recover.epochs, t.config.data.fold) for t in found
    } == {
        (criterion, epochs, fold)
        for criterion in ("taylor", "random")
        for epochs in (1, 2, 5)
        for fold in range(4)
    }
    assert all(
        trial.config.prune.baseline == ["scratch"] and trial.config.data.folds == 4
        for trial in found
    )


def test_trials_share_a_starting_model_where_training_is_the_same() -> None:
    found = trials(
        Grid(
            {
                **VALUES,
                "criterion": ["taylor", "random"],
                "epochs": [1, 2],
                "seed": [0, 1],
                "lr": [0.1, 0.2],
            }
        )
    )
    starts = {trial.start.name: trial.start for trial in found}
    assert len(found) == 16
    assert len(starts) == 4
    assert {(start.config.data.seed, start.config.train.lr) for start in starts.values()} == {
        (0, 0.1),
        (0, 0.2),
        (1, 0.1),
        (1, 0.2),
    }
    for trial in found:
        assert (trial.start.config.data.seed, trial.start.config.train.lr) == (
            trial.config.data.seed,
            trial.config.train.lr,
        )
    flipped = trials(Grid({**VALUES, "augment": ["full", "flips"]}))
    assert [trial.start.config.train.augment for trial in flipped] == ["full", "flips"]


@given(
    st.permutations([0, 1, 2, 3]),
    st.permutations(["taylor", "random", "fisher"]),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_a_trial_keeps_its_name_when_the_grid_grows(
    seeds: list[int], criteria: list[str], some: int, few: int
) -> None:
    whole = {trial.name for trial in trials(Grid({**VALUES, "seed": seeds, "criterion": criteria}))}
    part = {
        trial.name
        for trial in trials(Grid({"criterion": criteria[:few], **VALUES, "seed": seeds[:some]}))
    }
    assert part <= whole
    assert len(part) == some * few


def test_lists_of_lists_vary_what_is_a_list_itself() -> None:
    found = trials(Grid({**VALUES, "ignore": [[], ["conv1"], ["conv1", "layer1.*"]]}))
    assert [trial.config.prune.ignore for trial in found] == [[], ["conv1"], ["conv1", "layer1.*"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'model = "resnet18"\ncriterium = "taylor"',
            "unknown key 'criterium' .did you mean 'criterion'..; data is missing",
        ),
        (
            'data = "x"\nmodel = "resnet18"\nepochs = []',
            "epochs: an empty list leaves nothing to run",
        ),
        (
            'data = "x"\nmodel = "resnet18"\nepochs = [1, 0]',
            r"`epochs = 0`: input should be greater than or equal to 1",
        ),
        ('data = "x"\nmodel = "resnet18"\nfolds = [2, 3]', "folds: give one number"),
        ('data = "x"\nmodel = "resnet18"\nkind = "quiz"', "unknown kind 'quiz'"),
        ('data = "x"\nmodel = "resnet18"\nbench = -1', "bench = -1"),
        ("data = ", "can't read the study"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(PrunedgeError, match=said):
        Grid.from_toml(tmp_path / "study.toml")


def test_a_file_says_the_same_when_it_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'kind = "epochs"\nbench = 20\ndata = "images"\nmodel = ["a", "b"]\nepochs = [1, 10]\nignore = ["x"]'
    )
    first = Grid.from_toml(tmp_path / "a.toml")
    assert first.values["data"] == str(tmp_path / "images")
    (tmp_path / "b.toml").write_text(first.to_toml())
    assert Grid.from_toml(tmp_path / "b.toml") == first


def test_ready_made_questions() -> None:
    both = ("/a", "/b"), ("vgg16", "resnet18")
    assert len(trials(presets.crossval(*both, 5, {}))) == 20
    assert len(trials(presets.epochs(*both, (1, 2, 5, 10), {}))) == 16
    named = presets.criteria(("/a",), ("vgg16",), ("taylor",), {})
    assert [trial.config.prune.criterion for trial in trials(named)] == ["taylor", "random"]
    assert all(trial.config.prune.baseline == ["scratch"] for trial in trials(named))
    models = presets.models(("/a",), ("vgg16", "resnet18"), {"seed": [3, 4]})
    assert [models.is_timed(trial) for trial in trials(models)].count(True) == 2


def test_some_of_the_folds() -> None:
    found = trials(Grid({**VALUES, "folds": 5, "fold": [0, 3]}))
    every = trials(Grid({**VALUES, "folds": 5}))
    assert [trial.config.data.fold for trial in found] == [0, 3]
    assert {trial.name for trial in found} < {trial.name for trial in every}
    with pytest.raises(PrunedgeError, match=r"fold=7 \(.*\): of 5 folds"):
        trials(Grid({**VALUES, "folds": 5, "fold": [7]}))


def test_trials_of_a_manifest_are_called_after_its_folder() -> None:
    (trial,) = trials(Grid({**VALUES, "data": "/images/masonry/manifest.csv"}))
    assert trial.name.startswith("masonry-")
    assert trial.start.name.startswith("masonry-")


def test_shards_keep_their_braces_and_urls(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'data = ["s/t-{0..3}.tar", "s3://bucket/set", "../x.tar"]\nmodel = "a"'
    )
    grid = Grid.from_toml(tmp_path / "a.toml")
    assert grid.values["data"] == [
        f"{tmp_path}/s/t-{{0..3}}.tar",
        "s3://bucket/set",
        str(tmp_path.parent / "x.tar"),
    ]
    assert [trial.name.split("-")[0] for trial in trials(grid)] == ["s", "set", "x"]
