"""Going on with a run under other orders: which of them may change once it has begun, and what that
does to what it has done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prunedge import data as images
from prunedge.config import RunConfig, asked, settings
from prunedge.errors import PrunedgeError, RunError
from prunedge.pruning.from_config import confidence_of, policy_of, refuse_wrong_metric
from prunedge.pruning.loop import NOTHING_LEFT
from prunedge.pruning.policy import GIVEN_UP, Continue
from prunedge.pruning.polish import to_polish
from prunedge.pruning.steps import Step, removals
from prunedge.pruning.trainer import Judgement
from prunedge.runs.images import refuse_gone
from prunedge.runs.new import write_config
from prunedge.runs.run import EARLIER, RESUMED, Run, open_run
from prunedge.utils.advice import command, flag, option
from prunedge.utils.distributed import broadcast_object, rank_zero_only
from prunedge.utils.systems import replace
from prunedge.utils.wording import counted

# What decides when a run ends, and where its images lie. Everything else has shaped its models
# already.
RULE_KEYS = (
    *(key for key in asked() if settings()[key].section == "stop"),
    "extra_rounds",
    "polish",
)
# By these every step is judged anew.
JUDGING = ("max_drop", "confidence")
# What the polish goes by, when the search has ended.
POLISHING = ("polish", "max_drop")
PLACES = ("data", "masks")
CHANGEABLE = {"prune": (*PLACES, *RULE_KEYS), "train": PLACES}
# What was measured of the model that was the result until then.
RESULTS = (
    "test.json",
    "stop.json",
    "baselines.json",
    "baselines",
    "times.json",
    "bench.json",
    "bundle",
)

# The lists of test.json whose images are named by their path.
SHOWN = {"mistakes", "wrong", "borderline"}

Say = Callable[[str], None]


def changes_of(run: Run, given: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """Those of the `given` values of a config that differ from the run's; RunError that names all
    that can't change any more.
    """
    begun = run.config.flat()
    values = {key: _as_files_have_it(run.config, key, value) for key, value in given.items()}
    different = {key: value for key, value in values.items() if value != begun[key]}
    changeable = RULE_KEYS if run.config.has_own_trainer else CHANGEABLE[verb]
    name = option if run.config.has_own_trainer else partial(flag, verb=verb)
    fixed = [name(key) for key in different if key not in changeable]
    if fixed:
        remedy = "start a new run in another folder"
        if set(different) <= {"operate", "costs"}:
            remedy = f"{command('export', run.path, '--operate', 'RULE')} chooses another threshold"
        elif verb == "prune" and run.steps() and not run.config.has_own_trainer:
            remedy = f"start a new run with {command('prune', '--from', run.path)}"
        raise RunError(
            f"{', '.join(fixed)} can't change in a run that has begun",
            where=run.path,
            remedy=remedy,
        )
    return different


def _as_files_have_it(config: RunConfig, key: str, value: Any) -> Any:
    """A given value as `config.toml` would have it: a size may come as `"64x64"` or a Size."""
    try:
        return config.with_values(**{key: value}).flat()[key]
    except PrunedgeError:
        return value  # it differs in any case; `change` says what is wrong with it


def change(run: Run, changes: Mapping[str, Any], say: Say) -> Run:
    """Give a run these other values of its config, and say so.

    A run whose search has ended and that these let go on is made ready for it: what was measured of
    its result is put aside. RunError where other images lie in the new place, where the changed
    rule speaks against what the run has done, or where there is nothing left that a value could
    change: the run's settings stay those that made it.
    """
    begun = run.config.flat()
    config = RunConfig.make(str(run.path), **{**begun, **changes})
    if not config.has_own_trainer:
        refuse_wrong_metric(config)
    steps = run.steps()
    if steps and steps[0].only_answer is not None and set(changes) & set(RULE_KEYS):
        # Nothing in it can be pruned under any rule: whoever goes on refuses it, and says so.
        return run
    needs_images = bool({*PLACES, *JUDGING} & set(changes)) and not config.has_own_trainer
    data = _loaded(run, config) if needs_images else None
    sources = [sample.source for sample in data.val.samples] if data is not None else []
    if steps:
        _agrees(run, config, changes, sources)
        if _is_looser(run.config, config, run.first()):
            config = config.with_values(judged_from=len(steps))

    searches, polishes = _left_to_do(run, config)
    if not searches:
        _refuse_idle(run, config, set(changes) & set(RULE_KEYS), polishes=polishes)
    goes_on = searches or polishes
    if goes_on and data is None and not config.has_own_trainer:
        refuse_gone(config, run.verb(), "DATA", "--resume", run.path)  # before anything is noted
    record = {key: [begun[key], value] for key, value in changes.items()}
    was_tested = run.test() is not None
    is_over = was_tested or run.stopped() is not None
    puts_aside = is_over and goes_on and bool(set(changes) & set(RULE_KEYS))
    _apply(run, config, record, puts_aside=puts_aside, after=len(steps) - 1)
    for key, (old, new) in record.items():
        written = settings()[key].written
        say(f"{key.replace('_', ' ')}: {written(new)} instead of {written(old)}")
    if goes_on and was_tested:
        say(
            "the run goes on from its last good step; its test split has been looked at "
            "before, and the new result will say so"
        )
    return open_run(run.path)


def _left_to_do(run: Run, config: RunConfig) -> tuple[bool, bool]:
    """Whether the search goes on under this config, and whether a model is left to be polished."""
    steps = run.steps()
    if not steps or run.verb() != "prune":
        return True, True
    move = policy_of(config).next_action(steps, run.first())
    searches = isinstance(move, Continue) and not _is_exhausted(run)
    # A looser rule counts no step that was taken back before it.
    if (run.stopped() or "").startswith(GIVEN_UP) and config.stop.judged_from < len(steps):
        searches = False
    # Before it has ended by itself, even what ends it at once is still to be found.
    searches = searches or (run.stopped() is None and run.test() is None)
    epochs = config.recover.polish
    return searches, bool(epochs) and to_polish(steps, epochs) is not None


def _refuse_idle(run: Run, config: RunConfig, keys: Collection[str], *, polishes: bool) -> None:
    """RunError where these settings can't change anything any more, since the run has ended."""
    idle = set(keys) - set(POLISHING) if polishes else set(keys)
    if not idle:
        return
    move = policy_of(config).next_action(run.steps(), run.first())
    ended = run.stopped() or ""
    if not isinstance(move, Continue) and move.reason != ended:
        ended = f"{ended}; by these it would have: {move.reason}" if ended else move.reason
    names = [option(key) for key in RULE_KEYS if key in idle]
    remedy = _new_run(run)
    if not _is_exhausted(run):
        remedy = f"change what ended it as well, or {remedy}"
    raise RunError(
        f"{', '.join(names)} would change nothing any more: the run has ended ({ended})",
        where=run.path,
        remedy=remedy,
    )


def note_computing(
    run: Run, threads: int, processes: int, accelerator: str | None = None
) -> list[str]:
    """Note in the run that it goes on with other threads or processes than before; gives what is to
    be said.

    So it is with another `accelerator`, the GPU's name, or None for the processor.
    """
    began = run.engine()
    assert began is not None  # it is written before anything is computed
    # As the first process finds them: it may have noted the change before another looks.
    noted = broadcast_object([entry["changes"] for entry in run.resumptions()])
    lines, record = [], {}
    for name, now in (("threads", threads), ("processes", processes)):
        first = began[name]
        before = [first, *(changes[name][1] for changes in noted if name in changes)][-1]
        if now != first:
            lines.append(
                f"this run began with {first} {name}; with {now} the result may differ: "
                "another number gives other weights"
            )
        if now != before:
            record[name] = [before, now]
    if began["accelerator"] != accelerator:
        before_it, here = (name or "the processor" for name in (began["accelerator"], accelerator))
        lines.append(
            f"this run began on {before_it}; on {here} the result may differ: another "
            "device gives other weights"
        )
    if record:
        _note(run, record, after=len(run.steps()) - 1)
    return lines


def _loaded(run: Run, config: RunConfig) -> images.Dataset:
    data = images.load(config.data.path, **config.image_settings())
    began = run.engine()
    if began is not None and began["fingerprint"] != data.fingerprint:
        what = f"the images in {config.data.path} are not those that this run began with"
        raise RunError(
            what, where=run.path, remedy="name the place where those lie now, or start a new run"
        )
    return data


def _agrees(
    run: Run, config: RunConfig, changes: Mapping[str, Any], sources: Sequence[str | None]
) -> None:
    """RunError where the changed rule speaks against what the run has done."""
    remedy = f"{_new_run(run)}, which may take back what this one has kept"
    done = len(removals(run.steps())) - 1
    if (
        config.stop.max_steps is not None
        and "max_steps" in changes
        and config.stop.max_steps < done
    ):
        already = counted(done, "step is", "steps are")
        what = f"{option('max_steps', config.stop.max_steps)}: {already} done already"
        raise RunError(what, where=run.path, remedy="give more, or none")
    if not set(JUDGING) & set(changes):
        return
    for step in run.steps()[1:]:
        verdict = policy_of(config).accepts(run.first(), Judgement.of_step(step), sources)
        if step.accepted > verdict.accepted or step.keeps_rule > verdict.keeps_rule:
            raise RunError(
                f"{step.name}, which this run has kept, breaks the changed rule ({verdict.reason})",
                where=run.path,
                remedy=remedy,
            )


def _new_run(run: Run) -> str:
    """What to do where a run itself can't go on as it is asked to."""
    if run.config.has_own_trainer:
        return "start a new run in another folder"
    return f"start a new run with {command('prune', '--from', run.path)}"


def _is_looser(begun: RunConfig, now: RunConfig, first: Step) -> bool:
    """Whether what was taken back may be allowed now: then the halvings that it led to count no
    more. `first` is the unpruned model.
    """
    if policy_of(now).allowed(first) > policy_of(begun).allowed(first):
        return True
    if now.recover.extra_rounds > begun.recover.extra_rounds:
        return True
    return (confidence_of(now) or 0.5) > (confidence_of(begun) or 0.5)


def _is_exhausted(run: Run) -> bool:
    """Whether the run ended since nothing could be removed any more, which no rule changes."""
    return (run.stopped() or "").startswith(NOTHING_LEFT)


@rank_zero_only
def _apply(
    run: Run, config: RunConfig, record: Mapping[str, Any], *, puts_aside: bool, after: int
) -> None:
    # The config comes last: cut off before, the run is as it was, and is tested again as it was.
    if puts_aside:
        number = 1 + len(list((run.path / EARLIER).glob("*")))
        folder = run.path / EARLIER / str(number)
        folder.mkdir(parents=True)
        for name in RESULTS:
            if (run.path / name).exists():
                replace(run.path / name, folder / name)
    if "data" in record and (test := run.test()) is not None:
        moved = {}
        for name in SHOWN & test.keys():
            moved[name] = [_moved(image, *record["data"]) for image in test[name]]
        run.write("test.json", {**test, **moved})
    entries = [*run.resumptions(), {"after_step": after, "changes": dict(record)}]
    run.write(RESUMED, entries)
    write_config(run, config)


@rank_zero_only
def _note(run: Run, record: Mapping[str, Any], *, after: int) -> None:
    run.write(RESUMED, [*run.resumptions(), {"after_step": after, "changes": dict(record)}])


def _moved(image: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """What is recorded of an image, in its new place where the old one says where that is."""
    was, now = (
        Path(place).parent if place.endswith(".csv") else Path(place) for place in (old, new)
    )
    path = Path(image["path"])
    return {
        **image,
        "path": str(now / path.relative_to(was)) if path.is_relative_to(was) else image["path"],
    }
