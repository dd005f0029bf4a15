"""docs/criteria-measured.md from the lines that benchmarks/criteria.py kept and the audits beside them."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

HEAD = """# Criteria, measured

Written by `python benchmarks/criteria.py --write` from what it measured (`benchmarks/results/criteria/`). Its docstring has the commands.

- **masonry**: cracks in brick walls, 1,224 training, 142 validation and 417 test pictures, split by photographed place.
- **elpv**: defective solar cells, 1,836 training, 394 validation and 394 test pictures. Neighbouring cells may fall on both sides (the package
  doesn't say which module a cell is from), so its accuracies flatter; comparisons between criteria don't suffer.
- ResNet18 at 112 px, VGG16 with batch norm at 64 px, from random weights (their ImageNet weights were not to be had), SqueezeNet from ImageNet weights; trained by
  `prunedge train`; ResNet18 anew for every seed, VGG16 once, its seeds differ in the order of the pictures and what is drawn.
- bfloat16 autocast with channels last, one thread, CPU. Differences below about 2 points are noise: one standard error of 400 pictures.
- Every criterion ranked the starting network itself, without `prune --from` and `prunedge study`, which up to 0.1 took the start's scores for every
  criterion. A step took no more than half of a layer (`--cap 0.5`, 0.1's usual limit; 0.95 for the compensation).
"""


def page(folder: Path) -> str:
    """The whole page."""
    found = {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in sorted(folder.glob("*.jsonl"))}
    audits = {file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("audits/*/audit.json"))}
    parts = [HEAD, *_audits(audits)]
    for title, part, write in (
        ("Accuracy against MACs", "curves", _curves), ("Compensation right after removal", "compensation", _compensation),
        ("Aids, and other ways to compare layers", "aids", _aids), ("Controls", "controls", _controls),
    ):  # fmt: skip
        tables = [line for name, rows in found.items() for line in write(name, rows) if any(row["part"] == part for row in rows)]
        if tables:
            parts += [f"\n## {title}", *tables]
    return "\n".join(parts) + "\n"


def _audits(audits: dict[str, Row]) -> Iterable[str]:
    if not audits:
        return
    yield "## Agreement with the oracle\n"
    yield "Spearman's rank correlation of each criterion with the absolute change of the validation loss when a channel is zeroed at all its consumers,"
    yield "with 95 % intervals from resampled channels (`prunedge audit`). Published for VGG16 on Birds-200, all layers after L2 (Molchanov et al. 2017):"
    yield "Taylor 0.73, activation std 0.66, activation mean 0.64, mutual information 0.47, weight 0.33.\n"
    for name, audit in audits.items():
        yield f"### {name}\n"
        yield (
            f"{audit['channels']} channels, {audit['pictures']} validation pictures; a channel cost {audit['fraction_of_evaluation']:.2f} of an evaluation "
            f"of the whole network. {audit['recommendation']}\n"
        )
        yield "| criterion | per layer | all, raw | all, l2 | all, mean | all, rank | signed, l2 |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        signed = {one["criterion"]: one for one in audit["signed"]}
        ranked = sorted(audit["absolute"], key=lambda one: -(one["overall"]["l2"]["rho"] or -2))
        for one in ranked:
            cells = [
                one["per_layer"],
                *(one["overall"][how] for how in ("none", "l2", "mean", "rank")),
                signed[one["criterion"]]["overall"]["l2"],
            ]
            yield f"| {one['criterion']} | " + " | ".join(map(_rho, cells)) + " |"
        yield ""


def _rho(cell: Row) -> str:
    return "-" if cell["rho"] is None else f"{cell['rho']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


def _of(rows: list[Row], part: str) -> dict[str, list[list[Row]]]:
    """The measurements of each name, one list of rows for each seed that all names have: seeds differ in their split and are not mixed."""
    mine = [row for row in rows if row["part"] == part]
    by_name: dict[str, list[list[Row]]] = defaultdict(list)
    seeds = [{row["seed"] for row in mine if row["name"] == name} for name in {row["name"] for row in mine}]
    for row in mine:
        if row["seed"] in set.intersection(*seeds):
            by_name[row["name"]].append(row["rows"])
    return by_name


def _spread(values: Sequence[float]) -> str:
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def _level_table(name: str, several: dict[str, list[list[Row]]], what: str) -> Iterable[str]:
    levels = sorted({row["level"] for runs in several.values() for rows in runs for row in rows if row["level"] < 1}, reverse=True)
    if not levels:
        return
    unpruned = [rows[0][split] for split in ("val", "test") for runs in several.values() for rows in runs[:3] if rows[0]["level"] == 1]
    half = len(unpruned) // 2
    seeds = max(map(len, several.values()))
    yield (
        f"\n### {name}\n\nTest accuracy in % (validation in brackets) after fine-tuning at shares of the MACs, mean ± standard deviation over {seeds} seed(s). "
        f"Unpruned: {100 * statistics.mean(unpruned[half:]):.1f} ({100 * statistics.mean(unpruned[:half]):.1f}).\n"
    )
    yield f"| {what} | " + " | ".join(f"{level:.1%} of the MACs" for level in levels) + " | mean of the levels | parameters left | seeds |"
    yield "| --- | " + " | ".join("---" for _ in levels) + " | --- | --- | --- |"
    lines = []
    for key, runs in several.items():
        at = {level: [row for rows in runs for row in rows if row["level"] == level] for level in levels}
        if not all(at.values()):
            continue
        cells = [
            f"{_spread([r['test'] for r in at[level]])} ({100 * statistics.mean(r['val'] for r in at[level]):.1f})" for level in levels
        ]
        by_run = [statistics.mean(row["test"] for row in rows if row["level"] < 1) for rows in runs]
        by_val = statistics.mean(row["val"] for rows in runs for row in rows if row["level"] < 1)
        last = at[levels[-1]]
        params = statistics.mean(row["params"] for row in last) / runs[0][0]["params"] if runs[0][0]["level"] == 1 else None
        left = f"{params:.1%}" if params is not None else ""
        lines.append((-by_val, f"| {key} | " + " | ".join(cells) + f" | {_spread(by_run)} ({100 * by_val:.1f}) | {left} | {len(runs)} |"))
    yield from (line for _, line in sorted(lines))
    yield "\nIn the order of the mean validation accuracy, by which a criterion would be chosen."


def _curves(name: str, rows: list[Row]) -> Iterable[str]:
    return _level_table(name, _of(rows, "curves"), "criterion")


def _aids(name: str, rows: list[Row]) -> Iterable[str]:
    several = _of(rows, "aids")
    seeds = {row["seed"] for row in rows if row["part"] == "aids"}
    plain = [row["rows"] for row in rows if row["part"] == "curves" and row["name"] == "taylor" and row["seed"] in seeds]
    return _level_table(name, {"taylor, none of them": plain, **several}, "aid") if several and plain else []


def _controls(name: str, rows: list[Row]) -> Iterable[str]:
    several: dict[str, list[list[Row]]] = defaultdict(list)
    names = {
        "taylor": "taylor",
        "scratch": "the same shape from random weights, as many epochs",
        "random": "as many channels of each group at random",
    }
    for runs in _of(rows, "controls").values():
        for one in runs:
            for key, said in names.items():
                several[said].append([row for row in one if row["control"] == key])
    if several:
        first = next(row["rows"][0] for row in rows if row["part"] == "curves")
        several = {key: [[first, *one] for one in runs] for key, runs in several.items()}
    return _level_table(name, several, "network") if several else []


def _compensation(name: str, rows: list[Row]) -> Iterable[str]:
    runs = [rows for several in _of(rows, "compensation").values() for rows in several]
    if not runs:
        return
    shares = sorted({row["share"] for rows in runs for row in rows})
    yield f"\n### {name}\n\nTest accuracy in % (validation in brackets) right after `taylor` has removed a share of the channels; nothing is trained.\n"
    yield "| compensation | " + " | ".join(f"{share:.0%}" for share in shares) + " | seconds |"
    yield "| --- | " + " | ".join("---" for _ in shares) + " | --- |"
    for how in ("none", "mean", "lstsq"):
        at = {share: [row for rows in runs for row in rows if row["share"] == share and row["how"] == how] for share in shares}
        cells = [f"{_spread([r['test'] for r in found])} ({100 * statistics.mean(r['val'] for r in found):.1f})" for found in at.values()]
        seconds = statistics.median(row["seconds"] for found in at.values() for row in found)
        yield f"| {how} | " + " | ".join(cells) + f" | {seconds:.1f} |"
    macs = [statistics.mean(row["macs"] for rows in runs for row in rows if row["share"] == share) for share in shares]
    yield "| *share of the MACs left* | " + " | ".join(f"{one:.0%}" for one in macs) + " | |"
