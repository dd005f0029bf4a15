"""Settings as keyword arguments of the library's functions: typed in `sections`, nowhere else.

At run time a function's signature and its docstring are made from them. Editors and type checkers
read files alone: for them `python -m prunedge.config.keywords` writes `keyword_types.py`.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from prunedge.config.run import IMAGE_KEYS, asked, settings
from prunedge.edge.image.size import Size
from prunedge.utils.advice import OF_TRAINING, flag

Function = TypeVar("Function", bound=Callable[..., Any])

FILE = Path(__file__).with_name("keyword_types.py")
WIDTH = 100

# What `pe.fit` has no keyword for: the engine comes as an object.
_NOT_OF_FIT = ("precision",)
# What `pe.prune` has no keyword for: it trains no baselines and no first model, and knows no
# schedule of the training before; the device and the engine come as objects.
_NOT_OF_PRUNE = (
    "baseline",
    "small",
    "rewind",
    "train_epochs",
    "lr",
    "patience",
    "freeze",
    "precision",
)
_OF_OTHER_SECTIONS = ("metric", "seed")

# What the library takes beside what a file or the command line can say.
_WIDER = {
    "masks": "str | Path | None",
    "size": "int | str | tuple[int, int]",
    "range": "str | tuple[float, float] | None",
    "metric": "str | None",
}


def fit_keys() -> tuple[str, ...]:
    """The keys of the settings that are keywords of `pe.fit`, in the order of the sections."""
    return _keys_of(("train",), without=_NOT_OF_FIT)


def prune_keys() -> tuple[str, ...]:
    """The keys of the settings that are keywords of `pe.prune`, in the order of the sections."""
    return _keys_of(("train", "prune", "recover", "stop"), without=_NOT_OF_PRUNE)


def _keys_of(sections: Sequence[str], without: Sequence[str]) -> tuple[str, ...]:
    keys = []
    for key in asked():
        is_chosen = settings()[key].section in sections or key in _OF_OTHER_SECTIONS
        if is_chosen and key not in without:
            keys.append(key)
    return tuple(keys)


def with_keywords(
    keys: Sequence[str], names: Mapping[str, str] | None = None
) -> Callable[[Function], Function]:
    """Give a function that takes `**settings` a keyword for each of these settings.

    Its signature and its docstring name them, with type, default and help. `names` are the keywords
    that are not called by their keys (`{"train_epochs": "epochs"}`); the function gets them by
    their keys all the same.
    """
    called = {key: (names or {}).get(key, key) for key in keys}
    keys_of = {name: key for key, name in called.items()}

    def decorate(function: Function) -> Function:
        arguments = []
        for key, name in called.items():
            setting = settings()[key]
            argument = inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=setting.default,
                annotation=setting.field.annotation,
            )
            arguments.append(argument)
        made = signature_with(function, arguments)

        @wraps(function)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            made.bind(*args, **kwargs)  # a TypeError at once, also of a generator
            by_key = {keys_of.get(name, name): value for name, value in kwargs.items()}
            return function(*args, **by_key)

        with_settings.__signature__ = made  # type: ignore[attr-defined]
        with_settings.__doc__ = f"{inspect.getdoc(function)}\n\nSettings:\n\n{_listed(called)}"
        return with_settings  # type: ignore[return-value]

    return decorate


def signature_with(
    function: Callable[..., Any], arguments: Iterable[inspect.Parameter]
) -> inspect.Signature:
    """The signature of a function, with these arguments in the place of its `**settings`."""
    own = inspect.signature(function)
    kept = [
        argument
        for argument in own.parameters.values()
        if argument.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    return own.replace(parameters=[*kept, *arguments])


def _listed(called: Mapping[str, str]) -> str:
    """Each setting with its default and its help; `called` are the keywords by their keys."""
    lines = []
    for key, name in called.items():
        setting = settings()[key]
        text = f"- `{name}` ({_plain(setting.default)}): {_in_python(setting.full_help)}"
        lines += _wrapped(text, first="", rest="  ")
    return "\n".join(lines)


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _in_python(text: str) -> str:
    """A help that names other settings as keywords, and not as options: `step_ratio`."""

    keys = {flag(key): key for key in asked()}

    def keyword(match: re.Match[str]) -> str:
        key = keys.get(match[1])
        if key is None:
            return match[0]
        return f"`{key}`" if match[2] is None else f'`{key}="{match[2]}"`'

    return re.sub(r"(--[a-z]+(?:-[a-z]+)*)(?:=([\w:.-]+))?", keyword, text)


def types_text() -> str:
    """The text of the module that editors read."""
    lines = [
        '"""The settings that are keywords of the library, for editors and type checkers.',
        "",
        "Made from `sections` by `python -m prunedge.config.keywords`: change them there.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from pathlib import Path",
        "from typing import Literal, TypedDict",
        *_typed_dict("DataKeywords", "Which images there are, and how they are read.", IMAGE_KEYS),
        *_typed_dict("FitKeywords", "How `pe.fit` trains.", fit_keys(), OF_TRAINING),
        *_typed_dict("PruneKeywords", "How `pe.prune` goes about it, and how far.", prune_keys()),
    ]
    return "\n".join(lines) + "\n"


def _typed_dict(
    name: str, about: str, keys: Sequence[str], names: Mapping[str, str] | None = None
) -> list[str]:
    """A TypedDict of these settings, with the help of each."""
    lines = ["", "", f"class {name}(TypedDict, total=False):", f'    """{about}"""', ""]
    for key in keys:
        setting = settings()[key]
        called = (names or {}).get(key, key)
        lines += _field(called, _WIDER.get(key) or _type_text(setting.kind))
        help_text = f'"""{_in_python(setting.help)} Default: `{_plain(setting.default)}`."""'
        lines += _wrapped(help_text, first="    ", rest="    ")
    return lines


def _plain(default: Any) -> str:
    """A default as it is written in Python."""
    return str(default) if isinstance(default, Size) else repr(default)


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
    FILE.write_text(types_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
