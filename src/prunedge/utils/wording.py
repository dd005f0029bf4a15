"""Numbers with their nouns, as sentences have them."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `2 images`, `1,860 patches`: a number and its noun. `plural` is given where it is
    not the noun with an s (`patches`, `messages that wait`).
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {plural or f'{noun}s'}"
