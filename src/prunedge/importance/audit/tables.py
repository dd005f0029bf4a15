"""The audit's tables, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import torch

from prunedge.importance import Agreement, Scores, Truth
from prunedge.importance.audit.result import Audit


def channels_table(truth: Truth, scores: Sequence[Scores]) -> str:
    """A line for each channel that was measured: the oracle's change, and each criterion's score.

    A criterion that does not judge the channel's group has an empty cell.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["group", "channel", "change", *(criterion.criterion for criterion in scores)])
    for group, change in truth.changes.items():
        for channel in (~torch.isnan(change)).nonzero().flatten().tolist():
            cells: list[float | str] = []
            for criterion in scores:
                is_judged = group in criterion.values
                cells.append(float(criterion.values[group][channel]) if is_judged else "")
            table.writerow([group, channel, float(change[channel]), *cells])
    return text.getvalue()


def correlations_table(audit: Audit) -> str:
    """A line for each correlation: per layer, over all channels, and in each layer."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["criterion", "oracle", "scope", "normalise", "rho", "low", "high", "channels"])
    for agreement in audit.absolute:
        table.writerows(_correlations(agreement, "absolute"))
    for agreement in audit.signed:
        table.writerows(_correlations(agreement, "signed"))
    return text.getvalue()


def _correlations(agreement: Agreement, oracle: str) -> list[list[object]]:
    criterion = agreement.criterion
    channels = agreement.channels
    per_layer = vars(agreement.per_layer).values()
    lines: list[list[object]] = [[criterion, oracle, "per layer", "", *per_layer, channels]]
    for normalisation, correlation in agreement.overall.items():
        numbers = vars(correlation).values()
        lines.append([criterion, oracle, "all", normalisation, *numbers, channels])
    for layer, rho in agreement.layers.items():
        lines.append([criterion, oracle, layer, "", rho, "", "", ""])
    return lines
