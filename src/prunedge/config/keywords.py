"""Settings as keyword arguments of the library's functions: typed in `sections`, nowhere else.

At run time a function's signature and its docstring are made from them. Editors and type checkers
read files alone: for them `python -m prunedge.config.keywords` writes `prune_keywords.py`.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from prunedge.config.run import asked, settings
from prunedge.config.setting import Setting

Function = TypeVar("Function", bound=Callable[..., Any])

FILE = Path(__file__).with_name("prune_keywords.py")
WIDTH = 100

# What `pe.prune` has no keyword for: it trains no baselines, and knows no schedule of the training
# before; the device and the engine come as objects.
_NOT_OF_PRUNE = ("baseline", "rewind")
_OF_OTHER_SECTIONS = ("metric", "seed", "batch_size", "augment", "sparsity", "sparsity_strength")


def prune_keys() -> tuple[str, ...]:
    """The keys of the settings that are keywords of `pe.prune`, in the order of the sections."""
    keys = []
    for key in asked():
        is_of_the_loop = settings()[key].section in ("prune", "recover", "stop")
        if (is_of_the_loop or key in _OF_OTHER_SECTIONS) and key not in _NOT_OF_PRUNE:
            keys.append(key)
    return tuple(keys)


def with_keywords(keys: Sequence[str]) -> Callable[[Function], Function]:
    """Give a function that takes `**settings` a keyword for each of these settings.

    Its signature and its docstring name them, with type, default and help.
    """
    chosen = [settings()[key] for key in keys]

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        arguments = [
            argument
            for argument in own.parameters.values()
            if argument.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        for setting in chosen:
            argument = inspect.Parameter(
                setting.key,
                inspect.Parameter.KEYWORD_ONLY,
                default=setting.default,
                annotation=setting.field.annotation,
            )
            arguments.append(argument)

        made = own.replace(parameters=arguments)

        @wraps(function)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            made.bind(*args, **kwargs)  # a TypeError at once, also of a generator
            return function(*args, **kwargs)

        with_settings.__signature__ = made  # type: ignore[attr-defined]
        with_settings.__doc__ = f"{inspect.getdoc(function)}\n\nSettings:\n\n{_listed(chosen)}"
        return with_settings  # type: ignore[return-value]

    return decorate


def _listed(chosen: Sequence[Setting]) -> str:
    """Each setting with its default and its help."""
    lines = []
    for setting in chosen:
        text = f"- `{setting.key}` ({setting.default!r}): {_in_python(setting.help)}"
        lines += _wrapped(text, first="", rest="  ")
    return "\n".join(lines)


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _in_python(text: str) -> str:
    """A help that names other settings as keywords, and not as options: `step_ratio`."""

    def keyword(match: re.Match[str]) -> str:
        key = match[1].replace("-", "_")
        return f"`{key}`" if key in settings() else match[0]

    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", keyword, text)


def typed_dict(name: str, keys: Sequence[str]) -> str:
    """The text of a module with a TypedDict of these settings."""
    lines = [
        '"""The settings that are keywords of `pe.prune`, for editors and type checkers.',
        "",
        "Made from `sections` by `python -m prunedge.config.keywords`: change them there.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Literal, TypedDict",
        "",
        "",
        f"class {name}(TypedDict, total=False):",
        '    """Each is optional, with the default that the command line has."""',
        "",
    ]
    for key in keys:
        setting = settings()[key]
        lines += _field(key, _type_text(setting.field.annotation))
        help_text = f'"""{_in_python(setting.help)} Default: `{setting.default!r}`."""'
        lines += _wrapped(help_text, first="    ", rest="    ")
    return "\n".join(lines) + "\n"


def _type_text(annotation: Any) -> str:
    """A type as it is written in code: `Literal["none", "full"] | None`."""
    parts = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(_type_text(part) for part in parts)
    if annotation is NoneType:
        return "None"
    if get_origin(annotation) is Literal:
        return f"Literal[{', '.join(json.dumps(part) for part in parts)}]"
    if parts:
        named = get_origin(annotation).__name__
        return f"{named}[{', '.join(_type_text(part) for part in parts)}]"
    return str(annotation.__name__)


def _field(key: str, type_text: str) -> list[str]:
    """A field of the TypedDict, laid out as the formatter lays it out."""
    line = f"    {key}: {type_text}"
    if len(line) <= WIDTH:
        return [line]
    # The formatter breaks a long choice once, within its brackets.
    before, _, rest = type_text.partition("[")
    inner, _, after = rest.rpartition("]")
    return [f"    {key}: {before}[", f"        {inner}", f"    ]{after}"]


def main() -> None:
    """Write the file anew."""
    FILE.write_text(typed_dict("PruneKeywords", prune_keys()), encoding="utf-8")


if __name__ == "__main__":
    main()
