"""Calls in a model's code that name sizes (reshapes, splits) or numbers (factors), and their pins.

Code such as `B, N, C = x.shape; qkv.reshape(B, N, 3, heads, C // heads)` works its sizes out from
others that pruning changes separately. No attribute of the module puts that right, so the sizes
themselves are: a pinned module runs its own code, and the calls that divide or join channels get
the sizes that those channels have now. A factor worked out from a width, `q * (C // heads) **
-0.5`, is brought back to what it was before.

A call is known by its site in the code, not by its number: training, a cache that is filled at the
first image, or one more level of a pyramid may add calls before it. The site is the chain of
positions in the source text from the module's own method down to the call,
`Attention.forward:7.8-7.51>split_heads:2.11-2.40`, lines counted from the first of each function.
Calls in the code of a child module are the child's.

`watch` finds the calls while the model is traced; `pinned_modules` runs a smaller one with pins.
"""

from prunedge.graph.sizes.pinned_modules import forward_methods, pin, pinned_modules, pins_of, unpin
from prunedge.graph.sizes.pinning import CodeCall, Pick, Pin, Pinning, Shape
from prunedge.graph.sizes.sites import run_forward_method, uncounted
from prunedge.graph.sizes.watch import SizedCalls, Watcher

__all__ = [
    "CodeCall",
    "Pick",
    "Pin",
    "Pinning",
    "Shape",
    "SizedCalls",
    "Watcher",
    "forward_methods",
    "pin",
    "pinned_modules",
    "pins_of",
    "run_forward_method",
    "uncounted",
    "unpin",
]
