"""What runs on the device, without torch: a bundle in, labels, probabilities and measurements
out.
"""

from prunedge.edge.bench.candidates import Candidate
from prunedge.edge.bench.measure import BenchResult, bench
from prunedge.edge.bundle import Bundle, open_bundle
from prunedge.edge.manifest import Form, Manifest

__all__ = ["BenchResult", "Bundle", "Candidate", "Form", "Manifest", "bench", "open_bundle"]
