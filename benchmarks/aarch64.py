"""Does aarch64 answer as x86-64 does? The same wheel, bundles and pictures on both; aarch64 is a Debian that QEMU emulates.

    apt install debootstrap qemu-user-static binfmt-support
    python benchmarks/aarch64.py [BUNDLE ...] --pictures FOLDER --root FOLDER [--count 64]

Needs root and Linux on x86-64. `--root` is where the Debian is made, once; it is found there the next time. Without BUNDLE, ResNet18 with
random weights is exported, whole and with half of its channels. Both sides install this tree's wheel with the versions of constraints.txt,
run `prunedge bench` and classify --count of the pictures; the emulated one on the processors of two boards. Fails (exit code 1) when a
label differs or a probability differs by more than 1e-4; eight-bit forms are told, not judged: processors multiply them in ways of their
own. Emulated times say nothing about a board.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from plain_install import ALONE, ROOT, build_wheel, make_environment

RESULTS = Path(__file__).parent / "results" / "aarch64.json"
TOLERANCE = 1e-4
PATCHES = "8"  # for a bench: emulated, each takes 50 to 500 times as long
LIMIT_S = 1800
SUFFIXES = {".jpg", ".jpeg", ".png"}
PLACE = "opt/prunedge"  # inside the emulated Debian
# What they are, for /proc/cpuinfo: their part's number, and the features that choose ONNX Runtime's kernels. The second has dot products.
BOARDS = {
    "cortex-a72": ("Raspberry Pi 4", "0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": (
        "Raspberry Pi 5", "0xd0b", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}  # fmt: skip
HANDLER = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder, searched with its sub-folders")
    parser.add_argument("--root", type=Path, required=True, help="the emulated Debian; made when it is not there")
    parser.add_argument("--count", type=int, default=64, help="pictures to classify, evenly chosen")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--mirror", help="where debootstrap gets Debian; without it, from where apt does")
    given = parser.parse_args()
    files = sorted(file for file in given.pictures.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        stop(f"no pictures in {given.pictures}", "name a folder with .jpg or .png files")
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, given.count).astype(int))]
    need_emulation()
    if not given.root.exists():
        make_debian(given.root, given.suite, given.mirror)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        bundles = given.bundles or export_two(folder / "bundles")
        files_there = {"answers.py": Path(__file__).parent / "answers.py"}
        files_there |= {f"pictures/{place:04d}{file.suffix.lower()}": file for place, file in enumerate(chosen)}
        files_there |= {
            f"bundles/{place}/{file.name}": file for place, one in enumerate(bundles) for file in one.iterdir() if file.is_file()
        }
        for name, source in files_there.items():
            (folder / "both" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / "both" / name)
        wheel = build_wheel(folder)
        python = make_environment(folder / "env", wheel)
        here = measure([python], folder / "both", len(bundles))
        install_there(given.root, wheel, folder / "both")
        there = {
            board: measure([*inside(given.root, board), f"/{PLACE}/env/bin/python"], Path("/", PLACE, "both"), len(bundles))
            for board in BOARDS
        }
    result = {
        "pictures": len(chosen), "tolerance": TOLERANCE, "emulator": out(["qemu-aarch64-static", "--version"]).splitlines()[0],
        "here": {"machine": here["machine"], **here["versions"]},
        "there": {board: {"board": BOARDS[board][0], "machine": found["machine"], **found["versions"]} for board, found in there.items()},
        "bundles": [
            {"bundle": one.name, **about(mine), "there": {board: compare(mine, found["bundles"][place]) for board, found in there.items()}}
            for place, (one, mine) in enumerate(zip(bundles, here["bundles"], strict=True))
        ],
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if told(result) else 1)


def need_emulation() -> None:
    """Stop with what to install when this machine can't run programs of aarch64."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        stop(f"this is {platform.system()} on {platform.machine()}", "run it on Linux on x86-64, which aarch64 is compared with")
    missing = [name for name in ("debootstrap", "qemu-aarch64-static", "unshare") if shutil.which(name) is None]
    if missing:
        stop(f"{', '.join(missing)} not found", "apt install debootstrap qemu-user-static binfmt-support")
    if os.geteuid() != 0:
        stop("debootstrap and chroot need root", "run it with sudo")
    handler = HANDLER.read_text() if HANDLER.exists() else ""
    # F: the kernel has opened QEMU already, so that it need not be inside the emulated Debian.
    if not handler.startswith("enabled") or "F" not in handler.partition("flags: ")[2].partition("\n")[0]:
        stop("the kernel does not hand programs of aarch64 to QEMU", "apt install binfmt-support; update-binfmts --enable qemu-aarch64")


def make_debian(root: Path, suite: str, mirror: str | None) -> None:
    """A minimal Debian of aarch64 with Python, in minutes."""
    part = root.with_name(root.name + ".part")
    if part.exists():
        shutil.rmtree(part)  # an earlier one was interrupted
    print(f"making an aarch64 Debian {suite}: several minutes", file=sys.stderr)
    packages = "--include=python3,python3-venv"
    # In mounts of its own: what it mounts goes with it, even when it is killed.
    run(["unshare", "--mount", "debootstrap", "--arch=arm64", "--variant=minbase", packages, suite, part, mirror or apt_mirror(suite)])
    part.rename(root)


def apt_mirror(suite: str) -> str:
    """Where apt gets this suite of Debian from."""
    lines = out(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"]).splitlines()
    found = [line.split()[0] for line in lines if line.split()[1:] == [suite]]
    return found[0] if found else stop(f"apt knows no Debian {suite} here", "apt update, or name a --mirror or another --suite")


def inside(root: Path, board: str) -> list[Any]:
    """What to put before a command so that it runs in the emulated Debian, on a board's processor, with the /proc and /sys that it expects."""
    # QEMU would show this machine's /proc/cpuinfo, which ONNX Runtime takes for an Arm's and crashes.
    lines = [f"Features\t: {BOARDS[board][2]}", "CPU implementer\t: 0x41", "CPU architecture: 8", f"CPU part\t: {BOARDS[board][1]}"]
    cpuinfo = root / f"cpuinfo-{board}"
    cpuinfo.write_text("\n".join(f"processor\t: {place}\n" + "\n".join(lines) + "\n" for place in range(os.cpu_count() or 1)))
    mounts = (
        f'mount -t proc proc "$0/proc" && mount --bind "$0/{cpuinfo.name}" "$0/proc/cpuinfo" && '
        'mount -t sysfs -o ro sysfs "$0/sys" && exec chroot "$0" "$@"'
    )
    clean = ["/usr/bin/env", "-i", f"QEMU_CPU={board}", "PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8"]
    return ["unshare", "--mount", "sh", "-c", mounts, root, *clean]


def install_there(root: Path, wheel: Path, both: Path) -> None:
    """The wheel with its dependencies in an environment of the emulated Debian, and what both sides get. Only the unpacking is emulated."""
    place, emulated = root / PLACE, inside(root, next(iter(BOARDS)))
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(both, place / "both")
    code = "import platform; print(platform.python_version(), platform.libc_ver()[1])"
    python, glibc = out([*emulated, "python3", "-c", code]).split()
    newest = int(glibc.split(".")[1])
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(17, newest + 1)] + ["manylinux2014_aarch64", "any"]
    platforms = [part for tag in tags for part in ("--platform", tag)]
    wheels, pip = place / "wheels", [sys.executable, "-m", "pip"]
    fetch = ["download", "--quiet", "--only-binary=:all:", "--python-version", python, *platforms, "--dest", wheels]
    run([*pip, *fetch, "-c", ROOT / "constraints.txt", wheel])
    print("installing inside the emulated Debian: a minute or two", file=sys.stderr)
    run([*emulated, "python3", "-m", "venv", f"/{PLACE}/env"])
    install = ["install", "--quiet", "--no-compile", "--no-index", "--find-links", f"/{PLACE}/wheels", "prunedge"]
    run([*emulated, f"/{PLACE}/env/bin/python", "-m", "pip", *install])


def measure(python: list[Any], folder: Path, count: int) -> dict[str, Any]:
    """What one side answers to the pictures, with a bench of every form added."""
    bundles = [folder / "bundles" / str(place) for place in range(count)]
    found = json.loads(out([*python, folder / "answers.py", folder / "pictures", *bundles]))
    for bundle, one in zip(bundles, found["bundles"], strict=True):
        bench = ["-m", "prunedge", "bench", bundle, "--runtime", ",".join(one["forms"]), "--patches", PATCHES, "--json"]
        for measured in json.loads(out([*python, *bench]))["bundles"]:
            one["forms"][measured["target"]]["bench"] = measured
    return found


def about(mine: dict[str, Any]) -> dict[str, Any]:
    """What a bundle is, and the milliseconds that it takes here."""
    benches = {target: form["bench"] for target, form in mine["forms"].items()}
    first = next(iter(benches.values()))
    return {
        **{key: first[key] for key in ("model", "macs", "params", "input_size")},
        "ms": {target: bench["latency_ms"]["median"] for target, bench in benches.items()},
    }


def compare(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """One bundle: each form there beside the same here."""
    forms = {}
    for target, here in mine["forms"].items():
        there = theirs["forms"][target]
        a, b = (np.array(side["probabilities"]) for side in (here, there))
        forms[target] = {
            "labels_that_differ": int((a.argmax(1) != b.argmax(1)).sum()), "max_abs_difference": float(np.abs(a - b).max()),
            "smallest_margin": float(np.diff(np.sort(a, axis=1)[:, -2:], axis=1).min()),
            "self_test_here": here["bench"]["self_test"], "self_test_there": there["bench"]["self_test"],
            "ms_emulated": there["bench"]["latency_ms"]["median"],
        }  # fmt: skip
    return {"same_pixels": mine["pixels"] == theirs["pixels"], "forms": forms}


def told(result: dict[str, Any]) -> bool:
    """Print the table; whether every exact form agrees."""
    for machine, versions in {"here": result["here"], **result["there"]}.items():
        print(f"{machine}: " + ", ".join(f"{key} {value}" for key, value in versions.items()))
    print(f"{result['emulator']}, {result['pictures']} pictures\n")
    heads = ("labels differ", "max difference", "self-test", "ms here", "emulated")
    print(f"{'bundle':<22}{'form':<11}{'processor':<12}" + "".join(f"{head:>16}" for head in heads))
    agreed = True
    for bundle in result["bundles"]:
        for board, there in bundle["there"].items():
            for target, form in there["forms"].items():
                is_exact = not target.endswith("int8")
                agreed &= not is_exact or (form["labels_that_differ"] == 0 and form["max_abs_difference"] <= TOLERANCE)
                figures = (
                    f"{form['labels_that_differ']}", f"{form['max_abs_difference']:.1e}", f"{form['self_test_there']['relative_difference']:.1e}",
                    f"{bundle['ms'][target]:.2f}", f"{form['ms_emulated']:.0f}",
                )  # fmt: skip
                print(f"{bundle['bundle']:<22}{target:<11}{board:<12}" + "".join(f"{figure:>16}" for figure in figures))
            if not there["same_pixels"]:
                print(f"{bundle['bundle']:<22}on {board} the pictures are decoded to other pixels")
    print("\nlabels are the same, probabilities within 1e-4" if agreed else "\nNOT the same answers")
    return agreed


def export_two(folder: Path) -> list[Path]:
    """Bundles of a pruned and a whole ResNet18 with random weights. Needs torch, here only."""
    import torch
    from zoo import randomise

    import prunedge as pe
    from prunedge.export import export_bundle
    from prunedge.pruning.select import random_plan

    whole, pictures = pe.build("resnet18", classes=["crack", "sound", "rust"], weights="none"), torch.randn(4, 3, 64, 64)
    randomise(whole)
    graph = pe.trace(whole.eval(), pictures)
    pruned = pe.remove(whole, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0)))
    about: dict[str, Any] = {"model": "resnet18", "classes": ["crack", "sound", "rust"], "size": 64, "pictures": pictures, "macs": 0}
    return [
        export_bundle(net.eval(), folder / name, params=sum(p.numel() for p in net.parameters()), **about).path
        for name, net in {"pruned": pruned, "whole": whole}.items()
    ]


def run(command: list[Any]) -> None:
    """A command whose words are for stderr."""
    done = subprocess.run(command, stdout=sys.stderr, env=ALONE)
    if done.returncode:
        stop(f"{' '.join(map(str, command[:4]))} ... ended with {done.returncode}", "what it said stands above")


def out(command: list[Any]) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=ALONE, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        stop(f"{' '.join(map(str, command[:4]))} ... did not end in {LIMIT_S} s", "QEMU's threads may wait for each other: try again")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        stop(f"{' '.join(map(str, command[:4]))} ... ended with {done.returncode}", last)
    return done.stdout


def stop(what: str, remedy: str) -> NoReturn:
    sys.exit(f"error: {what}: {remedy}")


if __name__ == "__main__":
    main()
