"""A model in, out comes a bundle whose answers were compared with torch's: `export_bundle(...) ->
Bundle`.
"""

from prunedge.export.bundle import Comparison, Judge, export_bundle

__all__ = ["Comparison", "Judge", "export_bundle"]
