"""What is printed while a run prunes: a line for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunedge.cli.console import Advance
    from prunedge.pruning.steps import Step
    from prunedge.runs.callbacks import Callbacks
    from prunedge.tasks import Metric


def callbacks(metric: Metric, advance: Advance, quiet: bool) -> Callbacks:
    """Tell the console of batches and of each step that is kept."""
    from prunedge.cli.console import say
    from prunedge.runs.callbacks import Callbacks
    from prunedge.utils.wording import amount, counted

    def on_step(step: Step) -> None:
        if quiet:
            return
        latency = f"{step.latency_ms:.3g} ms on the device, " if step.latency_ms else ""
        after = metric.text(step.metric_after)
        if step.index == 0:  # nothing was removed, and nothing fine-tuned
            say(
                f"step 0: the model to begin with, {amount(step.macs)} MACs, "
                f"{latency}validation {after}"
            )
            return
        title = f"step {step.number}: {step.fraction_removed:.1%} of the channels removed"
        if step.is_polish:
            epochs = counted(step.epochs, "epoch")
            title = f"polish: step {step.number} fine-tuned for {epochs} more"
        rounds = f" {counted(step.rounds, 'time')}" if step.rounds > 1 else ""
        verdict = f"; {step.verdict}" if step.verdict else ""
        say(
            f"{title}, {amount(step.macs)} MACs, {latency}validation "
            f"{metric.text(step.metric_before)} -> {after} after fine-tuning{rounds}{verdict}"
        )

    return Callbacks(progress=advance, on_step=on_step, on_line=None if quiet else say)
