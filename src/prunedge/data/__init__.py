"""Images in (class folders, CSV manifests, photographs with masks or annotations); a Dataset of
three leak-proof splits out.
"""

from __future__ import annotations

from prunedge.data.check import check
from prunedge.data.check_report import CheckReport
from prunedge.data.dataset import Dataset, Sample, Split
from prunedge.data.elpv import write_elpv
from prunedge.data.load import load, load_folder, load_manifest
from prunedge.data.patches import PatchReport, cut_patches

__all__ = [
    "CheckReport",
    "Dataset",
    "PatchReport",
    "Sample",
    "Split",
    "check",
    "cut_patches",
    "load",
    "load_folder",
    "load_manifest",
    "write_elpv",
]
