"""What each kind of ATen operation does to labels. What no rule describes freezes all that it touches."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from prunedge.graph.concepts import Operation
from prunedge.graph.labels import Labeller, ParamView, Rule, compact

_SAME = {"clone", "detach", "alias", "_to_copy", "contiguous", "lift_fresh", "dropout", "native_dropout", "positive"}
_LIKE = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"}
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
_MOVES = {
    "permute", "transpose", "t", "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "expand", "unsqueeze",
    "squeeze", "roll", "flip", "index", "index_select", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "constant_pad_nd", "repeat", "unfold", "diagonal",
}  # fmt: skip
_SPATIAL = (
    "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample", "reflection_pad", "replication_pad",
    "fractional_max_pool",
)  # fmt: skip
_REDUCTIONS = {
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "argmax", "prod", "logsumexp", "any", "all", "norm",
    "linalg_vector_norm",
}  # fmt: skip
_ALONG = {"_softmax", "_log_softmax", "softmax", "cumsum", "sort", "topk"}
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update",
    "_batch_norm_no_update", "cudnn_batch_norm", "batch_norm", "miopen_batch_norm",
}  # fmt: skip
_FACTORIES = {"arange", "zeros", "ones", "full", "empty", "rand", "randn", "scalar_tensor", "linspace", "tensor", "eye"}
_POINTWISE = {
    "hardswish",
    "selu",
    "relu6",
    "log_sigmoid_forward",
    "bernoulli",
    "leaky_relu",
    "hardtanh",
    "prelu",
    "_prelu_kernel",
    "masked_fill",
    "rrelu_with_noise",
    "clamp",
    "fill",
    "zero",
    "copy",
}


def rule_for(func: Any) -> Rule:
    """The rule for an ATen operation; `_unknown` when there is none."""
    name = func._schema.name.split("::")[1]
    base = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    table: tuple[tuple[bool, Rule], ...] = (
        (base in ("convolution", "_convolution"), _convolution),
        (base in ("addmm", "mm", "linear"), _matrix),
        (base in _BATCH_NORMS, _batch_norm),
        (base in ("native_layer_norm", "native_group_norm"), _statistics),
        (base in _SAME or base in _LIKE, _same),
        (base in _RESHAPES, _reshape),
        (base == "cat", _cat),
        (base in _MOVES, _move),
        (base.lstrip("_").startswith(_SPATIAL), _pool),
        (base in _REDUCTIONS, _reduce),
        (base in _ALONG, _along),
        (base in _FACTORIES, _nothing),
        (base in _POINTWISE or torch.Tag.pointwise in func.tags, _pointwise),
    )
    return next((rule for applies, rule in table if applies), _unknown)


def _outputs(out: Any) -> list[torch.Tensor]:
    return [x for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]


def _nothing(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The results carry no channels."""


def _unknown(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    lab.freeze_all(args, kwargs, f"{func._schema.name.split('::')[1]} is an operation that prunedge does not follow")
    _count(lab, func, args, kwargs, out)


def _count(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    formula = flop_registry.get(func._overloadpacket)
    if formula is not None:
        lab.ledger.operations.append(Operation(None, formula(*args, **kwargs, out_val=out) // 2 // lab.batch))


def _same(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    for made in _outputs(out):
        lab.name(made, lab.tag(args[0]))


def _move(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Do to the labels, or to each coordinate of a parameter, what was done to the values."""
    tagged = [x for x in lab.tensors(args, kwargs) if lab.tag(x) is not None]
    if not tagged:
        return
    if len(tagged) > 1 or tagged[0] is not args[0]:
        return _unknown(lab, func, args, kwargs, out)
    made, view = _outputs(out), lab.param(args[0])
    if view is not None:
        moved = [_outputs(lab.replay(func, (c, *args[1:]), kwargs, lambda x: x)) for c in view.coordinates]
        for i, tensor in enumerate(made):
            lab.name(tensor, ParamView(view.name, tuple(m[i] for m in moved)))
        return
    labels = lab.labels(args[0])
    assert labels is not None
    # Padding fills with values that are no channels: label 0, whatever the value was.
    rest = (*args[1:2],) if func._schema.name == "aten::constant_pad_nd" else args[1:]
    for tensor, moved_labels in zip(made, _outputs(func(labels.expand(args[0].shape), *rest, **kwargs)), strict=True):
        lab.name(tensor, compact(moved_labels))


def _reshape(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    view, labels = lab.param(args[0]), lab.labels(args[0])
    if view is not None:
        lab.name(out, ParamView(view.name, tuple(c.reshape(out.shape) for c in view.coordinates)))
    elif labels is not None:
        after = compact(labels.expand(args[0].shape).reshape(out.shape))
        if _varying(after) > _varying(labels):
            lab.ledger.freeze(labels, "a reshape divides the channels into blocks (heads, shuffled groups) of a fixed size")
        lab.name(out, after)


def _varying(labels: torch.Tensor) -> int:
    return sum(size > 1 for size in labels.shape)


def _cat(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    parts = [x for x in args[0] if x.numel()]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    dim = dim % out.dim()
    if any(lab.param(x) is not None for x in parts):
        return _unknown(lab, func, args, kwargs, out)
    if all(lab.labels(x) is None for x in parts):
        return
    found = [(x, lab.labels(x)) for x in parts]
    flat = [d for d in range(out.dim()) if d != dim and all(L is None or L.shape[d] == 1 for _, L in found)]
    pieces = []
    for x, labels in found:
        shape = [1 if d in flat else size for d, size in enumerate(x.shape)]
        pieces.append(torch.zeros(shape, dtype=torch.int64) if labels is None else labels.expand(shape))
    lab.name(out, compact(torch.cat(pieces, dim)))


def _pool(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    labels = lab.labels(args[0])
    if labels is None:
        return _unknown(lab, func, args, kwargs, out)
    name = func._schema.name
    places = next(int(d) for d in name if d.isdigit()) if any(d in name for d in "123") else 2
    if any(size > 1 for size in labels.shape[-places:]):
        return lab.ledger.freeze(labels, "pooling or resampling runs across the channels")
    for made in _outputs(out):
        lab.name(made, labels)


def _reduce(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    source, labels = args[0], lab.labels(args[0])
    others = [x for x in lab.tensors(args[1:], kwargs) if lab.tag(x) is not None]
    if others:  # the binary max and min
        return _pointwise(lab, func, args, kwargs, out)
    if labels is None:
        return _unknown(lab, func, args, kwargs, out)
    dims = _dims(func, args, kwargs, source.dim())
    if any(labels.shape[d] > 1 for d in dims):
        return lab.ledger.freeze(labels, f"{func._schema.name.split('::')[1]} is taken across the channels")
    for made in _outputs(out):
        kept = labels if made.dim() == source.dim() else labels.reshape([s for d, s in enumerate(labels.shape) if d not in dims])
        lab.name(made, kept)


def _dims(func: Any, args: Any, kwargs: Any, rank: int) -> list[int]:
    names = [a.name for a in func._schema.arguments]
    place = names.index("dim") if "dim" in names else None
    value = kwargs.get("dim", args[place] if place is not None and place < len(args) else None)
    if value is None or value == []:
        return list(range(rank))
    return [d % rank for d in ([value] if isinstance(value, int) else value)]


def _along(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    labels = lab.labels(args[0])
    if labels is not None and any(labels.shape[d] > 1 for d in _dims(func, args, kwargs, args[0].dim())):
        lab.ledger.freeze(labels, f"{func._schema.name.split('::')[1].strip('_')} runs across the channels")
    _same(lab, func, args, kwargs, out)


def _pointwise(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Operands that meet element by element leave together."""
    tensors, made = list(lab.tensors(args, kwargs)), _outputs(out)
    acts = [(x, lab.labels(x)) for x in tensors if lab.labels(x) is not None]
    if not acts:
        return _unknown(lab, func, args, kwargs, out)
    rank, base = made[0].dim(), func._schema.name
    if base.endswith("_") and made[0]._is_view() and any(lab.tag(x) is not None for x in tensors[1:]):
        # What was viewed doesn't learn what is written into its view.
        return lab.freeze_all(args, kwargs, "written in place into part of another tensor")
    padded = [(_pad(x, rank), labels.reshape(_pad(labels, rank))) for x, labels in acts if labels is not None]
    varying = [d for d in range(rank) if any(labels.shape[d] > 1 for _, labels in padded)]
    sure, firm = [], False
    for sizes, labels in padded:
        if any(sizes[d] == 1 for d in varying):
            lab.ledger.freeze(labels, "one channel is spread over the others")
            firm |= any(labels.shape[d] > 1 for d in varying)
        else:
            firm |= any(labels.shape[d] == 1 for d in varying)
            sure.append(labels)
    plain = [_pad(x, rank) for x in tensors if lab.tag(x) is None]
    firm |= any(sizes[d] > 1 for sizes in plain for d in varying)
    for labels in sure[1:]:
        lab.ledger.tie(sure[0], labels, "meets channels that can't leave")
    for x in tensors:
        if lab.param(x) is not None:
            firm |= not _scale(lab, x, sure, varying, rank)
    if firm:
        lab.freeze_all(args, kwargs, "meets values of a fixed size")
    for tensor in made:
        lab.name(tensor, sure[0] if sure else None)


def _pad(x: torch.Tensor, rank: int) -> list[int]:
    return [1] * (rank - x.dim()) + list(x.shape)


def _scale(lab: Labeller, x: torch.Tensor, sure: list[torch.Tensor], varying: list[int], rank: int) -> bool:
    """Tie a parameter that scales or shifts channels to them; False when it can't be followed."""
    view = lab.param(x)
    assert view is not None
    lab.ledger.used.add(view.name)
    meets = [d for d in varying if _pad(x, rank)[d] > 1]
    if not meets:
        return True
    atoms = lab.ledger.of(view, meets[0] - (rank - x.dim()), "channel") if len(varying) == 1 else None
    if atoms is None or not sure:
        return False
    lab.ledger.tie(sure[0].reshape(-1), atoms)
    return True


def _batch_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    labels = lab.labels(args[0])
    views = [view for view in (lab.param(x) for x in args[1:5]) if view is not None]
    computed = any(isinstance(x, torch.Tensor) and lab.param(x) is None for x in args[1:5])
    if labels is None or computed or any(size > 1 for d, size in enumerate(labels.shape) if d != 1):
        return lab.freeze_all(args, kwargs, "batch norm of values that can't be followed")
    for view in views:
        lab.ledger.used.add(view.name)
        atoms = lab.ledger.of(view, 0, "channel")
        if atoms is not None:
            lab.ledger.tie(labels.reshape(-1), atoms)
    lab.name(_outputs(out)[0], labels)


def _statistics(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    lab.freeze_all(args, kwargs, "layer or group norm mixes the statistics of the channels")
    lab.name(_outputs(out)[0], lab.labels(args[0]))


def _consume(lab: Labeller, labels: torch.Tensor | None, dim: int, atoms: torch.Tensor | None) -> None:
    """Tie the labels of a contraction's input along `dim` to the slices of the weight that meet them."""
    if labels is None:
        return lab.ledger.freeze(atoms, "consumes the picture or values that are no channels")
    if atoms is None or any(size > 1 for d, size in enumerate(labels.shape) if d != dim % labels.dim()):
        lab.ledger.freeze(labels, "a layer consumes the channels in an order that can't be followed")
        return lab.ledger.freeze(atoms, "consumes channels in an order that can't be followed")
    lab.ledger.tie(labels.reshape(-1), atoms)


def _shift(lab: Labeller, bias: Any, atoms: torch.Tensor | None) -> None:
    view = lab.param(bias)
    if view is not None:
        lab.ledger.used.add(view.name)
        shifts = lab.ledger.of(view, 0, "channel")
        if shifts is not None and atoms is not None:
            lab.ledger.tie(atoms, shifts)
    elif isinstance(bias, torch.Tensor):
        lab.ledger.freeze(atoms, "a computed bias meets the channels")


def _matrix(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    linear = func._schema.name == "aten::linear"
    shifted = func._schema.name == "aten::addmm"
    x, weight = (args[1], args[2]) if shifted else (args[0], args[1])
    bias = args[0] if shifted else (args[2] if linear and len(args) > 2 else None)
    view = lab.param(weight)
    if view is None or lab.param(x) is not None:
        return _unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(view.name)
    lab.ledger.operations.append(Operation(view.name, prod(x.shape[:-1]) // lab.batch))
    made = lab.ledger.of(view, 0 if linear else 1, "out")
    _consume(lab, lab.labels(x), x.dim() - 1, lab.ledger.of(view, 1 if linear else 0, "in"))
    _shift(lab, bias, made)
    lab.ledger.positions.setdefault(view.name, prod(x.shape[1:-1]))
    lab.name(out, None if made is None else made.reshape([1] * (out.dim() - 1) + [-1]))


def _convolution(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    x, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
    view, labels = lab.param(weight), lab.labels(x)
    if view is None or lab.param(x) is not None:
        return _unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(view.name)
    places = prod((x if transposed else out).shape[2:])
    lab.ledger.operations.append(Operation(view.name, places * x.shape[0] // lab.batch))
    lab.ledger.positions.setdefault(view.name, prod(out.shape[2:]))
    channels = out.shape[1]
    if groups > 1 and groups == x.shape[1] and not transposed:
        made = _depthwise(lab, labels, view, groups, channels)
    else:
        made = _dense(lab, labels, view, transposed, groups, channels)
    _shift(lab, bias, made)
    lab.name(out, None if made is None else made.reshape([1, -1] + [1] * (out.dim() - 2)))


def _depthwise(lab: Labeller, labels: torch.Tensor | None, view: ParamView, groups: int, channels: int) -> torch.Tensor | None:
    """Each input channel makes its own `channels // groups` outputs, and leaves with them."""
    made = lab.ledger.of(view, 0, "channel")
    if made is not None:
        source = None if labels is None else labels.repeat_interleave(channels // groups, 1)
        _consume(lab, source, 1, made)
    return made


def _dense(
    lab: Labeller, labels: torch.Tensor | None, view: ParamView, transposed: bool, groups: int, channels: int
) -> torch.Tensor | None:
    """Every group of a grouped convolution loses the same channels: the j-th of each block are tied together."""
    ins, outs = lab.ledger.of(view, 0 if transposed else 1, "in"), lab.ledger.of(view, 1 if transposed else 0, "out")
    if groups == 1:
        _consume(lab, labels, 1, ins)
        return outs
    if transposed or ins is None or outs is None or view.along(0) is None:
        lab.ledger.freeze_param(view, "a grouped transposed convolution is not followed")
        lab.ledger.freeze(labels, "a grouped transposed convolution is not followed")
        return outs if outs is not None and len(outs) == channels else None
    _consume(lab, labels, 1, ins.repeat(groups))
    blocks = outs.reshape(groups, -1)
    lab.ledger.tie(blocks[:1], blocks)
    return outs
