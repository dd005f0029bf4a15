"""What is asked of every network of the zoo, and what it answered.

Channels are removed at random, 30 % and 70 % of every group that any plan may touch; the result is compared with the masked
original. Then everything that a user does with a pruned network: rank it by every criterion, remove what `choose` says, prune it a
second time, train it for a step, save and load it, run it at another size. And it is traced cold, before it ever ran.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from zoo_models import build, note_of, randomise

SHARES = (0.3, 0.7)
SIZE_TOLERANCE = 1e-3  # of the largest output, at another size, where rounding has further to go


def tensors_in(value: Any, seen: set[int] | None = None) -> Iterator[torch.Tensor]:
    """Every floating tensor in an output, whatever holds it: independent of what prunedge itself finds there."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
        return
    if isinstance(value, (str, bytes, int, float, bool, type(None))) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts: list[Any] = list(value.values())
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    elif dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        parts = list(vars(value).values()) if hasattr(value, "__dict__") else []
    for part in parts:
        yield from tensors_in(part, seen)


def call(net: nn.Module, example: Any) -> Any:
    """The network's answer to a tensor, or to a dict of named inputs."""
    return net(**example) if isinstance(example, Mapping) else net(example)


def loss(net: nn.Module, example: Any) -> torch.Tensor:
    """A loss that any network has: the mean square of everything that it puts out."""
    answers = list(tensors_in(call(net, example)))
    # Criteria that need no gradients ask without them.
    learning = [tensor for tensor in answers if tensor.requires_grad] or answers
    return torch.stack([tensor.float().square().mean() for tensor in learning]).mean()


def twice(example: Any) -> Any:
    """Two examples of what one is given of: the second is the first, turned round along its last dimension."""
    if isinstance(example, Mapping):
        return {name: twice(value) for name, value in example.items()}
    return torch.cat((example, example.flip(-1)))


def larger(example: Any) -> Any:
    """The same kind of input at one and a half or twice the size in space; None where it is no image."""
    if isinstance(example, Mapping):
        images = {name: larger(value) if name == "pixel_values" else value for name, value in example.items()}
        return images
    size = [length + 32 for length in example.shape[-2:]]
    return torch.nn.functional.interpolate(example, size) if example.dim() == 4 else None


def examine(kind: str, name: str) -> dict[str, Any]:
    """One row of the table."""
    from prunedge.graph import trace
    from prunedge.pruning.select import random_plan
    from prunedge.surgery import TOLERANCE, operate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, example = build(kind, name)
    randomise(net)
    net.eval()
    cold = [(group.name, group.size) for group in trace(copy.deepcopy(net), example).groups]
    with torch.no_grad():
        started = time.perf_counter()
        call(net, example)
        forward = time.perf_counter() - started
    started = time.perf_counter()
    graph = trace(net, example)
    row: dict[str, Any] = {
        "set": kind, "name": name, "note": note_of(kind, name), "seconds_forward": forward,
        "seconds_trace": time.perf_counter() - started, "groups": len(graph.groups), "channels": graph.channels,
        "prunable": graph.prunable_share(), "macs": graph.macs(), "params": graph.params(),
        "frozen": Counter(frozen.reason for frozen in graph.frozen).most_common(4), "cuts": {},
        "cold": cold == [(group.name, group.size) for group in graph.groups],
    }  # fmt: skip
    small = net
    for share in reversed(SHARES):
        plan = random_plan(graph, share, torch.Generator().manual_seed(3))
        started = time.perf_counter()
        surgery = operate(net, graph, plan)
        after = trace(surgery.model, example) if surgery.plan.keep else graph
        row["cuts"][str(share)] = {
            "equal": surgery.difference <= TOLERANCE, "prunable": graph.prunable_share(surgery.refused),
            "difference": surgery.difference, "refused": dict(list(surgery.refused.items())[:4]),
            "refused_count": len(surgery.refused), "asked": len(plan.keep), "seconds": time.perf_counter() - started,
            "macs": after.macs(), "params": after.params(), "predicted": after.params() == graph.params(surgery.plan),
        }  # fmt: skip
        small = surgery.model
    row["cuts"] = {str(share): row["cuts"][str(share)] for share in SHARES}
    row["size"] = _at_another_size(net, graph, surgery.plan, small, example)
    for check in (_second_round, _training_step, _pickle):
        row[check.__name__.removeprefix("_")] = _tried(check, copy.deepcopy(small), example)
    if row["pickle"] != "ok" and _tried(_pickle, copy.deepcopy(net), example) != "ok":
        # Hooks that transformers installs when a network first runs.
        row["pickle"] = "does not apply: the original can't be saved as a whole either, once it has run"
    row["criteria"], row["chosen"] = _criteria(net, graph, example)
    return row


def _tried(check: Any, *args: Any) -> str:
    """What a check says: "ok", or what went wrong."""
    try:
        return check(*args)
    except Exception as error:  # whatever it is, it is the row's result
        return f"{type(error).__name__}: {error}"[:200]


def _second_round(small: nn.Module, example: Any) -> str:
    """The pruned network loses another 30 % of every group."""
    from prunedge.graph import trace
    from prunedge.pruning.select import random_plan
    from prunedge.surgery import operate

    graph = trace(small, example)
    again = operate(small, graph, random_plan(graph, 0.3, torch.Generator().manual_seed(5)))
    if again.refused:
        return f"{len(again.refused)} groups refused: {next(iter(again.refused.items()))}"[:200]
    return "ok"


def _training_step(small: nn.Module, example: Any) -> str:
    """A forward and a backward pass in training mode, and a step of SGD."""
    small.train()
    optimizer = torch.optim.SGD([one for one in small.parameters() if one.is_floating_point()], 1e-4)
    value = loss(small, twice(example))
    value.backward()
    optimizer.step()
    if not bool(torch.isfinite(value)):
        return "the loss is not finite"
    small.eval()
    with torch.no_grad():
        call(small, example)
    return "ok"


def _pickle(small: nn.Module, example: Any) -> str:
    """Saved and loaded as a whole, with the same answers."""
    file = io.BytesIO()
    torch.save(small, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)  # our own bytes of a moment ago
    with torch.no_grad():
        pairs = zip(tensors_in(call(small, example)), tensors_in(call(other, example)), strict=True)
        return "ok" if all(torch.equal(one, two) for one, two in pairs) else "answers differently"


def _at_another_size(net: nn.Module, graph: Any, plan: Any, small: nn.Module, example: Any) -> str:
    """The pruned network against the masked one, 32 pixels larger, where the original takes that."""
    other = larger(example)
    try:
        with torch.no_grad():
            call(net, other)
    except Exception:  # whatever the network raises at a size that it isn't made for
        return "one size only"
    try:
        gap = _gap(net, graph, plan, small, other, torch.float32)
        if gap > SIZE_TOLERANCE:
            # What a network chooses by rank (boxes) jumps with the rounding of single precision.
            gap = _gap(net, graph, plan, small, other, torch.float64)
    except Exception as error:  # the original ran, so this is a fault
        return f"{type(error).__name__}: {error}"[:200]
    return "ok" if gap <= SIZE_TOLERANCE else f"differs by {gap:.1e}"


def _gap(net: nn.Module, graph: Any, plan: Any, small: nn.Module, example: Any, dtype: torch.dtype) -> float:
    """The largest difference of an answer from the masked network's, through its largest value."""
    from prunedge.surgery import masked_outputs
    from prunedge.surgery.answers import answer, precise

    wanted = masked_outputs(net, graph, plan, dtype=dtype, example=example)
    found = answer(precise(small, dtype), example, dtype).values()
    pairs = [pair for pair in zip(found, wanted, strict=True) if pair[0].is_floating_point()]
    return max(float((one - two).abs().max() / two.abs().max().clamp_min(1e-12)) for one, two in pairs)


def _criteria(net: nn.Module, graph: Any, example: Any) -> tuple[dict[str, str], str]:
    """What each criterion says, and whether what `choose` makes of Taylor's scores can be carried out."""
    import prunedge as pe
    from prunedge.errors import PrunedgeError
    from prunedge.importance import CRITERIA

    found, scores = {}, None
    for criterion in CRITERIA:
        try:
            ranked = pe.rank(net, graph, [twice(example)], criterion, loss=loss)
        except PrunedgeError as error:
            found[criterion] = f"does not apply: {error.what}"[:160]
            continue
        except Exception as error:  # a crash is a row's result
            found[criterion] = f"{type(error).__name__}: {error}"[:200]
            continue
        bad = [group for group, values in ranked.values.items() if not bool(torch.isfinite(values).all())]
        found[criterion] = f"not finite: {bad[0]}" if bad else "ok"
        if criterion == "taylor":
            scores = ranked
    if scores is None:
        return found, "no Taylor scores"
    try:
        pe.remove(net, graph, pe.choose(graph, scores, 0.3))
    except Exception as error:  # every plan that `choose` makes must be one that can be carried out
        return found, f"{type(error).__name__}: {error}"[:200]
    return found, "ok"
