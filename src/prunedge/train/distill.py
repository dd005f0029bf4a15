"""Distillation: a teacher's softened answers as a part of the loss (Hinton et al. 2015)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from prunedge.models.classification import class_logits
from prunedge.models.cost import evaluating
from prunedge.train.engine import Engine
from prunedge.utils.tracing import traced


@contextlib.contextmanager
def teaching(teacher: nn.Module | None, engine: Engine) -> Iterator[None]:
    """While inside, the teacher is on the device and in evaluation mode."""
    if teacher is None:
        yield
        return
    with engine.holding(teacher), evaluating(teacher):
        yield


@traced("teacher")
def teacher_distance(
    teacher: nn.Module,
    engine: Engine,
    inputs: torch.Tensor,
    logits: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """What the teacher's softened answers still differ by, the mean over the batch."""
    with torch.no_grad(), engine.autocast():
        answers = class_logits(teacher(inputs)).float()
    student = F.log_softmax(logits / temperature, 1)
    taught = F.log_softmax(answers / temperature, 1)
    divergence = F.kl_div(student, taught, reduction="batchmean", log_target=True)
    return divergence * temperature**2
