"""Where a run that goes on from another comes from, back to the first, unpruned model of its
chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunedge.graph.plan import Plan
from prunedge.pruning.steps import Step

RECORD = "chain.json"
FIRST = "first"  # the folder of the run that holds the first model


@dataclass(frozen=True)
class Link:
    """A model of another run: the run's folder as it was then, and the step."""

    run: str
    step: int

    def __str__(self) -> str:
        """`runs/a, step 0`, relative to the current folder where the run lies below it."""
        path, here = Path(self.run), Path.cwd()
        return f"{path.relative_to(here) if path.is_relative_to(here) else path}, step {self.step}"


@dataclass(frozen=True)
class EarlierCut:
    """A removal that came before: its plan, counted in the first model, and the epochs of
    fine-tuning after it.
    """

    plan: Plan
    epochs: int


@dataclass(frozen=True)
class Chain:
    """How the model that a run starts from came to be.

    `links` begin with the first model and end with the start. `epochs` counts what the start has
    seen in all, `cuts` are the removals on the way to it. `first` is the first model as this run
    measured it on its own validation images (models are never compared across splits); None
    where the start is that model. `weights` is the SHA-256 of that model's file in this run;
    None where it keeps none.
    """

    links: tuple[Link, ...]
    epochs: int
    cuts: tuple[EarlierCut, ...] = ()
    first: Step | None = None
    weights: str | None = None

    def then(self, link: Link, cuts: tuple[EarlierCut, ...]) -> Chain:
        """The chain that goes on to this model by these removals; it has to be measured anew."""
        epochs = self.epochs + sum(cut.epochs for cut in cuts)
        return replace(
            self,
            links=(*self.links, link),
            epochs=epochs,
            cuts=(*self.cuts, *cuts),
            first=None,
            weights=None,
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "links": [{"run": link.run, "step": link.step} for link in self.links],
            "epochs": self.epochs,
            "cuts": [
                {
                    "keep": {name: list(kept) for name, kept in cut.plan.keep.items()},
                    "epochs": cut.epochs,
                }
                for cut in self.cuts
            ],
            "first": None if self.first is None else self.first.to_json(),
            **({} if self.weights is None else {"weights": self.weights}),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Chain:
        """The inverse of `to_json`."""
        return cls(
            links=tuple(Link(**link) for link in record["links"]),
            epochs=record["epochs"],
            cuts=tuple(_cut(cut) for cut in record["cuts"]),
            first=None if record["first"] is None else Step(**record["first"]),
            weights=record.get("weights"),
        )


@dataclass(frozen=True)
class Reference:
    """What a run's result is compared with: how it is called, its step, and where `test.json` has
    it.
    """

    name: str
    step: Step
    tested: str


def _cut(record: Mapping[str, Any]) -> EarlierCut:
    return EarlierCut(
        Plan({name: tuple(kept) for name, kept in record["keep"].items()}), record["epochs"]
    )
