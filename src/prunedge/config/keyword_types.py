"""The settings that are keywords of the library, for editors and type checkers.

Made from `sections` by `python -m prunedge.config.keywords`: change them there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict


class DataKeywords(TypedDict, total=False):
    """Which images there are, and how they are read."""

    masks: str | Path | None
    """A folder with a mask for each image, by its name (white, or a class number above 0, where
    there is damage), or annotations: COCO, YOLO, LabelMe, CVAT, Label Studio. The task is
    segmentation then. Default: `None`."""
    tile: int | None
    """Cut photographs with masks into squares of so many pixels, each an image of its own; all of a
    photograph lie on one side of the split. Default: `None`."""
    overlap: float
    """The share of such a square that the next one shows again. Default: `0.0`."""
    size: int | str | tuple[int, int]
    """Pixels of the images that the model sees: 224, or 128x384 (height x width). Default:
    `224`."""
    resize: Literal["stretch", "pad", "crop"]
    """How an image of another shape gets that size: stretch (its sides are scaled apart), pad
    (scaled alike, with grey borders), or crop (scaled alike, its middle alone). Default:
    `'stretch'`."""
    in_channels: Literal[1, 3]
    """What the model sees of an image: 3 (red, green and blue), or 1 (grey, which saves two thirds
    of the first convolution; a line says where all images are grey anyway). Pretrained weights of
    three are summed to one. Default: `3`."""
    image_norm: Literal["imagenet", "half"]
    """What is taken off each colour, and what it is divided by: imagenet (its mean and standard
    deviation), or half (0.5 and 0.5), which some of timm's weights were trained with; a line says
    so of them. Of greys it is the mean over the three colours. Default: `'imagenet'`."""
    seed: int
    """Decides the split, the random weights and the order of the images. Default: `0`."""
    folds: int | None
    """Cross-validation: share all images out anew into this many parts, one of which is the test
    split. Default: `None`."""
    fold: int
    """Which part is the test split, from 0. Default: `0`."""
    group_by: str | None
    """`parent`, `similar` (images that look alike, found by their pixels), or a regular expression
    on each path: images of one group stay on one side of the split. Default: `None`."""
    skip_unreadable: bool
    """Go on without images that can't be read. Default: `False`."""
    range: str | tuple[float, float] | None
    """LOW:HIGH, the stored values that become black and white, for greys of more than eight bits
    (0:4095; -20:120 as `range="-20:120"`). Without it, what the training images need; it is kept
    with the run and its bundles. Default: `None`."""
    task: str
    """What images are labelled with, and models predict. Default: `'classification'`."""
    order: str | None
    """The labels from the lowest degree up, with commas between them: none,light,severe. Those that
    are numbers have their own order. Default: `None`."""
    damage: str | None
    """The classes that are damage, with commas between them, where their names don't tell it from
    what is sound. Default: `None`."""
    costs: str | None
    """What a miss and a false alarm cost, for `operate` cost and `metric` cost: miss=50,alarm=1.
    Default: `None`."""


class FitKeywords(TypedDict, total=False):
    """How `pe.fit` trains."""

    seed: int
    """Decides the split, the random weights and the order of the images. Default: `0`."""
    metric: str | None
    """What makes an epoch the best, and what the stop rule watches: a metric of the task. Unless
    given: its first, or balanced_accuracy where it has that and one class has over 80 % of the
    training images; a line says so. Default: `None`."""
    epochs: int
    """Times that every training image is seen before anything is pruned; the epoch that is best on
    validation data is kept. Default: `10`."""
    lr: float | None
    """The peak learning rate, instead of the one that a short test on training images finds for
    pretrained weights, or of the usual one from random weights. Default: `None`."""
    optimizer: Literal["sgd", "adamw"] | None
    """What takes the steps of the training, and of the fine-tuning: sgd (Nesterov momentum) or
    adamw. The test for the learning rate runs with it, over its own range of rates. Unless given:
    sgd, and adamw for the fine-tuning with `temporary_norms`. Default: `None`."""
    patience: int | None
    """Stop the training before its epochs are over when the validation metric (or, where that is
    the same, the loss) has not got better for this many. The learning rate's cosine is that of all
    of them, so that a training which is stopped never comes to its low end. Fine-tuning always
    takes all its epochs. Default: `None`."""
    freeze: int
    """Leave the first so many blocks of the model as they are until pruning begins, with their
    batch norms' statistics: the convolutions and stages that images pass, in order (of a ResNet
    conv1, layer1, layer2, ...; of a VGG each convolution). A line names them. Fine-tuning trains
    all of the model. Default: `0`."""
    layer_decay: float | None
    """Multiply the learning rate by this once for each block that lies between a layer and the
    model's end, so that what comes first changes least: 0.75, say. In the fine-tuning as well.
    Default: `None`."""
    ema: float | None
    """Keep an exponential moving average of the weights and of the batch norms' statistics with
    this decay (0.999, say; less in the first steps), and evaluate and keep the average. In the
    fine-tuning as well. Default: `None`."""
    batch_size: int | None
    """Images in a training step. Unless given: 32, or 16 or 8 where there are fewer than 2,048 or
    1,024 training images, since few steps teach little. Default: `None`."""
    augment: Literal["none", "flips", "full"]
    """How training images are changed in every epoch: full (quarter turns if they are square, half
    turns, flips, a little brightness and contrast), flips (left for right, top for bottom: where an
    image turned by a quarter would never be seen, as of courses of bricks), or none. Default:
    `'full'`."""
    balance: Literal["auto", "none", "loss", "sampler"]
    """What rare classes get, by the training images alone: nothing (none), more weight in the loss
    (loss: n / (classes * images of the class), at most 20 times that of the commonest), or as many
    images in an epoch as the others (sampler: an epoch is as long as ever, rare images come several
    times). auto is sampler for masks where most training images show no damage, which nothing is
    learned from otherwise, and none for all else. In the fine-tuning as well. `prunedge check` says
    how rare they are. Default: `'auto'`."""
    focal: float
    """Focal loss with this gamma (Lin et al. 2017; 2 is usual): what the model is sure of and right
    about counts less. In the fine-tuning as well; 0 is off. Default: `0.0`."""
    area_loss: Literal["dice", "tversky", "boundary", "cldice"] | None
    """What a model of pixels learns by beside cross-entropy (segmentation alone): dice unless
    given, tversky (a miss counts more than a false alarm), boundary (the farther off, the more), or
    cldice (centrelines without gaps). In the fine-tuning as well. Default: `None`."""
    sparsity: Literal["none", "bn-l1", "group-lasso", "growing"]
    """Draw channels to zero while training, so that they can be pruned: L1 on the scales of batch
    norms, group lasso over all weights of a channel, or a penalty that grows on those that are
    about to leave (on all, before anything is pruned). Default: `'none'`."""
    sparsity_strength: float | None
    """Of `sparsity`, instead of its usual one. Default: `None`."""


class PruneKeywords(TypedDict, total=False):
    """How `pe.prune` goes about it, and how far."""

    seed: int
    """Decides the split, the random weights and the order of the images. Default: `0`."""
    metric: str | None
    """What makes an epoch the best, and what the stop rule watches: a metric of the task. Unless
    given: its first, or balanced_accuracy where it has that and one class has over 80 % of the
    training images; a line says so. Default: `None`."""
    optimizer: Literal["sgd", "adamw"] | None
    """What takes the steps of the training, and of the fine-tuning: sgd (Nesterov momentum) or
    adamw. The test for the learning rate runs with it, over its own range of rates. Unless given:
    sgd, and adamw for the fine-tuning with `temporary_norms`. Default: `None`."""
    layer_decay: float | None
    """Multiply the learning rate by this once for each block that lies between a layer and the
    model's end, so that what comes first changes least: 0.75, say. In the fine-tuning as well.
    Default: `None`."""
    ema: float | None
    """Keep an exponential moving average of the weights and of the batch norms' statistics with
    this decay (0.999, say; less in the first steps), and evaluate and keep the average. In the
    fine-tuning as well. Default: `None`."""
    batch_size: int | None
    """Images in a training step. Unless given: 32, or 16 or 8 where there are fewer than 2,048 or
    1,024 training images, since few steps teach little. Default: `None`."""
    augment: Literal["none", "flips", "full"]
    """How training images are changed in every epoch: full (quarter turns if they are square, half
    turns, flips, a little brightness and contrast), flips (left for right, top for bottom: where an
    image turned by a quarter would never be seen, as of courses of bricks), or none. Default:
    `'full'`."""
    balance: Literal["auto", "none", "loss", "sampler"]
    """What rare classes get, by the training images alone: nothing (none), more weight in the loss
    (loss: n / (classes * images of the class), at most 20 times that of the commonest), or as many
    images in an epoch as the others (sampler: an epoch is as long as ever, rare images come several
    times). auto is sampler for masks where most training images show no damage, which nothing is
    learned from otherwise, and none for all else. In the fine-tuning as well. `prunedge check` says
    how rare they are. Default: `'auto'`."""
    focal: float
    """Focal loss with this gamma (Lin et al. 2017; 2 is usual): what the model is sure of and right
    about counts less. In the fine-tuning as well; 0 is off. Default: `0.0`."""
    area_loss: Literal["dice", "tversky", "boundary", "cldice"] | None
    """What a model of pixels learns by beside cross-entropy (segmentation alone): dice unless
    given, tversky (a miss counts more than a false alarm), boundary (the farther off, the more), or
    cldice (centrelines without gaps). In the fine-tuning as well. Default: `None`."""
    sparsity: Literal["none", "bn-l1", "group-lasso", "growing"]
    """Draw channels to zero while training, so that they can be pruned: L1 on the scales of batch
    norms, group lasso over all weights of a channel, or a penalty that grows on those that are
    about to leave (on all, before anything is pruned). Default: `'none'`."""
    sparsity_strength: float | None
    """Of `sparsity`, instead of its usual one. Default: `None`."""
    criterion: str
    """How channels are ranked: taylor, taylor-fo, taylor-bn, fisher, feature-distance, weight-l1,
    weight-l2, fpgm, bn-scale, activation-mean, activation-std, apoz, mutual-information,
    mutual-information-prediction, random, or your own. `prunedge audit` says which suits your
    model. Default: `'taylor'`."""
    step_ratio: float
    """Share that a step removes of what is left: of the channels, or of what `cost` saves. Default:
    `0.9`."""
    cost: Literal["latency", "macs", "params", "memory", "channels"] | None
    """What pruning is to save: latency (milliseconds on the `device`; without one, as a processor's
    core is estimated to take them), macs, params, memory (weights and the largest layer's values)
    or channels. A step's share is of that, and the channels go first that take least of their
    layer's scores for what they save. Unless given: latency, or channels with `per_mac`,
    `macs_penalty` or `per_layer`. Default: `None`."""
    normalise: Literal["none", "l2", "mean", "rank"]
    """What each layer's scores are divided by before layers are compared: their Euclidean norm
    (l2), their mean, nothing (none), or their ranks are compared instead. Default: `'l2'`."""
    per_layer: bool
    """Don't compare layers: each loses the same share. Default: `False`."""
    macs_penalty: float
    """Takes this much times a channel's share of the model's MACs off its score, so that costly
    channels go first. Default: `0.0`."""
    per_mac: bool
    """Divide scores by the MACs that the channel costs. Default: `False`."""
    ignore: list[str]
    """Patterns of layer or group names that keep all their channels (`layer1.*`; `prunedge groups`
    lists them). Default: `[]`."""
    min_channels: int
    """Every group keeps at least this many channels. Default: `2`."""
    round_to: int
    """Groups that lose channels keep a multiple of this many (8 or 16 suits many devices). Default:
    `1`."""
    max_ratio: float | None
    """The largest share that a group may lose in one step. Without it there is no limit; but with
    `cost` channels half, or twice the `step_ratio` where that is more, so that groups still
    compare, and a group keeps at least a quarter of what the step leaves on average (`step_ratio`
    0.5: an eighth). Default: `None`."""
    epochs: int
    """Epochs of fine-tuning in each step, of a model as large as the unpruned one; smaller ones get
    more (`growing_epochs`). Default: `2`."""
    finetune_lr: float | None
    """Peak learning rate of the fine-tuning in each step, instead of the training's (with
    `temporary_norms` AdamW's, 0.001). Default: `None`."""
    temporary_norms: bool
    """Give a model that has no normalisation (VGG, SqueezeNet) batch norms for as long as it is
    fine-tuned; afterwards they are folded into its weights. Without them a model that has lost most
    of its channels hardly learns. Default: `True`."""
    growing_epochs: bool
    """Fine-tune smaller models for longer: `epochs` times the square root of the factor by which
    the MACs have fallen, eight times as long at the most. It takes less time than a step before.
    Default: `True`."""
    distill: float
    """Weight (0 to 1) of the unpruned model's answers in the loss of the fine-tuning. Default:
    `0.0`."""
    compensate: Literal["none", "mean", "lstsq"]
    """Hand what the removed channels gave on average to their consumers' biases (mean), or solve
    the consumers' weights anew for the least squared difference (lstsq), before fine-tuning.
    Default: `'none'`."""
    polish: int
    """Epochs of fine-tuning, at the end, of the model that is handed over; or of a smaller one
    beyond the rule, which they may bring back. Default: `8`."""
    extra_rounds: int
    """How often, at most, a step that breaks the rule is fine-tuned for `epochs` more before it is
    judged: once, and again as long as the last time made good half as much as is still missing.
    Default: `4`."""
    max_drop: float | str | None
    """The rule: how much worse the metric may get on validation data than the unpruned model's (of
    a run that goes on from a pruned one: the first of that chain). Percentage points, or the
    metric's own unit where it has one; 5% is a share of that model's value. Unless given: 3 points,
    or 5% where the metric has a unit of its own. Default: `None`."""
    confidence: float | None
    """Take a step back only when the metric has dropped by more with this confidence, from the
    validation images (patches of one source count together). What is handed over keeps the rule by
    its own figure in any case. Unless given: 0.95 where the metric has an interval (accuracy); 0.5
    goes by the figure alone. Default: `None`."""
    target_macs: float | None
    """Stop at this share of the unpruned model's MACs. Default: `None`."""
    target_params: float | None
    """Stop at this share of the unpruned model's parameters. Default: `None`."""
    target_latency: float | str | None
    """Stop when the model takes this long for an image on the `device`: 5ms, 0.8ms, 0.2s. Default:
    `None`."""
    max_steps: int | None
    """Stop after this many steps. Default: `None`."""
    budget: float | str | None
    """Stop when the steps together would take longer than this: 30min, 90s, 2h. A step that has
    begun is finished, and time is left for `polish`. Default: `None`."""
