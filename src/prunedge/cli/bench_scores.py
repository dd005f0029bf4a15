"""How good the forms are that `prunedge bench` has timed, where its images are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunedge.edge import BenchResult, Candidate


def with_scores(result: BenchResult, candidates: Sequence[Candidate], data: Path) -> BenchResult:
    """The result with a `score` for each candidate: its task's metric on the images of `data`,
    `value`, `low`, `high`, and `images`, how many there were.

    As it is, with a line that says why, where the images have no labels that the models know, or
    where training's half of prunedge, which judges, is not installed.
    """
    from prunedge.cli.console import say
    from prunedge.errors import DataError

    if find_spec("torch") is None:
        say("no metric beside the times: pip install 'prunedge[prune]' brings what judges")
        return result
    try:
        scores = [_score(candidate, data) for candidate in candidates]
    except DataError as error:
        say(f"no metric beside the times, which takes labels that the model knows: {error.what}")
        return result
    pairs = zip(result.bundles, scores, strict=True)
    return replace(result, bundles=[{**record, "score": score} for record, score in pairs])


def _score(candidate: Candidate, data: Path) -> dict[str, Any]:
    from prunedge.runs.evaluation import evaluate_on
    from prunedge.utils.systems import cores

    found = evaluate_on(candidate.bundle.path, data, target=candidate.target, threads=cores())
    judged = found.judged
    text = "-" if judged.value is None else judged.metric.text(judged.value)
    return {
        "metric": judged.metric.name,
        **judged.to_json(),
        "text": text,
        "images": found.images,
        "split": found.side,
    }
