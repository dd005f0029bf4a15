"""Steps in words, which the command line and the pages share. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from prunedge.pruning.steps import Step, removals
from prunedge.utils.wording import counted

RESULT = "the result"


def name_of(step: Step) -> str:
    """What a step is called in a table."""
    return f"polish of {step.number}" if step.is_polish else str(step.number)


def place_of(step: Step, steps: Sequence[Step]) -> str:
    """Which of the `steps` it is: `step 3 of 5`, `step 3 of 5, polished`."""
    last = removals(steps)[-1].number
    polished = ", polished" if step.is_polish else ""
    return f"step {step.number} of {last}{polished}"


def became_of(step: Step, result: Step) -> str:
    """What became of a step, in a word or two; empty where it was simply kept."""
    if step == result:
        return RESULT
    if not step.accepted:
        return "taken back"
    return "" if step.keeps_rule else "beyond the rule"


def notes_on(steps: Sequence[Step]) -> list[str]:
    """What is to be said about steps beside their figures: what limited them, how often they were
    fine-tuned where that was more than once, and why they were not simply kept.
    """
    lines = []
    for step in steps:
        if step.limited:
            lines.append(f"{step.name}: {step.limited}")
        if step.rounds > 1:
            lines.append(
                f"{step.name} was fine-tuned {counted(step.rounds, 'time')}, for "
                f"{counted(step.epochs, 'epoch')} in all: it broke the rule at first"
            )
        if step.verdict:
            lines.append(f"{step.name} was {step.verdict}")
    return lines
