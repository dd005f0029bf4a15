"""Where and how precisely a model computes: the choice is measured, or forced by name."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from prunedge.errors import ModelError, TrainError
from prunedge.graph import copied
from prunedge.models import cost
from prunedge.tasks import OF_BATCHES, Task
from prunedge.train.deterministic import same_bits
from prunedge.train.malloc import keep_freed_pages
from prunedge.utils import distributed
from prunedge.utils.arguments import require
from prunedge.utils.machine import pass_on
from prunedge.utils.tracing import is_recording, span, traced
from prunedge.utils.wording import words_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # takes seconds to import, and `show` makes no engine

log = logging.getLogger(__name__)

Precision = Literal["32-true", "bf16-mixed"]

# name -> (Fabric's precision, channels last)
NAMES: dict[str, tuple[Precision, bool]] = {
    "32": ("32-true", False),
    "32-channels-last": ("32-true", True),
    "bf16": ("bf16-mixed", True),
}
# How much one timed forward pass computes, and between which numbers of images:
# (multiply-accumulates, fewest, most). A processor needs a second or so for it. A GPU is busy only
# with batches of the usual size: with two images it is the program that is timed.
PROBES = {"cpu": (4e9, 2, 16), "cuda": (1e12, 8, 32)}
# Multiply-accumulates that a probe has for each parameter, at least: what a step does to the
# weights alone (cast them, sum their gradients) weighs little in a batch of the usual size, and
# would decide in one of two images. VGG16 at 96 px took 323 ms an image in bf16 beside 240 in 32
# with two, 56 beside 172 with 32.
MACS_PER_PARAMETER = 200
PROBE_STEPS = 3
WORTH = 0.95  # a rival has to be 5 % faster than plain float32, so that noise doesn't choose
WIDEST_VECTOR = 16  # float32 values in an AVX-512 register
# A rival that takes this much longer for a small convolution isn't timed on the model.
HOPELESS = 4.0


@dataclass(frozen=True)
class Engine:
    """How training computes: `name` is `32`, `32-channels-last` or `bf16`, `fabric` does it.

    On NVIDIA's GPUs the products of `32` are what torch is set to, by default TF32 in convolutions;
    evaluation is in full float32 always. `timings` holds the measured milliseconds of a training
    step per image, empty when the name was forced. `make_engine(engine.name)` gives the same engine
    again, on any day.
    """

    name: str
    fabric: Fabric
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """`32` or `bf16` (bfloat16 autocast over float32 weights)."""
        return "bf16" if self.fabric_precision.startswith("bf16") else "32"

    @property
    def fabric_precision(self) -> Precision:
        """Fabric's own name of the precision."""
        return NAMES[self.name][0]

    @property
    def channels_last(self) -> bool:
        """Whether weights and images lie with the channels innermost in memory."""
        return NAMES[self.name][1]

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.fabric.device

    @property
    def accelerator(self) -> str | None:
        """What the GPU is called that computes, None on a processor."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None

    def suited(self, model: nn.Module) -> Engine:
        """This engine, or plain float32 where channels last is not safe for `model`.

        On a CPU, oneDNN's strided 1x1 convolution with fewer input channels than a vector holds
        writes past its workspace in the backward pass when channels lie last (oneDNN issue 6035:
        wrong gradients, a hang, or the process dies). Pruning makes such layers out of sound ones.
        """
        if not self.channels_last or self.device.type != "cpu":
            return self
        is_unsafe = any(_overruns(module) for module in model.modules())
        return make_engine("32") if is_unsafe else self

    def to_device(self, batch: torch.Tensor) -> torch.Tensor:
        """Bring a batch (N, 3, S, S) to the device and into the memory format."""
        form = torch.contiguous_format
        if self.channels_last and batch.ndim == 4:
            form = torch.channels_last
        return batch.to(self.device, non_blocking=True).contiguous(memory_format=form)

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Record what happens inside (`prunedge.utils.tracing`), until the device has done it.

        A GPU works behind the program's back.
        """
        with span(name):
            yield
            if is_recording() and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Let operations run in this precision while inside."""
        return self.fabric.autocast()

    @contextlib.contextmanager
    def holding(self, model: nn.Module) -> Iterator[None]:
        """Keep `model` on the device and in the memory format while inside; put it back afterwards.

        Outside of training a model is always where it was and in the plain format, so that whatever
        reads, slices or saves it gives the same bytes whichever engine trained it.
        """
        first = next(model.parameters(), None)
        home = first.device if first is not None else self.device
        model.to(self.device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        try:
            yield
        finally:
            if self.channels_last:
                model.to(memory_format=torch.contiguous_format)
            model.to(home)


def _overruns(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and max(module.kernel_size) == 1
        and max(module.stride) > 1
        and 1 < module.in_channels < WIDEST_VECTOR
    )


def require_engine(engine: object) -> None:
    """TypeError where something else was given than an engine: a precision's name, say."""
    require("engine", engine, Engine, 'what prunedge.make_engine("32") gives')


def make_engine(name: str = "32", *, threads: int | None = None) -> Engine:
    """Make the engine of that name on the fastest device here.

    `threads` sets torch's threads for the whole process.

    On a CPU the process keeps the memory that it frees from now on (`keep_freed_pages`).

    Under torchrun it computes together with the engines of the other processes, one device for each
    (`prunedge.utils.distributed`). Raises TrainError for a name that isn't one of `32`,
    `32-channels-last` and `bf16`.
    """
    if name not in NAMES:
        raise TrainError(
            f"no precision is called {name!r}", remedy=f"choose auto, {', '.join(NAMES)}"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    made = Engine(name, distributed.fabric(NAMES[name][0]))
    if made.device.type == "cpu":
        keep_freed_pages()
    return made


_measured: dict[tuple[object, ...], Engine] = {}


@traced("precision")
def measure_engine(
    model: nn.Module,
    example: torch.Tensor,
    threads: int | None = None,
    *,
    precision: str = "auto",
    task: Task = OF_BATCHES,
) -> Engine:
    """Choose the engine whose training step of `model` is fastest here.

    On images like `example` (N, 3, H, W). Times a few steps of float32, float32 with channels last,
    and bfloat16 autocast with channels last, interleaved, on a copy of the model, and takes each
    one's best (without channels last where that is not safe for the model: `Engine.suited`); plain
    float32 stays unless a rival is 5 % faster. The answer is kept for this
    process by model class, image size and threads, so that a pruned model is trained like the one
    it came from. Any `precision` but `auto` forces an engine by name and measures nothing. Raises
    TrainError for an unknown name.
    """
    if precision != "auto":
        return make_engine(precision, threads=threads)
    if threads is not None:
        torch.set_num_threads(threads)
    # The same class pruned far may be one that channels last is not safe for.
    is_safe = all(not _overruns(module) for module in model.modules())
    shape = tuple(example.shape[1:])
    key = (type(model).__qualname__, shape, torch.get_num_threads(), is_safe)
    if key not in _measured:
        # Every process races, under the load that training is; the first one's clock decides for
        # all.
        timings = distributed.broadcast_object(_race(model, example, task))
        rival = min(timings, key=lambda name: timings[name])
        name = rival if timings[rival] < WORTH * timings["32"] else "32"
        shown = {engine: round(ms, 2) for engine, ms in timings.items()}
        log.info("precision %s; ms an image: %s", name, shown)
        _measured[key] = Engine(name, make_engine(name).fabric, timings)
    return _measured[key]


def _race(model: nn.Module, example: torch.Tensor, task: Task) -> dict[str, float]:
    """Milliseconds per image of the best of a few training steps, by engine that isn't hopeless."""
    engines = {}
    for name in NAMES:
        engine = make_engine(name)
        if engine.suited(model) is engine:
            engines[name] = engine
    costs = cost(model, example)
    size = probe_size(costs.macs, costs.params, engines["32"].device.type)
    batch = example[torch.arange(size) % len(example)]
    probe = copied(model).train()
    with torch.random.fork_rng(), same_bits(engines["32"].device):
        engines = _hopeful(engines)
        # The first step also warms up.
        best = {name: _step_ms(probe, batch, engine, task) for name, engine in engines.items()}
        for _ in range(PROBE_STEPS):
            for name in best:
                best[name] = min(best[name], _step_ms(probe, batch, engines[name], task))
    return best


def probe_size(macs: int, params: int, device: str) -> int:
    """How many images of so many multiply-accumulates a timed step takes on such a device, of a
    model with so many parameters.
    """
    most_macs, fewest, most = PROBES.get(device, PROBES["cpu"])
    enough = max(most_macs, MACS_PER_PARAMETER * params)
    return int(max(fewest, min(most, enough / max(1, macs))))


def _hopeful(engines: dict[str, Engine]) -> dict[str, Engine]:
    """The engines that don't already lose clearly on one small convolution.

    Where the processor has no bfloat16 arithmetic, a step of a large model would take most of a
    minute to tell.
    """
    with torch.random.fork_rng():
        layer = nn.Sequential(
            nn.Conv2d(3, 64, 1),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        batch = torch.randn(4, 3, 32, 32)
    best = {}
    for name, engine in engines.items():
        best[name] = min(_step_ms(layer, batch, engine) for _ in range(3))

    hopeful = {}
    for name, engine in engines.items():
        times = best[name] / best["32"]
        if best[name] <= HOPELESS * best["32"]:
            hopeful[name] = engine
        else:
            log.info(
                "precision %s is left out: a convolution takes %.1f times as long as in 32",
                name,
                times,
            )
    return hopeful


def _step_ms(
    model: nn.Module, batch: torch.Tensor, engine: Engine, task: Task = OF_BATCHES
) -> float:
    with engine.holding(model):
        images = engine.to_device(batch)
        start = _now(engine.device)
        try:
            with engine.autocast():
                outputs = task.outputs_of(model(images))
                outputs.float().square().mean().backward()
        except (RuntimeError, ValueError) as error:
            pass_on(error)
            what = (
                f"{type(model).__name__} can't be trained on images like these: {words_of(error)}"
            )
            raise ModelError(
                what, remedy="is it made for images of this size, and for batches of any number?"
            ) from error
        milliseconds = (_now(engine.device) - start) * 1e3 / len(batch)
        model.zero_grad(set_to_none=True)
    return milliseconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
