"""What an audit is asked for, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunedge.importance import Agreement, Truth, recommendation


@dataclass(frozen=True)
class AuditRequest:
    """What an audit compares: criteria by name, channels of each group (all when None), images of
    each split, the seed of both draws.
    """

    criteria: tuple[str, ...] = ()
    channels: int | None = 64
    images: int = 512
    seed: int = 0


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
