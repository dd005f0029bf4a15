"""What runs on the device, without torch: a bundle in, labels, probabilities and measurements out."""

from prunedge.edge.bench import BenchResult, bench
from prunedge.edge.bundle import Bundle, Manifest, open_bundle

__all__ = ["BenchResult", "Bundle", "Manifest", "bench", "open_bundle"]
