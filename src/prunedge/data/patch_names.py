"""Whether images are patches that were cut from photographs, by their names. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

MOST = 0.9  # of the images, whose names must tell places


def are_patches(stems: Sequence[str]) -> bool:
    """Whether names (without suffix) are those of patches, as `prunedge patches` and other tools
    give them: NAME_X_Y, with several places for most photographs, the upper left corner among them
    for at least half of these.
    """
    places = defaultdict(set)
    for stem in stems:
        match = re.fullmatch(r"(.+)[_-](\d+)[_-](\d+)", stem)
        if match is not None:
            places[match[1]].add((int(match[2]), int(match[3])))
    named = sum(len(of_photo) for of_photo in places.values())
    if not stems or named < MOST * len(stems):
        return False
    several = [of_photo for of_photo in places.values() if len(of_photo) > 1]
    begin = sum((0, 0) in of_photo for of_photo in several)
    return 2 * len(several) >= len(places) and 2 * begin >= len(several)
