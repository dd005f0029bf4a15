"""Distillation: a teacher's softened answers as a part of the loss (Hinton et al. 2015)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from prunedge.models.cost import evaluating
from prunedge.tasks import Task
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
    task: Task,
    engine: Engine,
    inputs: torch.Tensor,
    output: Any,
    temperature: float,
) -> torch.Tensor:
    """What the teacher's answers still differ by from `output`, the mean over the batch."""
    with torch.no_grad(), engine.autocast():
        answers = teacher(inputs)
    return task.distance(output, answers, temperature)
