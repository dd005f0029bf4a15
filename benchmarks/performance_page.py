"""Write docs/performance.md and its plots from benchmarks/results.

python benchmarks/performance_page.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib
from common import spread, told

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "prunedge"  # the same figures give the same file
import matplotlib.pyplot as plt  # noqa: E402

RESULTS, DOCS = Path(__file__).parent / "results", Path(__file__).parent.parent / "docs"
FIGURES = DOCS / "performance"
WHOLE = ("resnet18", "vgg16_bn")
PARTS = {"trace": "trace", "plan": "plan", "surgery": "surgery with proof", "follow": "follow the graph"}


def main() -> None:
    """Read what is there, write the page."""
    FIGURES.mkdir(exist_ok=True)
    sections = (_whole, _ranking, _surgery, _throughput, _scale, _oracle, _inference, _gpu, _startup, _growth)
    text = "\n".join([_head(), *(section() for section in sections if _has(section)), _how()])
    (DOCS / "performance.md").write_text(text.rstrip() + "\n", encoding="utf-8")


def _has(section: Any) -> bool:
    """Whether what a section tells of was measured."""
    needs = {_throughput: "throughput_224", _whole: "whole_pruning_resnet18"}.get(section, section.__name__.lstrip("_"))
    return _read(needs) is not None


def _read(name: str) -> Any:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _head() -> str:
    about = next(found for found in map(_read, ("ranking", "surgery", "oracle")) if found)
    machine = about["machine"]
    kind = ", ".join([machine["vector"], *(["bfloat16 arithmetic"] if machine["bf16"] else []), "AMX" if machine["amx"] else "no AMX"])
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if name != "prunedge")
    return f"""# Performance

Every figure is a ratio of two measurements that took turns in one run: the median, and in brackets the lowest and the highest of the
rounds. `make bench` measures all of it anew and writes this page; `benchmarks/results/` holds the figures with the machine, the versions and the
commit of each.

Machine: {machine["processor"]}, {machine["cores"]} core{"s" if machine["cores"] > 1 else ""} used ({kind}), {"GPU " + machine["gpu"] if machine["gpu"] else "no GPU"}. {versions}.
"""


def _whole() -> str:
    lines = [
        "## The whole pruning",
        "",
        "From one trained network, on the same pictures changed in the same way (flips), with the same schedule and seeds, to the same MACs. (a) is Torch-Pruning 1.6.1's Taylor",
        "importance from ten batches, (b) ranks in a pass of its own over the training set; both train in plain float32 from a DataLoader, as",
        "Torch-Pruning's examples do. prunedge chose its precision itself and kept multiples of 16 channels. The aim is a third of the time.",
        "",
        "| network | what | seconds | test accuracy | prunedge's time through this | threads |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in WHOLE:
        found = _read(f"whole_pruning_{name}")
        if found is None:
            continue
        for rival, label in (("prunedge", "prunedge"), ("torch-pruning", "(a) Torch-Pruning"), ("own-pass", "(b) a pass of its own")):
            runs = [run[rival] for run in found["runs"]]
            answers = [run["test"] for run in runs]
            beside = told(found["ratios"][rival]) if rival in found["ratios"] else ""
            lines.append(
                f"| {name}, {found['size']} px | {label} | {statistics.median(run['seconds'] for run in runs):.0f} | "
                f"{statistics.mean(answers):.1%} ± {statistics.stdev(answers):.1%} | {beside} | {found['machine']['torch_threads']} |"
            )
        runs = [run["prunedge"] for run in found["runs"]]
        parts = {part: statistics.median(run["parts"][part] for run in runs) for part in runs[0]["parts"]}
        listed = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in parts.items())
        macs = " -> ".join(f"{one / 1e6:.0f}" for one in runs[0]["macs"])
        lines.append(
            f"| | where prunedge's time goes: {listed}; engine {runs[0]['engine']}; million MACs {macs} | | from {found['start']:.1%} | | |"
        )
    return "\n".join([*lines, ""])


def _ranking() -> str:
    found = _read("ranking")
    rows = [
        f"| {row['model']}, {row['size']} px | {told(row['time'], 3)} | {told(row['memory'], 3)} | {row['ms_a_picture']['plain']:.1f} |"
        for row in found["rows"]
    ]
    return _section(
        "Ranking while fine-tuning",
        "An epoch that gathers the Taylor scores through the same epoch without. Aims: 1.10 in time, 1.15 in the peak memory of the process.",
        ("network", "time", "memory", "plain, ms a picture"),
        rows,
    )


def _surgery() -> str:
    found = _read("surgery")
    rows = [
        f"| {row['network']}, {row['size']} px | {row['epoch_s']:.1f} | {row['followed']['seconds']:.3f} | "
        f"{_percent(row['followed']['of_an_epoch'])} | {row['traced anew']['seconds']:.3f} |"
        for row in found["rows"]
    ]
    return _section(
        "Surgery with its proof",
        f"A step's choice, cut, proof and graph beside one epoch of {found['pictures']:,} pictures (the aim: under 1 %; with the 50,000 of Wu et al. (2019), "
        "`examples/talk`, an epoch is 41 times as long). The graph is followed through the surgery where every operation treats any number of channels alike, "
        "and traced anew elsewhere; the tests hold both to be equal.",
        ("network", "epoch, s", "followed, s", "of an epoch", "traced anew, s"),
        rows,
    )


def _throughput() -> str:
    rows = [
        f"| resnet18, {row['size']} px, {row['macs'] / 1e6:.0f} million MACs | {row['what']} | {told(row['share_of_bare'])} | "
        f"{row['pictures_per_second']['prunedge']:.0f} |"
        for size in (224, 64)
        if (found := _read(f"throughput_{size}"))
        for row in found["rows"]
    ]
    return _section(
        "The pictures never wait",
        "Pictures a second of fine-tuning and of evaluation, through those of the bare network on tensors that lie in memory (the aim: 0.9).",
        ("network", "what", "share of the bare network's", "pictures/s"),
        rows,
    )


def _scale() -> str:
    found = _read("scale")
    rows = []
    for row in found["rows"]:
        rate, memory = (statistics.median(row[key]) for key in ("pictures_per_second", "in_memory_pictures_per_second"))
        beyond = row["beyond_the_network_mb"]
        rows.append(
            f"| {row['pictures']:,} | {row['kind']} | {rate:.0f} | {rate / memory:.2f} | {row['pipeline_pictures_per_second']:.0f} | "
            f"{beyond['training']:.0f} | {beyond['decoding']:.0f} | {row['load_first_s']:.1f} | {row['load_again_s']:.1f} |"
        )
    return _section(
        "Many patches",
        "Fine-tuning a pruned ResNet18 on random batches of 224x224 pictures out of so many, from files and from WebDataset shards. `beyond the "
        "network` is the peak memory over that of the same training on tensors in memory (the aim: under 2,000 MB with 100,000 patches).",
        ("patches", "from", "pictures/s", "of those from memory", "pipeline alone, pictures/s", "beyond the network, MB", "while decoding, MB",
         "first load, s", "later loads, s"),
        rows,
    )  # fmt: skip


def _oracle() -> str:
    found = _read("oracle")
    rows = [f"| {row['model']}, {row['size']} px | {row['channels']:,} | {told(row['fraction'], 3)} |" for row in found["rows"]]
    return _section(
        "The oracle audit",
        "A channel's time through that of evaluating the whole network once (the aim: 0.25), the mean over all channels; "
        f"{found['sampled']} of each group were measured and weighted by its width.",
        ("network", "channels", "of an evaluation"),
        rows,
    )


def _inference() -> str:
    found = _read("inference")
    rows = [
        f"| {row['network']} | {row['runtime']} | {row['channels']} | {row['ms']:.2f} | {row['macs'] / 1e6:.0f} | {row['beside_its_macs']:.2f} | "
        f"{row['gmacs_per_second']:.0f} ({row['share_of_peak']:.0%}) |"
        for row in found["rows"]
    ]
    text = _section(
        "Inference of the pruned network",
        f"Measured time through the time that its MACs would take at the speed of the unpruned network on the same runtime (the aim: 1.3). One thread, "
        f"batch 1, {found['size']} px; the machine's peak, a large float32 matrix product, is {found['peak_gmacs']:.0f} GMAC/s.",
        ("network", "runtime", "channels", "ms", "million MACs", "beside its MACs", "GMAC/s (of the peak)"),
        rows,
    )
    worst = []
    for row in found["rows"]:
        if row["runtime"] == "onnx" and row["channels"] == "any number":
            over = sorted(
                (one for one in row["layers"] if one["beside_its_macs"]), key=lambda one: -(one["ms"] - one["ms"] / one["beside_its_macs"])
            )
            listed = "; ".join(f"{one['shape']} {one['ms']:.2f} ms, {one['beside_its_macs']:.1f} times" for one in over[:5])
            rest = sum(one["ms"] for one in row["layers"] if not one["macs"]) / sum(one["ms"] for one in row["layers"])
            worst.append(
                f"- {row['network']}: {listed}. Layers without MACs (sums, pooling, changes of layout) take {rest:.0%} of the time."
            )
    note = [
        "The layers that lose most on ONNX Runtime where channels go in any number, with what they take beside their MACs:", "", *worst, "",
        "Rounding mends it: vectors hold 16 numbers here, and a convolution over 17 channels computes 32. `--multiple 16` (8 or 4 on ARM) keeps to such",
        "numbers at the same MACs; training gets faster by it as well.", "",
    ]  # fmt: skip
    return text + "\n" + "\n".join(note)


def _gpu() -> str:
    found = _read("gpu")
    machine, versions = found["machine"], found["versions"]
    jobs = [_job(job) for job in found["jobs"]]
    training = [_trained(row) for row in found["training"]]
    latency = [
        f"| {row['model']} | {row['numbers']} | {row['batch']} | {row['way']} | {told(row['ms']['unpruned'])} | {told(row['ms']['pruned'])} | "
        f"{told(row['speedup'])} |"
        for row in found["latency"]
    ]
    columns = "| network | seconds | of which ranking, surgery, fine-tuning | million MACs | 1,000 parameters | test, unpruned | pruned |"
    speeds = "| network | precision | fine-tuning | and ranking | bare network | evaluation | peak MB on the GPU |"
    times = "| network | numbers | batch | launched | unpruned, ms | pruned, ms | times as fast |"
    makers = found["training"][-1].get("makers", 1)
    alone = [told(row["pictures_alone_per_second"], 0) for row in found["training"] if "pictures_alone_per_second" in row]
    return "\n".join([
        "## On a GPU", "",
        f"`benchmarks/gpu.py`: {machine['gpu']}, {machine['cores']} cores of {machine['processor']}, torch {versions['torch']}, cuDNN {found['cudnn']};",
        "`make bench` leaves it out. Masonry at 224 px (1,224 training pictures), `--step 0.5 --round-to 16 --augment flips --max-drop 4`; ResNet18 from random weights",
        "(20 epochs, 4 steps of 6), VGG16 from ImageNet's convolutions (8 epochs, 5 steps of 4). One run each. Accuracies with the 95 % interval",
        "of so many pictures (Wilson). Seconds are of the whole command, with Python's start and imports from a cold disk.", "",
        columns, "| --- " * columns.count(" | ") + "| --- |", *jobs, "",
        "Pictures a second, batches of 32. `bare`: forward, backward and the optimiser's step on batches in the GPU's memory. Evaluation is in full float32, and",
        "includes bringing the network to the GPU and back. `32` are convolutions in TF32, torch's default.", "",
        speeds, "| --- " * speeds.count(" | ") + "| --- |", *training, "",
        f"The pictures alone, read, changed and normalised by {makers} thread{'s' if makers > 1 else ''}: {' and '.join(alone)} a second. That is what fine-tuning waits for here.", "",
        "Milliseconds of a batch. `graph`: replayed as a CUDA graph, so that the GPU alone is timed; `eager`: launched by Python one operation after the other. Channels last,",
        "but for float32 with TF32 off. TensorRT and ONNX Runtime's GPU build were not at hand.", "",
        times, "| --- " * times.count(" | ") + "| --- |", *latency, "",
    ])  # fmt: skip


def _job(job: dict[str, Any]) -> str:
    first, best = job["steps"][0], job["steps"][job["best"]]
    parts = {part: sum(step[f"seconds_{part}"] for step in job["steps"]) for part in ("rank", "surgery", "finetune")}
    listed = f"{parts['rank']:.1f}, {parts['surgery']:.1f}, {parts['finetune']:.1f}"
    accuracies = " | ".join(_share(job["test"][name]["accuracy"], job["test"][name]["n"]) for name in ("baseline", "best"))
    return (
        f"| {job['model']} | {job['seconds']:.0f} | {listed} | {first['macs'] / 1e6:,.0f} -> {best['macs'] / 1e6:,.0f} | "
        f"{first['params'] / 1e3:,.0f} -> {best['params'] / 1e3:,.0f} | {accuracies} |"
    )


def _trained(row: dict[str, Any]) -> str:
    rates = row["pictures_per_second"]
    speeds = " | ".join(told(rates[what], 0) for what in ("fine-tuning", "and ranking", "bare", "evaluation"))
    return f"| {row['model']}, {row['macs'] / 1e6:,.0f} million MACs | {row['engine']} | {speeds} | {row['peak_mb']:,.0f} |"


def _share(share: float, number: int) -> str:
    """A share of so many with its 95 % interval (Wilson 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * (share * (1 - share) / number + z * z / (4 * number * number)) ** 0.5
    return f"{share:.1%} ({middle - half:.1%} to {middle + half:.1%})"


def _startup() -> str:
    found = _read("startup")
    rows = [
        f"| `{row['command'].replace('the training stack', 'import prunedge.runs.execute')}` | {row['seconds']:.2f} | {told(row['more_than_python'])} |"
        for row in found["rows"]
    ]
    return _section(
        "Start-up",
        "With the training stack installed (the aim for `prunedge --help`: 0.5 s more than Python's own start; on a device's plain install 0.3). "
        "`import prunedge.runs.execute` is what `train` and `prune` load; most of it is torch, torchvision and timm.",
        ("command", "seconds", "more than python, s"),
        rows,
    )


def _growth() -> str:
    found = _read("growth")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    for axis, name in zip(axes[:2], ("channels", "layers"), strict=True):
        rows = found[name]["rows"]
        for part, label in PARTS.items():
            axis.loglog([row["params"] for row in rows], [1e3 * row[part] for row in rows], marker="o", label=label)
        axis.set(title=f"more {name}", xlabel="parameters", ylabel="ms")
    axes[0].legend(fontsize=7)
    for name in ("channels", "layers"):
        rows = found[name]["rows"]
        axes[2].loglog([row["params"] for row in rows], [max(1, row["memory_mb"]) for row in rows], marker="o", label=f"more {name}")
    axes[2].set(title="memory beyond a tiny network", xlabel="parameters", ylabel="MB")
    axes[2].legend(fontsize=7)
    _write(figure, "growth")
    lines = [
        "## Growth",
        "",
        "Exponents of the growth with the parameters (1 is in proportion; below it, something fixed still counts), over the larger half of the sizes:",
        "",
        "| | " + " | ".join([*PARTS.values(), "memory"]) + " |",
        "| --- " * (len(PARTS) + 2) + "|",
    ]
    for name in ("channels", "layers"):
        slopes = found[name]["exponents_of_params"]
        lines.append(f"| more {name} | " + " | ".join(f"{slopes[part]:.2f}" for part in [*PARTS, "memory_mb"]) + " |")
    lines += ["", "![time and memory against the number of parameters](performance/growth.svg)", ""]
    scale = _read("scale")
    if scale:
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
        for kind, colour in (("files", "tab:blue"), ("shards", "tab:orange")):
            rows = [row for row in scale["rows"] if row["kind"] == kind]
            counts = [row["pictures"] for row in rows]
            like = {"color": colour, "marker": "o"}
            axes[0].semilogx(counts, [statistics.median(row["pictures_per_second"]) for row in rows], label=kind, **like)
            axes[1].semilogx(counts, [row["beyond_the_network_mb"]["training"] for row in rows], label=kind, **like)
            axes[2].loglog(counts, [row["load_first_s"] for row in rows], label=f"{kind}, first", **like)
            axes[2].loglog(counts, [row["load_again_s"] for row in rows], label=f"{kind}, later", linestyle="dashed", **like)
        for axis in axes:
            axis.legend(fontsize=7)
        axes[0].set(title="fine-tuning", xlabel="pictures", ylabel="pictures/s", ylim=(0, 1.3 * axes[0].get_ylim()[1]))
        axes[1].set(title="memory beyond the network", xlabel="pictures", ylabel="MB", ylim=(0, 2000))
        axes[2].set(title="loading", xlabel="pictures", ylabel="s")
        _write(figure, "pictures")
        lines += ["![speed, memory and loading against the number of pictures](performance/pictures.svg)", ""]
    lines += ["Processes that share one training (one thread each, ResNet18, batches of 32; each process gets a part of every batch):", ""]
    lines += ["| picture | processes | pictures/s | through one process |", "| --- | --- | --- | --- |"]
    for row in found["processes"]:
        alone = next(one for one in found["processes"] if one["size"] == row["size"])
        here, beside = (spread(one["pictures_per_second"]) for one in (row, alone))
        lines.append(f"| {row['size']} px | {row['processes']} | {told(here, 0)} | {here['median'] / beside['median']:.2f} |")
    lines += [""]
    return "\n".join(lines)


def _how() -> str:
    file = Path(__file__).with_name("performance_notes.md")
    return file.read_text(encoding="utf-8")


def _write(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def _section(title: str, text: str, columns: tuple[str, ...], rows: list[str]) -> str:
    head = "| " + " | ".join(columns) + " |"
    return "\n".join([f"## {title}", "", text, "", head, "| --- " * len(columns) + "|", *rows, ""])


def _percent(one: dict[str, float]) -> str:
    return f"{one['median']:.2%} ({one['low']:.2%} to {one['high']:.2%})"


if __name__ == "__main__":
    main()
