"""Shards: tar files of images with their labels beside them, on disk or behind a URL."""
