"""Everything that can go wrong for a reason that the user can mend.

PrunedgeError
├── ConfigError     settings that can't be followed (a ValueError as well)
├── DataError       images, labels, manifests
├── ModelError      models that can't be built
├── WeightsError    weights that don't load or don't fit
├── GraphError      models whose channels can't be followed
│   └── Undecided   examples of a batch that can't be told apart
├── SurgeryError    a removal that could not be proven
├── TrainError      training that went astray
├── RunError        run folders: missing, foreign, damaged
├── ExportError     a bundle that differs from the model
│   └── PartialExport  some of its forms alone
├── BundleError     a bundle that is damaged, foreign or hostile
├── AgentError      the agent's queue, its broker, what is announced to it
├── MachineError    no memory, no permission, a disk that fails: no fault of what was being read
└── ExtraMissing    a verb that needs an optional part of prunedge

Each says what happened, where, and what to do. Only the command line turns them into exit codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class PrunedgeError(Exception):
    """An error that the user can mend: what happened, where, and the remedy."""

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        place = f" ({where})" if where is not None else ""
        super().__init__(f"{what}{place}" + (f": {remedy}" if remedy else ""))


class ConfigError(PrunedgeError, ValueError):
    """Settings out of their range, or that exclude each other."""


class DataError(PrunedgeError):
    """Images, labels or manifests that can't be used."""


class ModelError(PrunedgeError):
    """A model that can't be built."""


class WeightsError(PrunedgeError):
    """Weights that don't load or don't fit the model."""


class GraphError(PrunedgeError):
    """A model whose channels can't be followed."""


class Undecided(GraphError):
    """Which example is where in a batch can't be told, and the batch is not to be had again."""


class SurgeryError(PrunedgeError):
    """A removal of channels that could not be proven right; `refused` maps each group that it
    concerns to the reason.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        remedy: str | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.refused: dict[str, str] = dict(refused or {})


class TrainError(PrunedgeError):
    """Training that went astray."""


class RunError(PrunedgeError):
    """A run folder that is missing, foreign or damaged."""


class ExportError(PrunedgeError):
    """An exported model that differs from the trained one."""


class PartialExport(ExportError):
    """Forms of a model that could not be exported; `bundle` is the folder with the others."""

    def __init__(
        self, what: str, *, bundle: Path, where: object = None, remedy: str | None = None
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.bundle = bundle


class BundleError(PrunedgeError):
    """A bundle that is damaged, foreign or hostile."""


class AgentError(PrunedgeError):
    """The agent's queue, its broker, or what is announced to it."""


class MachineError(PrunedgeError):
    """The machine could not do it now: no memory, no permission, a disk that fails.

    It says nothing about what was being read, which is tried again and never judged by it.
    """


class ExtraMissing(PrunedgeError):
    """A verb that needs an optional part of prunedge."""
