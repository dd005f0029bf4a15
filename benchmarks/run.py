"""All measurements of docs/performance.md, one after the other, and the page itself: `make bench`.

    python benchmarks/run.py [DATA] [--only ranking,surgery]

DATA is a folder or manifest of pictures; without it the solar cells of the demo are used. Everything together takes some hours on two cores.
Nothing else should run on the machine meanwhile: a second process makes training on two threads several times slower, not twice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = {
    "startup": ("startup.py",),
    "ranking": ("ranking.py",),
    "surgery": ("surgery.py",),
    "oracle": ("oracle.py",),
    "throughput": ("throughput.py", "DATA"),
    "throughput-64": ("throughput.py", "DATA", "--size", "64"),
    "inference": ("inference.py",),
    "growth": ("growth.py",),
    "scale": ("scale.py", "DATA"),
    "resnet18": ("whole_pruning.py", "DATA", "--model", "resnet18", "--size", "224"),
    "vgg16_bn": ("whole_pruning.py", "DATA", "--model", "vgg16_bn", "--size", "64"),
}


def main() -> int:
    """Run them; one that fails does not keep the others from being measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", default=",".join(SCRIPTS))
    given = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        data = given.data.resolve() if given.data else _cells(Path(folder) / "elpv")
        for name in given.only.split(","):
            script, *options = SCRIPTS[name]
            print(f"\n{name}: {script}", flush=True)
            start = time.perf_counter()
            command = [sys.executable, str(HERE / script), *(str(data) if one == "DATA" else one for one in options)]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    subprocess.run([sys.executable, str(HERE / "performance_page.py")], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _cells(folder: Path) -> Path:
    from prunedge.data import write_elpv

    write_elpv(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
