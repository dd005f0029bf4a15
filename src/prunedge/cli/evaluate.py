"""`prunedge evaluate`: how good a run or a bundle is on any labelled images."""

from __future__ import annotations

from pathlib import Path

from prunedge.cli.options import Flag, TrustCode


def evaluate(
    model: Path,
    data: str,
    *,
    runtime: str | None = None,
    step: int | None = None,
    baseline: Flag = False,
    split: str | None = None,
    group_by: str | None = None,
    masks: str | None = None,
    tile: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    threads: int | None = None,
    device: str | None = None,
    trust_code: TrustCode = False,
    json: Flag = False,
) -> None:
    """Judge a model on labelled images: every metric with its 95 % interval, each class, and what
    always giving the same answer would score.

    Images are decoded, resized and normalised as those that the model was trained on, and their
    labels are matched by name. Images that can't be read, or whose label the model doesn't know,
    are left out and told.

    Example: `prunedge evaluate runs/cracks other-bridge/ --group-by '(IMG_\\d+)'`

    Parameters
    ----------
    model
        A run folder, or a bundle that `prunedge export` made.
    data
        Labelled images: class folders, a CSV manifest, or shards, as `prunedge prune` takes them.
    runtime
        Which of a bundle's forms to run (onnx, onnx-int8, openvino, ...). Without it, its first.
    step
        Of a run, the model after this step instead of the best, by the number that `show` prints.
    baseline
        Of a run, the unpruned model.
    split
        Which images to judge by: test, val, train or all. Unless given, the test split of images
        that come with splits (and of the run's own), else all.
    group_by
        `parent`, or a regular expression on each path: images of one group come from one photograph
        or structure, and are drawn together for the intervals.
    masks
        A folder of the photographs' masks, or annotations of them, for a model that finds damage
        pixel by pixel; DATA is the folder of the photographs then. A run's own are known; others
        are judged by as other images are.
    tile
        Cut the photographs with masks into squares of so many pixels, as a run's own were unless
        others are asked for; a bundle doesn't know.
    resamples
        How many resamples the intervals are made of.
    seed
        Decides which.
    threads
        Threads that the model may use; all cores, unless given.
    device
        Another machine that computes a bundle's answers: ssh://user@host, with prunedge installed
        there. Images are decoded and scaled here.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress
    from prunedge.cli.evaluate_tables import print_evaluation
    from prunedge.runs.evaluation import evaluate_on
    from prunedge.utils.systems import cores

    with progress("evaluating", quiet=json) as advance:
        result = evaluate_on(
            model,
            data,
            target=runtime,
            step=step,
            baseline=baseline,
            split=split,
            group_by=group_by,
            masks=masks,
            tile=tile,
            threads=cores() if threads is None and device is None else threads,
            device=device,
            trust_code=trust_code,
            resamples=resamples,
            seed=seed,
            progress=advance,
        )
    if json:
        print_json(result.to_json())
    else:
        print_evaluation(result)
