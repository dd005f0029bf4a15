"""The run folder: config, history, checkpoints and what was measured. Every write is atomic,
nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from prunedge.config import RunConfig
from prunedge.errors import RunError
from prunedge.graph.plan import Plan
from prunedge.pruning.policy import Finished
from prunedge.pruning.polish import to_polish
from prunedge.pruning.prune_with import GIVEN
from prunedge.pruning.steps import Iteration, State, Step, handed_over, last_accepted, removals
from prunedge.runs import run_models, step_files, summary
from prunedge.runs.chain import FIRST, RECORD, Chain, Reference
from prunedge.runs.completeness import refuse_incomplete
from prunedge.runs.history import HistoryLine, read_history, write_history
from prunedge.runs.records import KINDS
from prunedge.runs.step_record import require_step
from prunedge.utils import checksums
from prunedge.utils.advice import command, quoted
from prunedge.utils.arguments import require_path
from prunedge.utils.distributed import rank_zero_only
from prunedge.utils.files import write_text
from prunedge.utils.filetypes import instead, is_bundle
from prunedge.utils.records import require
from prunedge.utils.signs import CONFIG, sign_of
from prunedge.utils.tracing import traced

# What changed on the way, and what was measured before that.
RESUMED = "resumed.json"
EARLIER = "earlier"
# Lines about what can't be known of the images that taught the model which the run starts from.
SEEN = "seen.json"
# The error that the last attempt ended in.
FAILED = "failed.json"
# What can be had again once it is deleted, and how; all else is known to the run's files alone.
REPEATED = {
    "test.json": "--resume measures it again",
    "stop.json": "--resume finds out again",
    "times.json": "only the times of the small networks are lost",
    "bench.json": "`prunedge bench` writes it again",
    "learning.json": "only the learning curves are lost",
    "data.json": "--resume counts the images again",
    FAILED: "it only says how the last attempt ended",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run folder. `config` is what it was asked to do.

    `sign` stands for this run in the checksums of its files, so that a file of another run is told
    from its own. `template` is the unpruned model of a training of the user's own, which no name
    can make again; None where one can.
    """

    path: Path
    config: RunConfig
    sign: str
    template: nn.Module | None = field(default=None, repr=False, compare=False)

    # Its JSON files.

    def read(self, name: str) -> Any:
        """A JSON file of the run; None when it isn't there."""
        file = self.path / name
        if not file.exists():
            return None
        try:
            record = checksums.read(file, self.about(name))
            if name in KINDS:
                require(KINDS[name], record)
        except (ValueError, RecursionError, TypeError) as error:
            raise self.damaged(name, error) from None
        return record

    def read_as(self, name: str, make: Callable[[Any], T]) -> T | None:
        """What `make` makes of a JSON file of the run; None when it isn't there, RunError when it
        holds something else.
        """
        record = self.read(name)
        if record is None:
            return None
        try:
            return make(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise self.damaged(name, error) from None

    @rank_zero_only
    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically, with its checksum."""
        sealed = checksums.sealed(value, self.about(name))
        write_text(self.path / name, json.dumps(sealed, indent=1))

    def about(self, name: str) -> str:
        """What the checksum of a file is about, beside what the file holds."""
        # Where it lies is not its own affair: a result that is put aside stays what it is.
        return f"{self.sign} {Path(name).name}"

    def missing(self, name: str) -> RunError:
        """The error about a file of the run that isn't there."""
        return RunError(
            "a file of the run is missing",
            where=self.path / name,
            remedy="bring it back from a copy, or begin the run anew",
        )

    def damaged(self, name: str, error: Exception) -> RunError:
        """The error about a JSON file of the run that holds something else."""
        why = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        again = f"delete it: {REPEATED[name]}" if name in REPEATED else "begin the run anew"
        return RunError(
            f"damaged, or of another run: {why}",
            where=self.path / name,
            remedy=f"bring it back from a copy, or {again}",
        )

    # How it was made.

    def environment(self) -> dict[str, Any]:
        """What the run was made by and on: the verb, the versions of packages, the machine."""
        record = self.read("environment.json")
        if record is None:
            raise self.missing("environment.json")
        return dict(record)

    def verb(self) -> str:
        """What made the run, `train` or `prune`."""
        return str(self.environment()["verb"])

    def how_to_go_on(self) -> str:
        """What goes on with the run: a command, or a call where functions came from Python."""
        if self.config.trainer.name == GIVEN:
            return f"pe.prune(model, example, out={str(self.path)!r}, ...)"
        return command(self.verb(), "--resume", self.path)

    def engine(self) -> dict[str, Any] | None:
        """What computes the run, and the images that it began with; None before it has begun."""
        return self.read("engine.json")

    def of_images(self, engine: Mapping[str, Any]) -> Run:
        """The run with what only the images could tell: their classes, scales and fingerprint,
        and the range of deep greys.
        """
        config = self.config.with_values(
            classes=engine["classes"],
            scales=engine.get("scales", []),
            data_fingerprint=engine["fingerprint"],
            range=engine.get("range") or self.config.data.range,
        )
        return replace(self, config=config)

    def resumptions(self) -> list[dict[str, Any]]:
        """What changed when the run was gone on with: after which step, and each key with its old
        and new value.
        """
        return self.read(RESUMED) or []

    def chain(self) -> Chain | None:
        """Where the run comes from; None where it trained its model itself, or has not begun
        yet.
        """
        chain = self.read_as(RECORD, Chain.from_json)
        if chain is not None and chain.first is not None:
            try:
                require_step(chain.first, self.config)
            except ValueError as error:
                raise self.damaged(RECORD, error) from None
        return chain

    # Its steps.

    def steps(self) -> list[Step]:
        """The history: step 0 is the model that pruning starts from; empty before that is
        trained.
        """
        return [line.step for line in read_history(self)]

    def name_of_step(self, index: int) -> str:
        """What a step is called in a sentence; before the first, what is to be step 0."""
        steps = self.steps()
        return steps[index].name if 0 <= index < len(steps) else f"step {max(0, index)}"

    def step_numbered(self, number: int) -> Step:
        """The removal that users see under this number, 0 the model to begin with; RunError where
        there is none.
        """
        for step in removals(self.steps()):
            if step.number == number:
                return step
        raise step_files.without_model(self, f"step {number}")

    def best(self) -> Step:
        """The last step that keeps the rule, the run's result.

        RunError before the unpruned model is trained.
        """
        steps = self.steps()
        if not steps:
            failure = self.failure()
            if failure is None:
                raise RunError("no model yet", where=self.path, remedy=self.how_to_go_on())
            raise RunError(
                f"no model yet, it ended in an error: {failure}",
                where=self.path,
                remedy=f"begin anew elsewhere, or mend that and go on: {self.how_to_go_on()}",
            )
        return handed_over(steps)

    def first(self) -> Step:
        """The first, unpruned model of the chain on this run's validation split: what the rule
        and every ratio refer to.
        """
        chain = self.chain()
        return self.steps()[0] if chain is None or chain.first is None else chain.first

    def references(self) -> list[Reference]:
        """What the result is compared with: the first model, and the one that the run starts from
        where that is another.
        """
        chain = self.chain()
        start = self.steps()[0]
        if chain is None:
            return [Reference("the unpruned model", start, "baseline")]
        if chain.first is None:
            return [Reference(f"the unpruned model ({chain.links[0]})", start, "baseline")]
        return [
            Reference(f"the first model ({chain.links[0]})", chain.first, "baseline"),
            Reference(f"the start ({chain.links[-1]})", start, "start"),
        ]

    @traced("keep")
    @rank_zero_only
    def commit(self, iteration: Iteration) -> None:
        """Keep an iteration: its state first (if the step was accepted), then its line in the
        history.
        """
        step = iteration.step
        before = read_history(self)
        files = step_files.write_checkpoint(self, iteration) if step.accepted else {}
        write_history(self, [*before, HistoryLine(step, files)])
        if step.accepted and step.index and not step.is_polish:
            # The others keep their model alone.
            last = last_accepted([line.step for line in before])
            step_files.forget_state(self, last.index)

    def finish(self, stop: Finished) -> None:
        """Note why the loop ended."""
        self.write("stop.json", {"reason": stop.reason, "keep": stop.keep})

    def stopped(self) -> str | None:
        """Why the loop ended; None where it has not."""
        record = self.read("stop.json")
        return None if record is None else str(record["reason"])

    def failure(self) -> str | None:
        """The error that the last attempt ended in; None where it ended otherwise, or goes on."""
        record = self.read(FAILED)
        return None if record is None else str(record["error"])

    def has_ended(self) -> bool:
        """Whether nothing is left to do: the result was measured on the test split, or there is
        nothing to prune in what was trained.
        """
        if self.test() is not None:
            return True
        steps = self.steps()
        if self.config.has_own_trainer:  # of whose test data nobody knows
            if self.stopped() is None:
                return False
            epochs = self.config.recover.polish
            return not epochs or to_polish(steps, epochs) is None
        return bool(steps) and (self.verb() == "train" or steps[0].only_answer is not None)

    def summary(self) -> dict[str, Any]:
        """What `prunedge show --json` prints."""
        return summary.summary_of(self)

    def computed_with(self) -> str:
        """What the weights depend on beside the config, in a sentence; empty before the run has
        begun.
        """
        return summary.computed_with(self)

    # Its models.

    def load(self, step: int | None = None, device: str = "cpu") -> nn.Module:
        """The model after the step at a place in the history, its `index` (None: the best; 0:
        unpruned), in evaluation mode.
        """
        return self.state(self.best().index if step is None else step).model.to(device).eval()

    def load_first(self, device: str = "cpu") -> nn.Module:
        """The first, unpruned model of the chain, in evaluation mode."""
        if not self.first_file().is_file():
            return self.load(0, device)
        return run_models.restored(self, run_models.checked_first_file(self)).to(device).eval()

    @traced("load model")
    def state(self, step: int) -> State:
        """Everything that was kept of an accepted step."""
        return run_models.read_state(self, step)

    def plan(self, step: int) -> Plan:
        """What led from the first, unpruned model to that of an accepted step."""
        return step_files.read_plan(self, step)

    def model_file(self, step: int) -> Path:
        """The weights of an accepted step, which are those that were written; RunError where they
        are not.
        """
        return step_files.needed(self, step, step_files.MODEL)

    def first_file(self) -> Path:
        """The weights of the first model of the chain, where the run starts from one that was
        pruned before.
        """
        return self.path / FIRST / step_files.MODEL

    # Its result.

    def test(self) -> dict[str, Any] | None:
        """The test split's metrics of the first, unpruned model (`baseline`) and the best; None
        before the run's end.

        Where the run starts from a model that was pruned before, `start` has that one's.
        """
        record = self.read("test.json")
        chain = self.chain()
        has_start = chain is not None and chain.first is not None
        if record is not None and has_start and record.get("start") is None:
            raise self.damaged("test.json", ValueError("start: there are no metrics of the start"))
        return record

    def looks_before(self) -> int:
        """How often the test split had been looked at before the run went on to its present
        result.
        """
        return len(list((self.path / EARLIER).glob("*/test.json")))


def open_run(path: Path | str) -> Run:
    """The run in a folder; RunError when there is none, or one of another format."""
    require_path("path", path)
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        why, remedy = instead(folder, CONFIG, "name the folder that --out made")
        if is_bundle(folder):
            remedy = (
                f"name the run that it was exported from; {remedy} measures the bundle, and "
                f"--weights {quoted(folder)} begins with its model"
            )
        raise RunError(f"not a run folder ({why})", where=folder, remedy=remedy)
    # Before its values are looked at: what a flipped bit makes of them is no other format.
    sign = sign_of(folder)
    run = Run(folder, RunConfig.from_toml(folder / CONFIG), sign)
    engine = run.engine()
    if engine is not None:
        run = run.of_images(engine)
    refuse_incomplete(run)
    return run
