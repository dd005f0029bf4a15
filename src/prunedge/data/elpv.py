"""Real images for the demo: photographs of solar cells from the PyPI package elpv-dataset
(Deitsch et al. 2019).
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from prunedge.errors import ExtraMissing
from prunedge.utils.files import make_folder, write_text, written
from prunedge.utils.machine import unwritable


def write_elpv(out: Path | str) -> Path:
    """Lay the 2,624 solar cells of `elpv-dataset` out as a manifest with images beside it; the
    manifest's path.

    Cells whose defect probability is at least 0.5 are `defective`, the others `functional`; the
    columns `probability` and `cell` (mono or poly, crystalline) say more. Images are hard links
    where the disk allows them, else copies. What is there already is kept. Raises ExtraMissing
    without the package, MachineError when `out` can't be written.

    Source: C. Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells
    in Electroluminescence Imagery, 2018; S. Deitsch et al., Solar Energy 185, 2019. Terms: CC
    BY-NC-SA 4.0.
    """
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise ExtraMissing(
            "the demo's images are not installed", remedy="pip install 'prunedge[prune,demo]'"
        )
    package, out = Path(spec.origin).parent / "data", Path(out)
    rows = []
    for line in (package / "labels.csv").read_text(encoding="utf-8").splitlines():
        if line.strip():
            name, probability, cell = line.split()
            label = "defective" if float(probability) >= 0.5 else "functional"
            rows.append((name, label, probability, cell))
    try:
        make_folder(out / "images")
        for name, *_ in rows:
            _place(package / name, out / name)
        return _write_manifest(out / "manifest.csv", rows)
    except OSError as error:
        raise unwritable(error, out, "can't lay out the demo's images") from None


def _place(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        with written(target) as temporary:
            shutil.copyfile(source, temporary)


def _write_manifest(target: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "label", "probability", "cell"))
    writer.writerows(rows)
    write_text(target, text.getvalue())
    return target
