"""How the images of a split are stored, and what stands for their pixels: from the cache's notes,
without decoding them again.
"""

from __future__ import annotations

from prunedge.data.cache import decoder
from prunedge.data.cached_array import notes_of
from prunedge.data.dataset import Split
from prunedge.data.decode import at_once, look_at
from prunedge.edge.image.read import Look


def looks_of(split: Split) -> list[Look]:
    """How each image of a split is stored, as the cache remembers it; without a cache from the
    images' headers.
    """
    if split.cache is None:
        return list(at_once(look_at, [sample.path for sample in split.samples]))
    known = notes_of(split.cache).looks
    return [look for row in split.rows if (look := known[row]) is not None]


def digests_of(split: Split) -> list[str]:
    """What stands for the pixels of each image of a split, at its size; without a cache they are
    decoded for it.
    """
    if split.cache is not None:
        known = notes_of(split.cache).digests
        return [known[row] for row in split.rows]
    work = decoder(split.size, split.greys, split.resize, split.in_channels)
    return [digest for _, digest, _ in at_once(work, [sample.path for sample in split.samples])]
