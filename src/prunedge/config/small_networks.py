"""Networks that are small by design, as a setting names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallNetwork:
    """A network to be taught beside the pruned one; `text` is what the user called it."""

    text: str
    model: str
    weights: str

    @classmethod
    def parse(cls, text: str) -> SmallNetwork:
        """The network of `MODEL` or `MODEL=WEIGHTS`; ValueError where the text is neither."""
        model, equals, weights = text.partition("=")
        if not model or (equals and not weights):
            raise ValueError(
                f"{text!r} is not MODEL or MODEL=WEIGHTS, such as mobilenet_v3_small or "
                "squeezenet1_0=none"
            )
        return cls(text, model, weights or "imagenet")

    @property
    def title(self) -> str:
        """What it is called in sentences and tables."""
        if self.weights == "imagenet":
            return self.model
        if self.weights == "none":
            return f"{self.model} from random weights"
        return f"{self.model} ({Path(self.weights).name})"
