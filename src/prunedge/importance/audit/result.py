"""What an audit is asked for, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunedge.errors import PrunedgeError
from prunedge.importance import Agreement, Truth, recommendation
from prunedge.utils.advice import option


@dataclass(frozen=True)
class AuditRequest:
    """What an audit compares: criteria by name, channels of each group (all when None), images of
    each split, the seed of both draws.

    Raises PrunedgeError where that is too little to compare anything.
    """

    criteria: tuple[str, ...] = ()
    channels: int | None = 64
    images: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what compares nothing."""
        if self.images < 1 or (self.channels is not None and self.channels < 2):
            channels = "all" if self.channels is None else self.channels
            raise PrunedgeError(
                f"{self.images} images and {channels} channels are too few",
                remedy=f"give {option('images', 1)} and {option('channels', 2)} or more",
            )


@dataclass(frozen=True)
class Audit:
    """The result of an audit: the oracle, and each criterion's agreement with its absolute and its
    signed changes.

    `unjudged` names the criteria that can't judge this model, with the reason.
    """

    model: str
    asked: AuditRequest
    truth: Truth
    absolute: tuple[Agreement, ...]
    signed: tuple[Agreement, ...]
    unjudged: dict[str, str]
    about: dict[str, Any]

    @property
    def recommendation(self) -> str:
        """Which criterion to use, in words."""
        return recommendation(list(self.absolute), self.model)

    def to_json(self) -> dict[str, Any]:
        """A plain dict of all but the channels' own numbers."""
        truth = self.truth
        return {
            "model": self.model,
            "recommendation": self.recommendation,
            "criteria": list(self.asked.criteria),
            "seed": self.asked.seed,
            "channels": truth.channels,
            "images": truth.examples,
            "loss": truth.loss,
            "seconds": truth.seconds,
            "seconds_whole": truth.seconds_whole,
            "fraction_of_evaluation": truth.fraction,
            "absolute": [agreement.to_json() for agreement in self.absolute],
            "signed": [agreement.to_json() for agreement in self.signed],
            "unjudged": self.unjudged,
            **self.about,
        }
