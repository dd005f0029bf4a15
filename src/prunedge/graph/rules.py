"""What each kind of ATen operation does to labels. What no rule describes freezes all that it touches."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from prunedge.graph.concepts import Operation
from prunedge.graph.labels import Condition, Labeller, ParamView, Rule, compact

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
_ALONG = {"_softmax", "_log_softmax", "_safe_softmax", "softmax", "cumsum", "sort", "topk"}
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update",
    "_batch_norm_no_update", "cudnn_batch_norm", "batch_norm", "miopen_batch_norm",
}  # fmt: skip
_FACTORIES = {
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_empty_strided",
    "arange",
    "zeros",
    "ones",
    "full",
    "empty",
    "rand",
    "randn",
    "scalar_tensor",
    "linspace",
    "tensor",
    "eye",
}
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
        (base in ("bmm", "baddbmm"), _product),
        (base.startswith("_scaled_dot_product"), _attention),
        (base in _BATCH_NORMS, _batch_norm),
        (base == "native_layer_norm", _layer_norm),
        (base == "native_group_norm", _group_norm),
        (base == "_weight_norm_interface", _weight_norm),
        (base in _SAME or base in _LIKE, _same),
        (base in _RESHAPES, _reshape),
        (base in ("cat", "stack"), _join),
        (base == "as_strided", _strided),
        (base == "im2col", _patches),
        (base == "glu", _gate),
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
    parts = [compact(part) for part in _outputs(func(labels.expand(args[0].shape), *rest, **kwargs))]
    if func._schema.name == "aten::split":
        # Code that halves the channels (chunk) halves what is left of them: the parts must lose the same places. Where the channels
        # can't be divided evenly the last part is smaller, and has so many fewer in the end.
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        if labels.shape[dim] > 1:
            for tensor, part in zip(made[1:], parts[1:], strict=True):
                first = parts[0].narrow(dim, 0, tensor.shape[dim]) if parts[0].shape[dim] > 1 else parts[0]
                lab.ledger.tie(first, part, "is split beside values that are no channels")
    if func._schema.name in ("aten::split", "aten::split_with_sizes"):
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        if labels.shape[dim] > 1:
            whole = [part.expand([s if d == dim % part.dim() else p for d, (s, p) in enumerate(zip(t.shape, part.shape, strict=True))])
                     for t, part in zip(made, parts, strict=True)]  # fmt: skip
            lab.resizes((place, part, dim % part.dim()) for place, part in enumerate(whole))
    if func._schema.name in ("aten::slice", "aten::split", "aten::split_with_sizes"):
        # Where the parts end may be written down in an attribute of the module.
        lab.ledger.parts += [(lab.module, part) for part in parts if len(_varying(part)) == 1 and part.shape != labels.shape]
    for tensor, moved_labels in zip(made, parts, strict=True):
        lab.name(tensor, moved_labels)


def _reshape(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    view, labels = lab.param(args[0]), lab.labels(args[0])
    if view is not None:
        after_view = ParamView(view.name, tuple(c.reshape(out.shape) for c in view.coordinates))
        atoms = {dim: lab.ledger.of(after_view, dim, None) for dim, size in enumerate(out.shape) if size > 1}
        lab.resizes(
            (dim, one.reshape([-1 if d == dim else 1 for d in range(out.dim())]), dim) for dim, one in atoms.items() if one is not None
        )
        lab.name(out, after_view)
    elif labels is not None:
        after = compact(labels.expand(args[0].shape).reshape(out.shape))
        several = [size for size in after.shape if size > 1]
        if len(several) > 1 and prod(several) > labels.numel() * lab.batch:
            # Channels and places are read in another order than they lie in: who meets whom depends on the size of the picture.
            return lab.ledger.freeze(labels, "is laid out among the places, in an order that depends on the size of the picture")
        if len(several) > 1 and several != [size for size in labels.shape if size > 1]:
            # Heads and their width, shuffled groups: in the end the channels leave along one of these dimensions.
            lab.ledger.divisions.append((lab.module, after.reshape(several)))
        lab.resizes((dim, after, dim) for dim in _varying(after))
        lab.name(out, after)


def _varying(labels: torch.Tensor) -> list[int]:
    return [dim for dim, size in enumerate(labels.shape) if size > 1]


def _strided(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Pooling to a single place in the channels-last layout ends with strides that say so, and moves nothing."""
    shape, strides = args[1], args[2]
    wanted: list[int] = []
    step = 1
    for size in reversed([size for size in shape if size > 1]):
        wanted.insert(0, step)
        step *= size
    # In place it has happened already, so that only the new strides can be looked at.
    if list(shape) != list(args[0].shape) or [stride for size, stride in zip(shape, strides, strict=True) if size > 1] != wanted:
        return _unknown(lab, func, args, kwargs, out)
    _same(lab, func, args, kwargs, out)


def _join(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """cat, and stack, which gives each part a dimension of its own first."""
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    if func._schema.name == "aten::stack":
        several = [(x, lab.promote(x)) for x in args[0]]
        found = [(x.unsqueeze(dim), None if labels is None else labels.unsqueeze(dim)) for x, labels in several]
    else:
        found = [(x, lab.promote(x)) for x in args[0] if x.numel()]
    if all(labels is None for _, labels in found):
        return
    flat = [d for d in range(out.dim()) if d != dim and all(L is None or L.shape[d] == 1 for _, L in found)]
    pieces = []
    for x, labels in found:
        shape = [1 if d in flat else size for d, size in enumerate(x.shape)]
        pieces.append(torch.zeros(shape, dtype=torch.int64) if labels is None else labels.expand(shape))
    whole = compact(torch.cat(pieces, dim))
    if any(d != dim for d in _varying(whole)) and whole.shape[dim] > 1:
        # Joined along places (a class token before the patches), the parts' channels are the same ones.
        first = next(piece for piece in pieces if bool((piece != 0).any())).narrow(dim, 0, 1)
        for piece in pieces:
            lab.ledger.tie(first, piece, "is joined with values that are no channels")
        whole = first.expand([1 if d == dim else size for d, size in enumerate(whole.shape)])
    lab.name(out, whole)


def _gate(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The first half of the channels times the sigmoid of the second."""
    dim = (args[1] if len(args) > 1 else -1) % out.dim()
    labels = lab.labels(args[0])
    if labels is not None and labels.shape[dim] > 1:
        first, second = labels.chunk(2, dim)
        lab.ledger.tie(first, second, "is gated by values that are no channels")
        labels = first
    lab.name(out, labels)


def _patches(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(n, c, h, w) -> (n, c * k * k, places): each channel becomes its k * k neighbours."""
    labels = lab.labels(args[0])
    if labels is None:
        return _unknown(lab, func, args, kwargs, out)
    line = lab.ledger.squash(labels, [d for d in _varying(labels) if d != labels.dim() - 3]).reshape(-1)
    repeats = out.shape[-2] // args[0].shape[-3]
    lab.name(out, line.expand(args[0].shape[-3]).repeat_interleave(repeats).reshape([1] * (out.dim() - 2) + [-1, 1]))


def _pool(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    labels = lab.labels(args[0])
    if labels is None:
        return _unknown(lab, func, args, kwargs, out)
    name = func._schema.name
    places = next(int(d) for d in name if d.isdigit()) if any(d in name for d in "123") else 2
    labels = lab.ledger.squash(labels, range(labels.dim() - places, labels.dim()))
    for made in _outputs(out):
        lab.name(made, labels)


def _reduce(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    source, labels, view = args[0], lab.labels(args[0]), lab.param(args[0])
    others = [x for x in lab.tensors(args[1:], kwargs) if lab.tag(x) is not None]
    if others:  # the binary max and min
        return _pointwise(lab, func, args, kwargs, out)
    dims = _dims(func, args, kwargs, source.dim())
    if view is not None:
        return _reduce_param(lab, func, view, dims, out)
    if labels is None:
        return _unknown(lab, func, args, kwargs, out)
    across = [d for d in _varying(labels) if d in dims]
    if across and any(d not in dims for d in _varying(labels)):
        # A sum over blocks (split attention) or over a head's width: what is summed up leaves together.
        labels, across = lab.ledger.squash(labels, across), []
    if across:
        lab.mixes(func, source.dim(), _lines(lab, labels, across))
        return
    for made in _outputs(out):
        kept = labels if made.dim() == source.dim() else labels.reshape([s for d, s in enumerate(labels.shape) if d not in dims])
        lab.name(made, kept)


def _lines(lab: Labeller, labels: torch.Tensor, dims: list[int]) -> dict[int, list[torch.Tensor]]:
    """The labels along each of these dimensions, the others tied where there are several."""
    return {dim: [lab.ledger.squash(labels, [d for d in _varying(labels) if d != dim]).reshape(-1)] for dim in dims}


def _reduce_param(lab: Labeller, func: Any, view: ParamView, dims: list[int], out: Any) -> None:
    """The mean or norm of a weight over some of its dimensions (weight standardisation, weight norm)."""
    lab.ledger.used.add(view.name)
    lab.mixes(func, len(view.coordinates), _param_lines(lab, view, dims))
    for made in _outputs(out):
        keepdim = made.dim() == view.coordinates[0].dim()
        smaller = [c[tuple(slice(0, 1) if d in dims else slice(None) for d in range(c.dim()))] for c in view.coordinates]
        if not keepdim:
            smaller = [c.reshape([size for d, size in enumerate(c.shape) if d not in dims]) for c in smaller]
        lab.name(made, ParamView(view.name, tuple(smaller)) if made.dim() else None)


def _param_lines(lab: Labeller, view: ParamView, dims: list[int]) -> dict[int, list[torch.Tensor]]:
    lines: dict[int, list[torch.Tensor]] = {}
    for dim in dims:
        for axis, coordinate in enumerate(view.coordinates):
            small = compact(coordinate)
            if small.shape[dim] > 1 and small.numel() == small.shape[dim]:
                lines.setdefault(dim, []).append(small.reshape(-1) + lab.ledger.base[view.name, axis])
    return lines


def _dims(func: Any, args: Any, kwargs: Any, rank: int) -> list[int]:
    names = [a.name for a in func._schema.arguments]
    place = names.index("dim") if "dim" in names else None
    value = kwargs.get("dim", args[place] if place is not None and place < len(args) else None)
    if value is None or value == []:
        return list(range(rank))
    return [d % rank for d in ([value] if isinstance(value, int) else value)]


def _along(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    labels = lab.labels(args[0])
    across = [] if labels is None else [d for d in _dims(func, args, kwargs, args[0].dim()) if labels.shape[d] > 1]
    name = func._schema.name.split("::")[1].strip("_")
    if across and "softmax" not in name:
        lab.ledger.freeze(labels, f"{name} runs across the channels")
    elif across and labels is not None:
        if len(_varying(labels)) > 1:
            # Softmax over the blocks (split attention): the blocks stay, their channels may go.
            labels = lab.ledger.squash(labels, across).expand(labels.shape)
        else:
            lab.mixes(func, args[0].dim(), {across[0]: [labels.reshape(-1)]})
    for made in _outputs(out):
        lab.name(made, labels)


def _pointwise(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Operands that meet element by element leave together."""
    tensors, made = list(lab.tensors(args, kwargs)), _outputs(out)
    if all(lab.labels(x) is None for x in tensors):
        return _pointwise_params(lab, tensors, made)
    rank, base = made[0].dim(), func._schema.name
    if base.endswith("_") and made[0]._is_view() and any(lab.tag(x) is not None for x in tensors[1:]):
        # What was viewed doesn't learn what is written into its view.
        return lab.freeze_all(args, kwargs, "written in place into part of another tensor")
    acts = [(_pad(x, rank), labels.reshape(_pad(labels, rank))) for x in tensors if (labels := lab.labels(x)) is not None]
    varying = sorted({d for _, labels in acts for d in _varying(labels)})
    full = [labels for sizes, labels in acts if all(sizes[d] > 1 for d in varying)]
    thin = [labels for sizes, labels in acts if any(sizes[d] == 1 for d in varying)]
    whole = full[0] if full else torch.zeros([1] * rank, dtype=torch.int64)
    for labels in full[1:]:
        lab.ledger.tie(whole, labels, "meets channels that can't leave")
    for labels in thin:
        _spread(lab, whole, labels, varying)
    for x in tensors:
        sizes = _pad(x, rank)
        meets = [d for d in varying if sizes[d] > 1]
        if lab.param(x) is not None:
            _scale(lab, x, whole, meets, varying, rank)
        elif lab.tag(x) is None:
            for d in meets:
                _only_if_pruned(lab, whole, d, varying, None, "meets values of a fixed size")
    for tensor in made:
        lab.name(tensor, compact(whole) if full else None)


def _only_if_pruned(lab: Labeller, labels: torch.Tensor, dim: int, varying: list[int], partner: torch.Tensor | None, reason: str) -> None:
    """Tie to the partner, or freeze: at once where channels lie along one dimension, else if they turn out to leave along it."""
    if len(varying) > 1:
        lab.ledger.conditions.append(Condition(labels, dim, partner, reason))
    elif partner is None:
        lab.ledger.freeze(labels, reason)
    else:
        lab.ledger.tie(labels, partner, reason)


def _spread(lab: Labeller, whole: torch.Tensor, labels: torch.Tensor, varying: list[int]) -> None:
    """Values with fewer channels than what they meet (a gate for each head or block)."""
    if _varying(labels) and bool((whole != 0).any()):
        lab.ledger.conditions.append(Condition(whole, -1, labels, "one channel is spread over the others"))
    else:
        lab.ledger.freeze(labels, "one channel is spread over the others")


def _pointwise_params(lab: Labeller, tensors: list[torch.Tensor], made: list[torch.Tensor]) -> None:
    """A parameter on its way to a layer: scaled, standardised, or summed with another."""
    views = [(x, view) for x in tensors if (view := lab.param(x)) is not None]
    if not views:
        return
    for _, view in views:
        lab.ledger.used.add(view.name)
    main, ours = max(views, key=lambda found: found[0].numel())
    if main.shape != made[0].shape or made[0].dim() == 0:
        for _, view in views:
            lab.ledger.freeze_param(view, "parameters are combined in a way that can't be followed")
        return
    for x in tensors:
        if x is not main:
            _meet_param(lab, ours, main.dim(), x)
    for tensor in made:
        lab.name(tensor, ours if tensor.shape == main.shape else None)


def _meet_param(lab: Labeller, ours: ParamView, rank: int, x: torch.Tensor) -> None:
    """Tie the positions of a parameter's view to those of another operand, dimension by dimension."""
    theirs = lab.param(x)
    for dim, size in enumerate(_pad(x, rank)):
        if size == 1:
            continue
        mine = ours.along(dim)
        if theirs is None:
            if mine is not None and lab.tag(x) is None:
                lab.ledger.freeze(mine[1] + lab.ledger.base[ours.name, mine[0]], "a weight meets values of a fixed size")
            continue
        other = theirs.along(dim - (rank - x.dim()))
        if mine is not None and other is not None:
            left, right = mine[1] + lab.ledger.base[ours.name, mine[0]], other[1] + lab.ledger.base[theirs.name, other[0]]
            if not torch.equal(left, right):
                lab.ledger.roles.setdefault((theirs.name, other[0]), "channel")
                lab.ledger.tie(left, right)
        elif theirs.name != ours.name:
            for view in (ours, theirs):
                lab.ledger.freeze_param(view, "parameters are combined in a way that can't be followed")


def _weight_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """w = g * v / |v|: a channel of v takes its length g along; an input channel leaves the norm."""
    view = lab.param(args[0])
    if view is not None:
        lab.mixes(func, args[0].dim(), _param_lines(lab, view, [d for d in range(args[0].dim()) if args[1].shape[d] == 1]))
    _pointwise_params(lab, [args[0], args[1]], _outputs(out)[:1])


def _pad(x: torch.Tensor, rank: int) -> list[int]:
    return [1] * (rank - x.dim()) + list(x.shape)


def _scale(lab: Labeller, x: torch.Tensor, whole: torch.Tensor, meets: list[int], varying: list[int], rank: int) -> None:
    """Tie a parameter that scales or shifts channels to them."""
    view = lab.param(x)
    assert view is not None
    lab.ledger.used.add(view.name)
    for d in meets:
        atoms = lab.ledger.of(view, d - (rank - x.dim()), "channel")
        if atoms is None:
            _only_if_pruned(lab, whole, d, varying, None, "meets a parameter in an order that can't be followed")
            lab.ledger.freeze_param(view, "meets channels in an order that can't be followed")
        else:
            _only_if_pruned(lab, whole, d, varying, atoms.reshape([-1 if i == d else 1 for i in range(rank)]), "scaled by a parameter")


def _batch_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    labels, weight = lab.labels(args[0]), lab.param(args[0])
    if weight is not None and args[3] is None:
        return _standardise(lab, func, weight, args, out)
    views = [view for view in (lab.param(x) for x in args[1:5]) if view is not None]
    computed = any(isinstance(x, torch.Tensor) and lab.tag(x) is None for x in args[1:5])
    if labels is None or computed:
        return lab.freeze_all(args, kwargs, "batch norm of values that can't be followed")
    labels = lab.ledger.squash(labels, [d for d in _varying(labels) if d != 1])
    for view in views:
        lab.ledger.used.add(view.name)
        atoms = lab.ledger.of(view, 0, "channel")
        if atoms is not None:
            lab.ledger.tie(labels.reshape(-1), atoms)
    lab.name(_outputs(out)[0], labels)


def _standardise(lab: Labeller, func: Any, view: ParamView, args: Any, out: Any) -> None:
    """Weight standardisation written as batch norm of a weight (1, filters, weights of a filter)."""
    lab.ledger.used.add(view.name)
    lab.mixes(func, args[0].dim(), _param_lines(lab, view, [d for d in range(args[0].dim()) if d != 1]))
    filters = lab.ledger.of(view, 1, "out")
    for x in args[1:3]:
        gain = lab.param(x)
        if gain is not None:
            lab.ledger.used.add(gain.name)
            atoms = lab.ledger.of(gain, 0, "channel")
            if atoms is not None and filters is not None:
                lab.ledger.tie(filters, atoms)
    lab.name(_outputs(out)[0], view)


def _layer_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    x, shape, labels = args[0], args[1], lab.promote(args[0])
    if labels is None:
        return lab.freeze_all(args, kwargs, "layer norm of values that can't be followed")
    rank, first = x.dim(), x.dim() - len(shape)
    varying = _varying(labels)
    across = [d for d in varying if d >= first]
    if len(across) == 1:
        # Of several dimensions of channels (heads, width) only one is pruned: the first head's line stands for all.
        line = labels[tuple(slice(None) if d == across[0] else slice(0, 1) for d in range(rank))]
        lab.mixes(func, rank, {across[0]: [line.reshape(-1)]})
    elif across:
        lab.ledger.freeze(labels, "layer norm over several dimensions of channels")
    for weight in args[2:4]:
        if lab.param(weight) is not None:
            _scale(lab, weight, labels, [d for d in across if weight.shape[d - first] > 1], varying, rank)
        elif isinstance(weight, torch.Tensor):
            for d in across:
                _only_if_pruned(lab, labels, d, varying, None, "meets values of a fixed size")
    lab.name(_outputs(out)[0], labels)


def _group_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    labels = lab.labels(x)
    if labels is None:
        return lab.freeze_all(args, kwargs, "group norm of values that can't be followed")
    line = lab.ledger.squash(labels, [d for d in _varying(labels) if d != 1]).reshape(-1).expand(x.shape[1])
    for one in (weight, bias):
        view = lab.param(one)
        if view is not None:
            lab.ledger.used.add(view.name)
            atoms = lab.ledger.of(view, 0, "channel")
            if atoms is not None:
                lab.ledger.tie(line, atoms)
        elif isinstance(one, torch.Tensor):
            lab.ledger.freeze(line, "meets values of a fixed size")
    blocks = line.reshape(groups, -1)
    if norm_by_blocks(groups, x.shape[1]):
        lab.ledger.tie(blocks[:, :1], blocks)
    else:
        lab.ledger.tie(blocks[:1], blocks)
        lab.mixes(func, x.dim(), {1: [line]})
    lab.name(_outputs(out)[0], line.reshape([1, -1] + [1] * (x.dim() - 2)))


def _product(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(b, n, k) @ (b, k, m): of heads (b), each leaves as a whole; without heads, the contracted channels leave together."""
    added = args[0] if func._schema.name == "aten::baddbmm" else None
    x, y = args[-2:]
    if lab.param(x) is not None or lab.param(y) is not None:
        return _unknown(lab, func, args, kwargs, out)
    made = _contract(lab, x, y, lab.labels(x), lab.labels(y))
    lab.name(out, made)
    if added is not None and lab.tag(added) is not None:
        if made is None:
            lab.freeze_all((added,), {}, "meets values of a fixed size")
        else:
            _pointwise(lab, func, (added, out), {}, out)


def _contract(lab: Labeller, x: torch.Tensor, y: torch.Tensor, a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """Labels of the product of two activations (..., n, k) @ (..., k, m), given theirs; counts it."""
    places = prod(x.shape) * y.shape[-1] // lab.batch
    most = max((one for one in (a, b) if one is not None), key=lambda one: one.numel(), default=None)
    lab.ledger.operations.append(Operation(None, places) if most is None or most.numel() == 1 else (places // most.numel(), most))
    if a is None and b is None:
        return None
    rank = x.dim()
    heads = sorted({d for one in (a, b) if one is not None for d in _varying(one) if d < rank - 2})
    if heads and lab.by_width:
        a, b = (None if one is None else lab.ledger.squash(one, heads) for one in (a, b))
    elif heads:
        rows = (rank - 2, rank - 1)
        a, b = (None if one is None else lab.ledger.squash(one, rows) for one in (a, b))
        if a is not None and b is not None:
            lab.ledger.tie(a, b, "meets values of a fixed size")
            return a if a.numel() >= b.numel() else b
        sure = a if a is not None else b
        lab.ledger.freeze(sure, "meets values of a fixed size")
        return None
    return _contract_plain(lab, a, b, rank)


def _contract_plain(lab: Labeller, a: torch.Tensor | None, b: torch.Tensor | None, rank: int) -> torch.Tensor | None:
    meets = [one for one, d in ((a, rank - 1), (b, rank - 2)) if one is not None and one.shape[d] > 1]
    if any(len(_varying(one)) > 1 for one in (a, b) if one is not None):
        for one in (a, b):
            lab.ledger.freeze(one, "a product of two activations mixes channels in two directions")
        return None
    if len(meets) == 2:
        lab.ledger.tie(meets[0].reshape(-1), meets[1].reshape(-1))
    else:
        for one in meets:
            lab.ledger.freeze(one, "a product with values of a fixed size consumes the channels")
    left = a if a is not None and a.shape[rank - 2] > 1 else None
    right = b if b is not None and b.shape[rank - 1] > 1 else None
    if left is not None and right is not None:
        for one in (left, right):
            lab.ledger.freeze(one, "a product of two activations makes a table of channels by channels")
        return None
    return left if left is not None else right


def _attention(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """softmax(q k^T) v, fused: q, k and v are (batch, heads, places, width)."""
    q, k, v = args[:3]
    if any(lab.param(x) is not None for x in (q, k, v)):
        return _unknown(lab, func, args, kwargs, out)
    a, b, c = (lab.labels(x) for x in (q, k, v))
    mask = kwargs.get("attn_mask", next((x for x in args[3:] if isinstance(x, torch.Tensor)), None))
    turned = None if b is None else b.transpose(-1, -2)
    weights = _contract(lab, q, k.transpose(-1, -2), a, turned)
    if weights is not None and (weights.shape[-1] > 1 or weights.shape[-2] > 1):
        lab.ledger.freeze(weights, "attention mixes channels in two directions")
        weights = None
    if mask is not None and lab.tag(mask) is not None:
        theirs = _mask_heads(lab, mask)
        if weights is None or theirs is None or any(d != 1 for d in _varying(theirs)):
            lab.freeze_all((mask, v), {}, "attention with a mask that can't be followed")
        else:
            lab.ledger.tie(weights, theirs, "meets a mask of a fixed size")
    elif mask is not None and mask.dim() > 2 and mask.shape[-3] > 1:
        lab.ledger.freeze(weights, "meets a mask of a fixed size")
    by_width = lab.by_width or (a is not None and _varying(a) == [a.dim() - 1])  # or there is one head alone
    if by_width and a is not None and a.shape[-1] > 1 and kwargs.get("scale") is None:
        # Its default scale is the root of the width.
        wide = lab.ledger.squash(a, [d for d in _varying(a) if d != a.dim() - 1])
        lab.mixes(func, q.dim(), {q.dim() - 1: [wide.reshape(-1)]})
    fake = q.new_empty(1).expand(*q.shape[:-1], k.shape[-2])
    made = _contract(lab, fake, v, weights, c)
    lab.name(_outputs(out)[0], made)


def _mask_heads(lab: Labeller, mask: torch.Tensor) -> torch.Tensor | None:
    """Labels of an attention mask; one made from a table of positions by heads varies along its heads."""
    view = lab.param(mask)
    if view is None or mask.dim() < 3 or mask.shape[-3] == 1:
        return lab.promote(mask)
    lab.ledger.used.add(view.name)
    atoms = lab.ledger.of(view, mask.dim() - 3, "channel")
    return None if atoms is None else atoms.reshape(-1, 1, 1)


def norm_by_blocks(groups: int, channels: int) -> bool:
    """Whether a group norm loses whole groups (they are small), rather than the same channels of each."""
    return channels // groups < 4


def _consume(lab: Labeller, labels: torch.Tensor | None, dim: int, atoms: torch.Tensor | None) -> None:
    """Tie the labels of a contraction's input along `dim` to the slices of the weight that meet them."""
    if labels is None:
        return lab.ledger.freeze(atoms, "consumes the picture or values that are no channels")
    if atoms is None:
        return lab.ledger.freeze(labels, "a layer consumes the channels in an order that can't be followed")
    line = lab.ledger.squash(labels, [d for d in _varying(labels) if d != dim % labels.dim()])
    lab.ledger.tie(line.reshape(-1), atoms)


def _shift(lab: Labeller, bias: Any, atoms: torch.Tensor | None) -> None:
    view = lab.param(bias)
    if view is not None:
        lab.ledger.used.add(view.name)
        shifts = lab.ledger.of(view, 0, "channel")
        if shifts is not None and atoms is not None:
            lab.ledger.tie(atoms, shifts)
    elif isinstance(bias, torch.Tensor) and atoms is not None:
        # A bias put together from several parameters carries their labels; any other is of a fixed size.
        labels = lab.labels(bias)
        lab.ledger.tie(atoms, torch.zeros(1, dtype=torch.int64) if labels is None else labels, "a computed bias meets the channels")


def _matrix(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    linear = func._schema.name == "aten::linear"
    shifted = func._schema.name == "aten::addmm"
    x, weight = (args[1], args[2]) if shifted else (args[0], args[1])
    bias = args[0] if shifted else (args[2] if linear and len(args) > 2 else None)
    view = lab.param(weight)
    if view is None and lab.param(x) is None and bias is None and weight.dim() == 2:
        return lab.name(out, _contract(lab, x, weight, lab.labels(x), lab.labels(weight)))
    if view is None:
        return _unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(view.name)
    part = weight.numel() / prod(lab.ledger.shapes[view.name])
    lab.ledger.operations.append(Operation(view.name, max(1, prod(x.shape[:-1]) // lab.batch) * part))
    made = lab.ledger.of(view, 0 if linear else 1, "out")
    _consume(lab, lab.promote(x), x.dim() - 1, lab.ledger.of(view, 1 if linear else 0, "in"))
    _shift(lab, bias, made)
    lab.ledger.positions.setdefault(view.name, prod(x.shape[1:-1]))
    lab.name(out, None if made is None else made.reshape([1] * (out.dim() - 1) + [-1]))


def _convolution(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    x, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
    view, labels = lab.param(weight), lab.labels(x)
    if view is None or lab.param(x) is not None:
        return _unknown(lab, func, args, kwargs, out)
    varying = [] if labels is None else _varying(labels)
    slides = bool(varying) and 1 not in varying and all(x.shape[d] == out.shape[d] for d in varying)
    if labels is not None and slides and weight.numel() == weight.shape[-1]:
        return _slide(lab, func, labels, view, args, out)
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


def _slide(lab: Labeller, func: Any, labels: torch.Tensor, view: ParamView, args: Any, out: Any) -> None:
    """A small filter that slides along the channels (efficient channel attention): each meets the neighbours that stay."""
    x = args[0]
    lab.ledger.used.add(view.name)
    lab.ledger.operations.append((prod(out.shape[2:]) * args[1].numel() // max(1, labels.numel()) * x.shape[0] // lab.batch, labels))
    if len(_varying(labels)) == 1:
        lab.mixes(func, x.dim(), {_varying(labels)[0]: [labels.reshape(-1)]})
        lab.name(out, labels)
    else:
        lab.ledger.freeze(labels, "a filter slides along channels in two directions")


def _depthwise(lab: Labeller, labels: torch.Tensor | None, view: ParamView, groups: int, channels: int) -> torch.Tensor | None:
    """Each input channel makes its own `channels // groups` outputs, and leaves with them."""
    made = lab.ledger.of(view, 0, "channel")
    if labels is not None and len(_varying(labels)) == 1:
        # Code that calls the convolution itself may have written down its number of groups.
        lab.ledger.parts.append((lab.module, labels))
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
    # Down to one channel a block it would be a depthwise one.
    lab.ledger.irregular = True
    if transposed or ins is None or outs is None or view.along(0) is None:
        lab.ledger.freeze_param(view, "a grouped transposed convolution is not followed")
        lab.ledger.freeze(labels, "a grouped transposed convolution is not followed")
        return outs if outs is not None and len(outs) == channels else None
    _consume(lab, labels, 1, ins.repeat(groups))
    blocks = outs.reshape(groups, -1)
    lab.ledger.tie(blocks[:1], blocks)
    return outs


# What these do to any number of channels is what they do to each of them (see `follow`).
REGULAR: frozenset[Rule] = frozenset({_convolution, _matrix, _batch_norm, _same, _reshape, _join, _pool, _reduce, _pointwise, _nothing})
