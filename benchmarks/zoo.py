"""Prune every network of torchvision and one of every timm family at random, and compare each with its masked original.

    python benchmarks/zoo.py                         all sets; writes benchmarks/results/zoo.jsonl and docs/coverage.md
    python benchmarks/zoo.py --set torchvision       one set: torchvision, segmentation, detection, video, timm
    python benchmarks/zoo.py --only resnet18,swin_t  some networks; prints, writes nothing

Batch-norm statistics and all affine parameters are randomised first, so that nothing is trivially zero. Each network runs in a
process of its own with a limit on its time.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "zoo.jsonl", ROOT / "docs" / "coverage.md"
SETS = ("torchvision", "segmentation", "detection", "video", "timm")
SHARES = (0.3, 0.7)
SECONDS = 300
# A forward pass of these does not fit the memory or the time at their own depth or picture; said so in the table.
SMALLER = {
    "vit_h_14": "depth 4", "vit_l_16": "depth 6", "vit_l_32": "depth 6", "regnet_y_128gf": "64 px", "convnext_large": "64 px",
    "efficientnet_v2_l": "96 px", "efficientnet_b7": "96 px",
}  # fmt: skip


def names_of(kind: str) -> list[str]:
    """The networks of a set."""
    import torchvision.models as tv

    if kind == "torchvision":
        return tv.list_models(module=tv)
    if kind in ("segmentation", "detection", "video"):
        return tv.list_models(module=getattr(tv, kind))
    import timm

    members = RESULTS.parent / "timm_members.json"
    found = json.loads(members.read_text()) if members.exists() else {}
    if found.get("timm") != timm.__version__:
        names = [name for module in timm.list_modules() if (name := _smallest(module)) is not None]
        found = {"timm": timm.__version__, "members": names}
        members.parent.mkdir(parents=True, exist_ok=True)
        members.write_text(json.dumps(found, indent=1))
    return found["members"]


def _smallest(module: str) -> str | None:
    """The member of a timm family with the fewest parameters, among the three whose names promise to be small."""
    import timm

    hints = ("test_", "femto", "atto", "pico", "nano", "xxs", "xxt", "xx", "tiny", "xs", "mini", "_t", "small", "_s", "18", "26", "base")
    found = timm.list_models(module=module)
    ranked = sorted(found, key=lambda name: next((i for i, hint in enumerate(hints) if hint in name), len(hints)))[:3]
    if ranked and ranked[0].startswith("test_"):
        return ranked[0]
    sizes = {}
    for name in ranked:
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
        except Exception:  # some networks compute with their weights while they are made
            sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
    return min(sizes, key=sizes.__getitem__) if sizes else None


def build(kind: str, name: str) -> tuple[nn.Module, Any]:
    """A network with random weights, and an example for it."""
    import torchvision.models as tv

    torch.manual_seed(0)
    if kind == "timm":
        import timm

        net = timm.create_model(name)
        size = net.default_cfg.get("test_input_size") or net.default_cfg["input_size"]
        return net, torch.randn(1, *net.default_cfg["input_size"] if net.default_cfg.get("fixed_input_size") else size)
    if kind == "detection":
        net = tv.get_model(name, weights=None, weights_backbone=None)
        return _Heads(net), torch.randn(1, 3, 320, 320) if "ssd" not in name else torch.randn(
            1, 3, 300 if "ssd300" in name else 320, 300 if "ssd300" in name else 320
        )
    if kind == "segmentation":
        auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
        return tv.get_model(name, weights=None, weights_backbone=None, **auxiliary), torch.randn(1, 3, 96, 96)
    if kind == "video":
        frames, size = (16, 224) if name.startswith(("mvit", "s3d")) else (8, 112)
        return tv.get_model(name, weights=None), torch.randn(1, 3, frames, size, size)
    return _classifier(name)


def _classifier(name: str) -> tuple[nn.Module, torch.Tensor]:
    import torchvision.models as tv

    note, size = SMALLER.get(name, ""), 224
    if note.startswith("depth"):
        from torchvision.models.vision_transformer import _vision_transformer

        patch, width, heads, mlp = {"vit_h_14": (14, 1280, 16, 5120), "vit_l_16": (16, 1024, 16, 4096), "vit_l_32": (32, 1024, 16, 4096)}[
            name
        ]
        return _vision_transformer(patch, int(note.split()[1]), heads, width, mlp, None, False), torch.randn(1, 3, 224, 224)
    if note:
        size = int(note.split()[0])
    elif name == "inception_v3":
        size = 299
    elif not name.startswith(("vit", "swin", "maxvit")):
        size = 128
    return tv.get_model(name, weights=None), torch.randn(1, 3, size, size)


class _Heads(nn.Module):
    """A detector's backbone, neck and heads, without the proposal logic between them."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        for part in ("head", "rpn", "roi_heads"):
            if hasattr(detector, part):
                setattr(self, part, getattr(detector, part))

    def forward(self, x: torch.Tensor) -> Any:
        """Every tensor that the heads make from the maps of the backbone."""
        features = self.backbone(x)
        maps = list(features.values()) if isinstance(features, dict) else [features]
        out: list[Any] = []
        if hasattr(self, "rpn"):
            out.append(self.rpn.head(maps))
            pooled = nn.functional.adaptive_avg_pool2d(maps[0], 7)
            out.append(self.roi_heads.box_predictor(self.roi_heads.box_head(pooled)))
            for name in ("mask", "keypoint"):
                head = getattr(self.roi_heads, f"{name}_head", None)
                if head is not None:
                    wide = nn.functional.adaptive_avg_pool2d(maps[0], 14)
                    out.append(getattr(self.roi_heads, f"{name}_predictor")(head(wide)))
            return out
        return self.head(maps)


def randomise(net: nn.Module) -> None:
    """Give every scale, shift and running statistic a value of its own, so that no channel is zero by chance of initialisation."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=generator) * 0.4 - 0.2)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        for name, parameter in net.named_parameters():
            flat = parameter.numel() == max(parameter.shape, default=1)
            zero = not bool(parameter.any())
            if flat:
                low = -0.3 if name.endswith("bias") or zero else 0.6
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * (0.6 if low < 0 else 0.8) + low)
            elif zero:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


def examine(kind: str, name: str) -> dict[str, Any]:
    """One row of the table."""
    from prunedge.graph import trace
    from prunedge.plan import random_plan
    from prunedge.surgery import TOLERANCE, operate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, example = build(kind, name)
    randomise(net)
    net.eval()
    with torch.no_grad():
        started = time.perf_counter()
        net(example)
        forward = time.perf_counter() - started
    started = time.perf_counter()
    graph = trace(net, example)
    row: dict[str, Any] = {
        "set": kind, "name": name, "note": SMALLER.get(name, ""), "seconds_forward": forward,
        "seconds_trace": time.perf_counter() - started, "groups": len(graph.groups), "channels": graph.channels,
        "prunable": graph.prunable_share(), "macs": graph.macs(), "params": graph.params(),
        "frozen": Counter(frozen.reason for frozen in graph.frozen).most_common(4), "cuts": {},
    }  # fmt: skip
    for share in SHARES:
        plan = random_plan(graph, share, torch.Generator().manual_seed(3))
        started = time.perf_counter()
        surgery = operate(net, graph, plan)
        after = trace(surgery.network, example) if surgery.plan.keep else graph
        row["cuts"][str(share)] = {
            "equal": surgery.difference <= TOLERANCE, "prunable": graph.prunable_share(surgery.refused), "difference": surgery.difference, "refused": dict(list(surgery.refused.items())[:4]),
            "refused_count": len(surgery.refused), "asked": len(plan.keep), "seconds": time.perf_counter() - started,
            "macs": after.macs(), "params": after.params(), "predicted": after.params() == graph.params(surgery.plan),
        }  # fmt: skip
    return row


def _work(work: Callable[..., dict[str, Any]], args: tuple[Any, ...], pipe: Any) -> None:
    logging.disable(logging.WARNING)
    try:
        pipe.send(work(*args))
    except BaseException as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"[:300], "trace": traceback.format_exc()[-1500:]})


def in_process(work: Callable[..., dict[str, Any]], args: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """What `work` gives in a process of its own, or {"error": ...} when it raises, dies, or isn't done after so many seconds."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(False)
    process = context.Process(target=_work, args=(work, args, there))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(seconds) else {"error": f"not done after {seconds:g} s"}
    except EOFError:
        found = {"error": "the process died (memory?)"}
    process.kill()
    process.join()
    return found


def attempt(kind: str, name: str) -> dict[str, Any]:
    """`examine` in a process of its own."""
    return {"set": kind, "name": name, **in_process(examine, (kind, name), SECONDS)}


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    if "error" in row:
        return f"{row['set']:12} {row['name']:34} ERROR {row['error']}"
    cuts = " ".join(
        f"{'equal' if c['equal'] else 'REFUSED ' + str(c['refused_count'])} {c['difference']:.0e}" for c in row["cuts"].values()
    )
    return (
        f"{row['set']:12} {row['name']:34} prunable {row['cuts']['0.3']['prunable']:4.0%} trace {row['seconds_trace']:5.1f} s cut {row['cuts']['0.3']['seconds']:5.1f} s  {cuts}  "
        f"{row['frozen'][0] if row['frozen'] else ''}"
    )


def page(rows: list[dict[str, Any]]) -> str:
    """docs/coverage.md."""
    lines = [
        "# Coverage",
        "",
        "Written by `python benchmarks/zoo.py`. Every network of torchvision and one small member of every timm family, with random weights and",
        "randomised statistics and affine parameters, loses 30 % and then (from the start) 70 % of the channels of every group, drawn at random.",
        "`equal`: the pruned network's outputs are those of the original in which the same channels are masked, to 1e-4 of the largest, float32.",
        "Groups that could not be proven stay whole (`left whole`), so that what comes out is equal; `prunable` is the share of the parameters that lie in",
        "groups that could be. Seconds are of one thread on a busy machine, orders of magnitude only.",
        "",
        "| set | networks | run | equal at 30 % and 70 % | median prunable | at least 90 % prunable |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in SETS:
        mine = [row for row in rows if row["set"] == kind]
        if mine:
            fine = [row for row in mine if "error" not in row]
            equal = sum(all(cut["equal"] for cut in row["cuts"].values()) for row in fine)
            shares = sorted(row["cuts"]["0.3"]["prunable"] for row in fine) or [0.0]
            wide = sum(share >= 0.9 for share in shares)
            lines.append(f"| {kind} | {len(mine)} | {len(fine)} | {equal} | {shares[len(shares) // 2]:.0%} | {wide} |")
    broken = [row for row in rows if "error" in row]
    if broken:
        lines += ["", "## Not examined", "", "| set | network | why |", "| --- | --- | --- |"]
        lines += [f"| {row['set']} | {row['name']} | {row['error'].replace('|', '/')} |" for row in broken]
    for kind in SETS:
        fine = [row for row in rows if row["set"] == kind and "error" not in row]
        if fine:
            lines += ["", f"## {kind}", ""]
            lines.append(
                "| network | prunable | equal 30 % | equal 70 % | MACs after 70 % | parameters after 70 % | trace s | left whole, and why | frozen, and why |"
            )
            lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |", *(_row(row) for row in fine)]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any]) -> str:
    few, many = row["cuts"].values()
    name = row["name"] + (f" ({row['note']})" if row["note"] else "")
    whole = f"{few['refused_count']}: {next(iter(few['refused'].values()))}" if few["refused"] else ""
    usual = ("is the network's output", "consumes the picture or values that are no channels")
    frozen = "; ".join(f"{count}: {why}" for why, count in row["frozen"] if why not in usual)
    cells = [
        name, f"{few['prunable']:.0%}", *(f"{'yes' if cut['equal'] else 'NO'} ({cut['difference']:.0e})" for cut in (few, many)),
        f"{many['macs'] / row['macs']:.0%}", f"{many['params'] / row['params']:.0%}", f"{row['seconds_trace']:.1f}", whole, frozen,
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def main() -> int:
    """Examine, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, action="append")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    rows = []
    for kind in args.set or SETS:
        for name in names_of(kind) if not (only and kind == "timm") else sorted(only):
            if only and name not in only:
                continue
            rows.append(attempt(kind, name))
            print(line(rows[-1]), flush=True)
            if not only:
                _write(args.out, rows)
    return 0


def strip(value: Any) -> Any:
    """The same without tracebacks, which name paths of one machine."""
    if isinstance(value, dict):
        return {key: strip(one) for key, one in value.items() if not (key == "trace" and isinstance(one, str))}
    return [strip(one) for one in value] if isinstance(value, list) else value


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Put these rows in the place of older ones of the same networks, so that a run that is cut off keeps what it has."""
    keep = [json.loads(text) for text in out.read_text().splitlines()] if out.exists() else []
    done = {(row["set"], row["name"]) for row in rows}
    rows = [row for row in keep if (row["set"], row["name"]) not in done] + rows
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(strip(row)) + "\n" for row in rows))
    if out == RESULTS:
        PAGE.write_text(page(rows))


if __name__ == "__main__":
    sys.exit(main())
