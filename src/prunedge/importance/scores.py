"""Scores: one number per channel, higher matters more."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from prunedge.errors import PrunedgeError
from prunedge.utils.advice import option
from prunedge.utils.machine import pass_on

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provenance:
    """What kept scores are scores of: those of equal provenance may stand for each other.

    `criterion` is what `registry.identity` says of it, `model` the digest of the model's weights,
    `images` that of the training images; `settings` tells, as JSON, what else decided the
    gradients (how images were changed, the loss).
    """

    criterion: str
    model: str
    images: str
    settings: str

    def to_json(self) -> str:
        """JSON: an object of these four."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The inverse of `to_json`; ValueError or TypeError for anything else, which proves
        nothing.
        """
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Scores:
    """How much each channel of each group matters: group name -> (channels,) float64, higher
    matters more.

    `examples` is the number of images that they were measured on (0 for criteria that read the
    weights alone). `provenance` is what they have to be kept with: without it nobody can tell later
    what they are scores of.
    """

    values: Mapping[str, torch.Tensor]
    criterion: str
    examples: int = 0
    provenance: Provenance | None = None

    @property
    def zero(self) -> tuple[str, ...]:
        """The groups of which every channel has the score 0: the criterion tells nothing about
        them.
        """
        return tuple(
            name for name, value in self.values.items() if value.numel() and not bool(value.any())
        )


@contextmanager
def of_criterion(name: str) -> Iterator[None]:
    """Whatever a criterion raises becomes a PrunedgeError that names it: it may be the user's
    own.
    """
    try:
        yield
    except PrunedgeError:
        raise
    except Exception as error:
        pass_on(error)
        what = f"the criterion '{name}' raised {type(error).__name__}: {error}"
        raise PrunedgeError(
            " ".join(what.split()),
            where=option("criterion"),
            remedy="mend its code, or use another",
        ) from error


def finished(values: Mapping[str, torch.Tensor], criterion: str, examples: int = 0) -> Scores:
    """The scores, when they are finite; groups of zeros are told in the log.

    PrunedgeError names the groups with scores that are not finite.
    """
    broken = [name for name, value in values.items() if not bool(value.isfinite().all())]
    if broken:
        what = f"the criterion '{criterion}' gives scores that are not finite for {_some(broken)}"
        raise PrunedgeError(what, remedy="look for inputs, weights or a loss that are not finite")
    scores = Scores(values, criterion, examples)
    if scores.zero:
        log.warning(
            "%s: every score is 0, so that nothing orders the channels, in %s",
            criterion,
            _some(scores.zero),
        )
    return scores


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed


def normalised(values: Mapping[str, torch.Tensor], how: str = "l2") -> dict[str, torch.Tensor]:
    """The scores of each group on a scale on which groups compare; one of `NORMALISERS`.

    `none`: as they are. `l2`: theta / sqrt(sum_j theta_j ^ 2) (Molchanov et al. 2017, section 2.2);
    a group of zeros stays zero. `mean`: theta / mean(theta). `rank`: the place in the group's own
    order, from 0 to 1.
    """
    return {name: NORMALISERS[how](value.double()) for name, value in values.items()}


def checked(numbers: torch.Tensor, shape: torch.Size, criterion: str) -> torch.Tensor:
    """What a user's function gave for each example and channel, float64; PrunedgeError when it has
    another shape or isn't finite.
    """
    if not isinstance(numbers, torch.Tensor) or numbers.shape != shape:
        gave = (
            f"{tuple(numbers.shape)} numbers"
            if isinstance(numbers, torch.Tensor)
            else type(numbers).__name__
        )
        what = f"the criterion '{criterion}' gave {gave} for (examples, channels) {tuple(shape)}"
        raise PrunedgeError(what, remedy="return one number for each example and channel")
    if not bool(numbers.isfinite().all()):
        raise PrunedgeError(
            f"the criterion '{criterion}' gave numbers that are not finite",
            remedy="mend its function",
        )
    return numbers.double()


def _over(value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return value / scale if bool(scale > 0) else torch.zeros_like(value)


def _places(value: torch.Tensor) -> torch.Tensor:
    order = torch.empty_like(value)
    order[value.argsort(stable=True)] = torch.arange(len(value), dtype=value.dtype)
    return order / max(1, len(value) - 1)


NORMALISERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda value: value,
    "l2": lambda value: _over(value, value.norm()),
    "mean": lambda value: _over(value, value.abs().mean()),
    "rank": _places,
}
