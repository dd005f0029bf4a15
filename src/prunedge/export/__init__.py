"""A model in, out comes a bundle whose answers were compared with torch's: `export_bundle(...) ->
Bundle`.
"""

from prunedge.export.bundle import export_bundle
from prunedge.export.forms import Comparison, Judge

__all__ = ["Comparison", "Judge", "export_bundle"]
