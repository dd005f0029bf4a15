"""The loop: rank, remove, fine-tune, judge, again. Which channels go, and the baselines beside
it.
"""
