"""Whether a step that was read back can be one of its run."""

from __future__ import annotations

from prunedge.config import RunConfig
from prunedge.pruning.steps import Step
from prunedge.runs.task import task_of
from prunedge.tasks import unpacked
from prunedge.utils.records import require


def require_step(step: Step, config: RunConfig, first: Step | None = None) -> None:
    """Raise ValueError where a step names an answer that there is not, a group without a reason, or
    other answers than it counts.

    `first` is the history's, beside which it stands: step 0 is always accepted, and all are judged
    by the same images.
    """
    if (step.latency_ms is None) != (config.device.address is None):
        raise ValueError(f"step {step.index} was timed on another device than the run's")
    answers = task_of(config).answers if config.data.classes else None
    for answer in (step.majority_answer, step.only_answer):
        if answers is not None and answer is not None and answer >= answers:
            raise ValueError(f"step {step.index} names answer {answer} of {answers}")
    for group in step.frozen:
        require(dict[str, str], group)
        if not {"name", "reason"} <= group.keys():
            raise ValueError(f"step {step.index} has a frozen group without a name or a reason")
    images = step.correct.partition(":")[0]
    if step.correct and len(unpacked(step.correct)) != int(images):
        raise ValueError(f"step {step.index} has other answers than it counts")

    if step.keeps_rule and not step.accepted:
        raise ValueError(f"step {step.index} keeps the rule and was taken back")

    if first is None:
        return
    if (step.index > 0) != (step.start is not None):
        raise ValueError(f"step {step.index} doesn't say from which step it was made")
    if step.start is not None and step.start >= step.index:
        raise ValueError(f"step {step.index} was made from step {step.start}")
    if not (first.accepted and first.keeps_rule):
        raise ValueError("step 0 is not accepted")
    if images != first.correct.partition(":")[0]:
        raise ValueError(f"step {step.index} was judged by another number of images than step 0")
    if step.original.keys() != first.original.keys():
        raise ValueError(f"step {step.index} is of another model than step 0")
