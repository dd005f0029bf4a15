"""Channels removed from a model, with the proof that nothing else changed."""
