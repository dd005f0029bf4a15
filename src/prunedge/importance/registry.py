"""The one place that knows every criterion by name: prunedge's, and the user's own."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.importance.criteria import (
    CRITERIA,
    Criterion,
    GradientCollector,
    criterion,
)
from prunedge.importance.fingerprint import function_digest
from prunedge.models import working_directory_importable
from prunedge.utils.advice import option
from prunedge.utils.wording import words_of

# What they define registers itself; in the order in which criteria are listed.
for _module in ("taylor", "taylor_bn", "features", "activation", "mutual_information", "weight"):
    import_module(f"prunedge.importance.{_module}")


def criterion_named(name: str) -> Criterion:
    """The criterion of that name, or `package.module:name` of the user's own.

    The latter imports the module; what `name` names in it is a criterion that the module registers,
    or a function of the weights that needs no decorator. PrunedgeError with the nearest names when
    there is none.
    """
    if name not in CRITERIA and ":" in name:
        _own(name)
    if name not in CRITERIA:
        near = get_close_matches(name, CRITERIA, n=3, cutoff=0.5)
        guess = f"did you mean {', '.join(near)}? " if near else ""
        remedy = f"{guess}there are {', '.join(sorted(CRITERIA))}"
        raise PrunedgeError(f"unknown criterion '{name}'", where=option("criterion"), remedy=remedy)
    return CRITERIA[name]


def identity(name: str) -> str | None:
    """The criterion's name with a digest of what it does: another function under the same name is
    another criterion.

    None where that can't be told (a function that refers to an object of the user's own).
    """
    chosen = criterion_named(name)
    digest = function_digest((chosen.reads, chosen.compute, chosen.collect))
    return None if digest is None else f"{name} {digest}"


def _own(name: str) -> None:
    """Register what the user's module calls so under its whole name."""
    module_name, _, short = name.partition(":")
    try:
        with working_directory_importable():
            module = import_module(module_name)
    except Exception as error:  # whatever is in the user's module, or names that lead up or nowhere
        raise PrunedgeError(
            f"can't import {module_name}: {words_of(error)}",
            where=option("criterion"),
            remedy="write it as package.module:name, run where it can be imported",
        ) from error
    function = getattr(module, short, None)
    if short in CRITERIA:
        CRITERIA[name] = replace(CRITERIA[short], name=name)
    elif callable(function):
        criterion(name)(function)
    else:
        remedy = "name a function, or what its @criterion(...) says"
        raise PrunedgeError(
            f"{module_name} has no criterion '{short}'", where=option("criterion"), remedy=remedy
        )


def gathered_while_training(name: str, graph: ChannelGraph) -> GradientCollector | None:
    """The collector that ranks while a model fine-tunes; None for criteria that need a pass of
    their own.
    """
    chosen = criterion_named(name)
    return (
        cast(GradientCollector, chosen.collect(graph))
        if chosen.reads == "gradients" and chosen.collect is not None
        else None
    )
