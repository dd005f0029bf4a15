"""Which images an epoch has when classes are to be equally frequent. Pure."""

from __future__ import annotations

import numpy as np
import torch


def balanced_order(kinds: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The images of an epoch, by their places (n,) int64, where image i is of class `kinds[i]` (n,)
    int64: as many as there are, and as many of each class that has any, but for one that doesn't
    divide.

    A class is gone through again and again, each time in a new order, so that no image of it comes
    twice more often than another; of a common class each epoch takes others. (torch's
    WeightedRandomSampler draws each image anew: of 20 images 7 would not come in an epoch that has
    room for 20 of them.)
    """
    count = len(kinds)
    classes = np.unique(kinds)
    # Which classes get the images that don't divide changes from epoch to epoch.
    ranks = torch.randperm(len(classes), generator=generator).numpy()
    drawn = []
    for rank, kind in zip(ranks, classes, strict=True):
        members = np.flatnonzero(kinds == kind)
        wanted = count // len(classes) + int(rank < count % len(classes))
        rounds = []
        for _ in range(-(-wanted // len(members))):
            rounds.append(members[torch.randperm(len(members), generator=generator).numpy()])
        if rounds:
            drawn.append(np.concatenate(rounds)[:wanted])
    together = np.concatenate(drawn) if drawn else np.empty(0, np.int64)
    return together[torch.randperm(len(together), generator=generator).numpy()]
