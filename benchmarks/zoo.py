"""Prune every network of the zoo at random, compare each with its masked original, and do with it what a user would.

    python benchmarks/zoo.py                         all sets; writes benchmarks/results/zoo.jsonl and docs/coverage.md
    python benchmarks/zoo.py --set transformers      one set (zoo_models.SETS); may be repeated
    python benchmarks/zoo.py --only resnet18,swin_t  some networks; prints, writes nothing
    python benchmarks/zoo.py --workers 16            so many networks at a time, those first that took least time when last examined

Batch-norm statistics and all affine parameters are randomised first, so that nothing is trivially zero. Each network runs in a
process of its own with a limit on its time. What is asked of each is in zoo_checks.py.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from zoo_checks import examine
from zoo_models import SETS, build, names_of, randomise

__all__ = ["build", "in_process", "names_of", "randomise", "strip"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "zoo.jsonl", ROOT / "docs" / "coverage.md"
SECONDS = 600
USUAL_SECONDS = 10  # of a network that was never examined: between the cheap and the dear ones
CHECKS = ("second_round", "training_step", "pickle", "size")


def _work(work: Callable[..., dict[str, Any]], args: tuple[Any, ...], pipe: Any) -> None:
    logging.disable(logging.WARNING)
    faulthandler.enable()  # what kills the process without an exception leaves its trace on stderr
    try:
        pipe.send(work(*args))
    except BaseException as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"[:300], "trace": traceback.format_exc()[-1500:]})


def in_process(work: Callable[..., dict[str, Any]], args: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """What `work` gives in a process of its own, or {"error": ...} when it raises, dies, or isn't done after so many seconds."""
    return next(in_processes(work, [args], seconds, 1))[1]


def in_processes(
    work: Callable[..., dict[str, Any]], jobs: Iterable[tuple[Any, ...]], seconds: float, workers: int
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of each job and what `in_process` says of it, so many at a time, in the order in which they end."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(jobs), {}
    while waiting or running:
        while waiting and len(running) < workers:
            args = waiting.pop(0)
            here, there = context.Pipe(False)
            process = context.Process(target=_work, args=(work, args, there))
            process.start()
            there.close()
            running[here] = process, args, time.monotonic() + seconds
        soonest = min(limit for _, _, limit in running.values())
        ended = wait(list(running), max(0.0, soonest - time.monotonic()))
        late = [here for here, (_, _, limit) in running.items() if limit <= time.monotonic()]
        for here in dict.fromkeys([*ended, *late]):
            process, args, _ = running.pop(here)
            found = _answer(here, seconds)
            if found is None:
                process.join()
                found = {"error": f"the process died (exit code {process.exitcode})"}
            yield args, found
            process.kill()
            process.join()


def _answer(here: Connection, seconds: float) -> dict[str, Any] | None:
    """What a process has sent; None where it has ended without a word."""
    try:
        return here.recv() if here.poll() else {"error": f"not done after {seconds:g} s"}
    except EOFError:
        return None


def is_fine(answer: str) -> bool:
    """Whether a check was passed, or asks for what the network doesn't offer."""
    return answer in ("ok", "one size only") or answer.startswith("does not apply")


def faults(row: dict[str, Any]) -> list[str]:
    """Everything that went wrong with a network; groups that were left whole are faults."""
    if "error" in row:
        return [row["error"]]
    found = [f"{check}: {row[check]}" for check in (*CHECKS, "chosen") if not is_fine(row[check])]
    found += [f"{name}: {said}" for name, said in row["criteria"].items() if not is_fine(said)]
    for share, cut in row["cuts"].items():
        if not cut["equal"]:
            found.append(f"differs by {cut['difference']:.0e} at {share}")
        if cut["refused_count"]:
            found.append(f"left whole at {share}: {cut['refused_count']} groups, {next(iter(cut['refused'].items()))}")
    return found if row["cold"] else [*found, "traced cold, it has other groups"]


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    wrong = faults(row)
    if "error" in row:
        return f"{row['set']:12} {row['name']:34} ERROR {row['error']}"
    cut = row["cuts"]["0.3"]
    told = f"prunable {cut['prunable']:4.0%} trace {row['seconds_trace']:5.1f} s cut {cut['seconds']:5.1f} s"
    return f"{row['set']:12} {row['name']:34} {told}  {'ok' if not wrong else 'FAULTS ' + ' | '.join(wrong)}"


def page(rows: list[dict[str, Any]]) -> str:
    """docs/coverage.md."""
    lines = [
        "# Coverage",
        "",
        "Written by `python benchmarks/zoo.py`. Every network of torchvision, one small member of every timm family, and networks of",
        "transformers, ultralytics and segmentation-models-pytorch, with random weights and randomised statistics and affine parameters,",
        "lose 30 % and then (from the start) 70 % of the channels of every group, drawn at random.",
        "",
        "- `equal`: the pruned network's outputs are those of the original in which the same channels are masked, to 1e-4 of the largest.",
        "- `prunable`: the share of the parameters that lie in groups that could be cut and proven.",
        "- `criteria`: how many of the criteria ranked it, of those that apply to it (some read batch norms, or labels).",
        "- `again`, `trains`, `saved`, `other size`: the pruned network is pruned a second time, trained for a step, saved and loaded with",
        "  `torch.save`, and compared with the masked one on an image 32 pixels larger (`-`: the original takes one size only).",
        "- A fault is anything else than a yes, and also a group that was left whole. Each is named under the tables.",
        "",
        "Seconds are of one thread on a busy machine, orders of magnitude only.",
        "",
        "| set | networks examined | equal at 30 % and 70 % | every criterion | again | trains | saved | other size | median prunable | >= 90 % | no fault |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_total(kind, [row for row in rows if row["set"] == kind]) for kind in SETS if any(row["set"] == kind for row in rows)),
    ]
    for kind in SETS:
        fine = [row for row in rows if row["set"] == kind and "error" not in row]
        if fine:
            lines += ["", f"## {kind}", "", "| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
            lines += [_row(row) for row in fine]
    lines += ["", "## Faults", ""]
    wrong = [(row, faults(row)) for row in rows]
    lines += [f"- {row['set']} {row['name']}: {'; '.join(found)}" for row, found in wrong if found] or ["None."]
    return "\n".join(lines) + "\n"


def _total(kind: str, rows: list[dict[str, Any]]) -> str:
    fine = [row for row in rows if "error" not in row]
    equal = sum(all(cut["equal"] and not cut["refused_count"] for cut in row["cuts"].values()) for row in fine)
    criteria = sum(all(is_fine(said) for said in row["criteria"].values()) and row["chosen"] == "ok" for row in fine)
    counts = [sum(is_fine(row[check]) for row in fine) for check in CHECKS]
    shares = sorted(row["cuts"]["0.3"]["prunable"] for row in fine) or [0.0]
    cells = [
        kind, f"{len(rows)} of {len(list(names_of(kind)))}", equal, criteria, *counts, f"{shares[len(shares) // 2]:.0%}", sum(share >= 0.9 for share in shares),
        sum(not faults(row) for row in rows),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


COLUMNS = (
    "network", "prunable", "equal 30 %", "equal 70 %", "criteria", "again", "trains", "saved", "other size", "MACs after 70 %",
    "parameters after 70 %", "trace s", "frozen, and why",
)  # fmt: skip


def _row(row: dict[str, Any]) -> str:
    few, many = row["cuts"].values()
    name = row["name"] + (f" ({row['note']})" if row["note"] else "")
    usual = ("is the network's output", "consumes the picture or values that are no channels")
    frozen = "; ".join(f"{count}: {why}" for why, count in row["frozen"] if why not in usual)
    applying = [said for said in row["criteria"].values() if not said.startswith("does not apply")]
    checks = ["-" if row[check] == "one size only" else "yes" if row[check] == "ok" else "NO" for check in CHECKS]
    cells = [
        name, f"{few['prunable']:.0%}", *(f"{'yes' if cut['equal'] else 'NO'} ({cut['difference']:.0e})" for cut in (few, many)),
        f"{sum(said == 'ok' for said in applying)} of {len(applying)}", *checks,
        f"{many['macs'] / row['macs']:.0%}", f"{many['params'] / row['params']:.0%}", f"{row['seconds_trace']:.1f}", frozen,
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def main() -> int:
    """Examine, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, action="append")
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=1, help="networks at a time, of one thread each")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that a network may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    jobs = [
        (kind, name)
        for kind in args.set or SETS
        for name in (names_of(kind) if not (only and kind == "timm") else sorted(only))
        if not only or name in only
    ]
    if args.workers > 1:
        took = {(row["set"], row["name"]): _seconds(row) for row in _kept(RESULTS)}
        jobs.sort(key=lambda job: took.get(job, USUAL_SECONDS))
    rows = []
    for (kind, name), found in in_processes(examine, jobs, args.seconds, args.workers):
        rows.append({"set": kind, "name": name, **found})
        print(line(rows[-1]), flush=True)
        if not only:
            _write(args.out, rows)
    return 0


def _seconds(row: dict[str, Any]) -> float:
    """About how long a network took."""
    return SECONDS if "error" in row else row["seconds_trace"] + sum(cut["seconds"] for cut in row["cuts"].values())


def _kept(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in out.read_text().splitlines()] if out.exists() else []


def strip(value: Any) -> Any:
    """The same without tracebacks, which name paths of one machine."""
    if isinstance(value, dict):
        return {key: strip(one) for key, one in value.items() if not (key == "trace" and isinstance(one, str))}
    return [strip(one) for one in value] if isinstance(value, list) else value


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Put these rows in the place of older ones of the same networks, so that a run that is cut off keeps what it has."""
    keep = _kept(out)
    done = {(row["set"], row["name"]) for row in rows}
    rows = [row for row in keep if (row["set"], row["name"]) not in done] + rows
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(strip(row)) + "\n" for row in rows))
    if out == RESULTS:
        PAGE.write_text(page(rows))


if __name__ == "__main__":
    sys.exit(main())
