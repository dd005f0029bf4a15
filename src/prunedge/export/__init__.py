"""A network in, out comes a bundle whose answers were compared with torch's: `export_bundle(...) -> Bundle`."""

from prunedge.export.onnx import export_bundle

__all__ = ["export_bundle"]
