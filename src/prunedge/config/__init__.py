"""What a run is asked to do: every setting once, with its default, its limits and its help.

A `RunConfig` has a section for each stage. The command line, a study's grid and a run's
`config.toml` are made from it: a new setting is an entry in `sections`, and the place where it
acts. A setting is an attribute of its section (`config.recover.lr`), and has a key that is unique
among all of them (`finetune_lr`): what the command line and studies call it. The key is the
attribute's name, unless another is given.
"""

from __future__ import annotations

from prunedge.config.run import (
    IMAGE_KEYS,
    START_KEYS,
    TRAINING_KEYS,
    RunConfig,
    asked,
    flattened,
    settings,
)
from prunedge.config.sections import LARGEST_SEED
from prunedge.config.setting import Setting
from prunedge.config.sizes import AnySize, as_size, plain_size
from prunedge.config.toml import read_toml, toml_text

__all__ = [
    "IMAGE_KEYS",
    "LARGEST_SEED",
    "START_KEYS",
    "TRAINING_KEYS",
    "AnySize",
    "RunConfig",
    "Setting",
    "as_size",
    "asked",
    "flattened",
    "plain_size",
    "read_toml",
    "settings",
    "toml_text",
]
