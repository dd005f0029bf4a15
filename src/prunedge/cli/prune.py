"""`prunedge prune`: the main job."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from prunedge.cli.new_run import config_to_prune, new_folder
from prunedge.cli.options import OTHER, Flag, TrustCode
from prunedge.cli.settings import BASIC, steered, with_settings
from prunedge.config import asked
from prunedge.utils.files import real_path


@with_settings(set(asked()) - {"data"})
def prune(
    data: Annotated[str | None, Parameter(group=BASIC)] = None,
    *,
    out: Annotated[Path | None, Parameter(group=BASIC)] = None,
    start: Annotated[Path | None, Parameter(name="--from", group=BASIC)] = None,
    trainer: Annotated[str | None, Parameter(group=BASIC)] = None,
    resume: Annotated[Path | None, Parameter(group=BASIC)] = None,
    profile: Annotated[Flag, Parameter(group=OTHER)] = False,
    trust_code: Annotated[TrustCode, Parameter(group=OTHER)] = False,
    json: Annotated[Flag, Parameter(group=OTHER)] = False,
    **values: Any,
) -> None:
    """Teach a model your images, then remove the channels that they don't need, as far as the rule
    allows.

    Each step ranks the channels, removes those that matter least for what they cost, fine-tunes and
    measures on validation data. A step that surely drops the metric by more than --max-drop
    below the unpruned model's is taken back, and the next goes half as far. The last model that
    keeps the rule by its own figure is polished, and is the result; it and the unpruned one are
    measured once on the test split at the end.

    Example: `prunedge prune cracks/ --model resnet18 --max-drop 3 --out runs/cracks`

    Parameters
    ----------
    data
        Class folders, a CSV manifest (path,label[,source][,split]), or shards: x.tar,
        'train-{000..012}.tar', a folder of them, or a URL. May be left out with --from.
    out
        The run folder to make; it must not hold anything yet.
    start
        A run folder (of `train` or `prune`) whose best model is the start, instead of --model. Its
        split is kept: one that has images among test or validation that taught this model is
        refused. Its images and its training stay as they are in that run; how it is pruned
        further is said here.
    trainer
        A training of your own instead of DATA and --model: package.module:object, imported from
        where the command runs. The object (or the function that gives it) has model, example, fit,
        evaluate, and as far as needed loss, batches, metric, higher_is_better: the arguments of
        `pe.prune`. Beside --resume: the one that goes on with the run, where it has no name yet.
    resume
        A run folder to go on with, from its last step; nothing else is needed. What ends a run
        (--max-steps, --max-drop, --confidence, --budget, --extra-rounds, --polish, --target-...)
        may be given anew, also to a run that has ended as long as it lets that go on, and DATA
        where the images were moved; whatever else differs from what the run began with is refused.
    profile
        Write where the time goes into the run (`profile/`): a table, also in the report, and a
        trace that opens in Perfetto. The result stays the same; on a GPU the run takes a little
        longer.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, tell
    from prunedge.cli.own_trainer import OwnJob, is_of_own_trainer, prune_own
    from prunedge.cli.profile import print_profile
    from prunedge.cli.pruning_lines import callbacks
    from prunedge.cli.resume import changes_to
    from prunedge.data.paths import absolute
    from prunedge.report.metric_text import metric_of
    from prunedge.report.text import pruned
    from prunedge.runs import execute
    from prunedge.runs.run import open_run
    from prunedge.utils import trust

    trust.trust_everything(trust_code)
    if data is not None:
        values["data"] = absolute(data)
    if "baseline" in values:
        values["baseline"] = list(dict.fromkeys(values["baseline"]))

    if trainer is not None or is_of_own_trainer(resume):
        job = OwnJob(trainer, resume, out, start)
        with _profiled(resume or out if profile else None), progress("pruning", quiet=json) as told:
            run = prune_own(job, steered(values), told, quiet=json)
    elif resume is not None:
        if start is not None:
            values["start"] = str(real_path(start))
        changes = changes_to(resume, out, values, "prune")
        metric = metric_of(open_run(resume).config)
        with _profiled(resume if profile else None), progress("pruning", quiet=json) as advance:
            run = execute.resume(resume, callbacks(metric, advance, json), changes)
    else:
        folder = new_folder(out)
        config = config_to_prune(start, steered(values))
        metric = metric_of(config)
        with _profiled(folder if profile else None), progress("pruning", quiet=json) as advance:
            run = execute.prune(config, folder, callbacks(metric, advance, json))

    if json:
        print_json(run.summary())
        return
    tell(pruned(run))
    if profile:
        print_profile(run.path)


def _profiled(run: Path | None) -> AbstractContextManager[Any]:
    from prunedge.runs.profile import profiled

    return nullcontext() if run is None else profiled(run)
