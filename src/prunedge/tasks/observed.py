"""What meters keep of the batches that they are shown, where their metrics need the outputs of all
images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from prunedge.errors import TrainError


class Observed:
    """The outputs and the targets of all images that a meter was shown, in their order."""

    def __init__(self) -> None:
        self._outputs: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    @staticmethod
    def observation(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a meter observes of a batch: its outputs (n, ...) float32 and targets (n, ...)."""
        return {"outputs": outputs, "targets": targets}

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Take in a batch."""
        self._outputs.append(observation["outputs"])
        self._targets.append(observation["targets"])

    def outputs(self) -> torch.Tensor:
        """(n, ...) float32."""
        return torch.cat(self._outputs)

    def targets(self) -> torch.Tensor:
        """(n, ...)."""
        return torch.cat(self._targets)

    def finite_outputs(self) -> torch.Tensor:
        """The outputs; TrainError where they aren't finite."""
        outputs = self.outputs()
        if not bool(outputs.isfinite().all()):
            raise TrainError(
                "the model's outputs aren't finite", remedy="train it at a lower learning rate"
            )
        return outputs
