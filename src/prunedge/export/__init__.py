"""A model in, out comes a bundle whose answers were compared with torch's: `export_bundle(...) ->
Bundle`.
"""

from prunedge.export.bundle import Judge, export_bundle

__all__ = ["Judge", "export_bundle"]
