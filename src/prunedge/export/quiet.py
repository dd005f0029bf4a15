"""Converters without what they tell of their own work."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Only errors of these loggers, the root's by the name ""."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Without what torch's exporter to ONNX prints, logs and warns of."""
    loggers = quiet_loggers("torch.onnx", "onnxscript")
    with loggers, redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
