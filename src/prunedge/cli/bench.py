"""`prunedge bench`: time, memory and energy of bundles, on this machine or on a device. Needs no
torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.cli.bench_options import THE_TALKS, WorkloadOptions
from prunedge.cli.console import split
from prunedge.cli.options import Flag

if TYPE_CHECKING:
    from prunedge.runs.run import Run


def bench(
    *bundles: Path,
    against: Path | None = None,
    runtime: Annotated[list[str] | None, Parameter(converter=split)] = None,
    numbers: WorkloadOptions = THE_TALKS,
    data: Path | None = None,
    device: str | None = None,
    out: Path | None = None,
    json: Flag = False,
) -> None:
    """Measure bundles: total time, latency, throughput, memory, energy; several are interleaved in
    one run and compared with the first.

    Each must first give the answers that it gave where it was exported.

    Example: `prunedge bench bundles/cracks --against bundles/cracks-unpruned --patches 3720 --batch
    1 --threads 1`

    Parameters
    ----------
    bundles
        What to measure.
    against
        The bundle to compare them with (usually the unpruned model's).
    runtime
        Which of a bundle's forms to run (onnx, onnx-int8, openvino, ...); several with commas
        between them. Without it, its first.
    data
        A folder of images to answer; without it they are noise, which takes the same time. Where
        they are labelled, the metric of each form stands beside its times.
    device
        ssh://user@host: copy the bundles there, measure there with the prunedge that is installed
        there, bring the result back.
    out
        A run folder to note the result in, for its report.
    json
        Print the result as JSON.
    """
    from prunedge.cli.bench_scores import with_scores
    from prunedge.cli.bench_table import print_bench
    from prunedge.cli.console import print_json, progress, say
    from prunedge.cli.profile import print_layers, write_bench_profile
    from prunedge.edge import Candidate, open_bundle
    from prunedge.edge.bench.candidates import unlike
    from prunedge.edge.bench.measure import measure
    from prunedge.edge.bench.remote import bench_on
    from prunedge.errors import BundleError

    paths = [against, *bundles] if against else list(bundles)
    if not paths:
        raise BundleError(
            "no bundle to measure",
            remedy="prunedge bench BUNDLE, a folder that `prunedge export` made",
        )
    workload = numbers.workload()
    opened = [open_bundle(path) for path in paths]
    if device is not None and data is not None:
        raise BundleError(
            "--data and --device exclude each other",
            remedy="leave --data out: noise takes the same time",
        )

    for line in unlike(opened):
        say(f"mind: {line}")
    with _noted_in(out) as run:
        if device is None:
            targets: Sequence[str | None] = runtime or [None]
            candidates = [Candidate(bundle, target) for bundle in opened for target in targets]
            with progress("measuring", quiet=json) as advance:
                result = measure(candidates, workload, data, advance)
            if data is not None:
                result = with_scores(result, candidates, data)
        else:
            on_line = (lambda line: None) if json else say
            result = bench_on(device, opened, runtime or [], workload, on_line)
        if run is not None:
            run.write("bench.json", replace(result, profile=None).to_json())

    trace = None
    if result.profile:
        folder = Path("prunedge-profile") if out is None else out / "profile"
        trace = write_bench_profile(result.profile, folder)
    if json:
        print_json(result.to_json())
        return
    print_bench(result)
    if trace is not None:
        print_layers(result.profile or [], trace)


@contextmanager
def _noted_in(folder: Path | None) -> Iterator[Run | None]:
    """The run that the result is noted in, held for writing before anything is measured: the
    measuring is lost when the folder is no run, is in use, or needs what a device does not have.
    """
    if folder is None:
        yield None
        return
    from prunedge.runs.new import writing
    from prunedge.runs.run import open_run

    run = open_run(folder)
    with writing(folder):
        yield run
