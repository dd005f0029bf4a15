"""The run folder: what a run was asked to do, its checkpoints, its history, and what was
measured.
"""
