"""The settings of a run as options of a verb, made from `config`: each is typed there, and nowhere
else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from inspect import Parameter as Argument
from typing import Annotated, Any, TypeVar, get_origin

from cyclopts import Group, Parameter

from prunedge.cli.console import split
from prunedge.config import Setting, settings
from prunedge.config.keywords import signature_with
from prunedge.utils.advice import flag

log = logging.getLogger(__name__)

Verb = TypeVar("Verb", bound=Callable[..., None])

BASIC = Group("Basic", sort_key=1)


def with_settings(
    keys: Collection[str],
    *,
    names: Mapping[str, str] | None = None,
    several: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Verb], Verb]:
    """Give a verb an option for each of these settings, in groups by stage, with the help and the
    default of each.

    The verb takes them as `**values`, which hold only what the command line names. `names` are
    other names of options (`{"train_epochs": "--epochs"}`), `several` the settings that take
    several values with commas between them, and `defaults` those that this verb shows instead of
    the config's.
    """
    chosen = [setting for key, setting in settings().items() if key in keys]
    chosen.sort(key=lambda setting: not setting.notes.is_basic)

    def decorate(verb: Verb) -> Verb:
        arguments = []
        for setting in chosen:
            name = (names or {}).get(setting.key, flag(setting.key))
            default = (defaults or {}).get(setting.key, setting.default)
            arguments.append(
                _argument(setting, name, default, takes_several=setting.key in several)
            )

        @wraps(verb)
        def verb_with_settings(*args: Any, **kwargs: Any) -> None:
            verb(*args, **kwargs)

        verb_with_settings.__signature__ = signature_with(verb, arguments)  # type: ignore[attr-defined]
        return verb_with_settings  # type: ignore[return-value]

    return decorate


def _argument(setting: Setting, name: str, default: Any, *, takes_several: bool) -> Argument:
    """A setting as a keyword argument that cyclopts makes an option of."""
    kind = setting.kind
    converter: Callable[..., Any] | None = None
    if setting.notes.kind is not None:
        # Only the setting itself reads it: 5ms; 128x384, and not 0x20 as a number.
        kind = str
        default = None if default is None else str(default)
    if takes_several:
        kind = list.__class_getitem__(kind)
        converter = split
        default = [default]

    is_list = get_origin(setting.kind) is list
    # An empty list, and what has no default, are told apart from what was given by None.
    has_default = not setting.is_required and default not in (None, [])
    # What is not said here is as for every option.
    more: dict[str, Any] = {"converter": converter} if converter else {}
    option = Parameter(
        name=name,
        help=f"{setting.full_help.rstrip('.')}; may be repeated." if is_list else setting.full_help,
        group=BASIC if setting.notes.is_basic else _group(setting.title),
        show_default=has_default and default is not False,
        **more,
    )
    return Argument(
        setting.key,
        Argument.KEYWORD_ONLY,
        default=default if has_default else None,
        annotation=Annotated[kind if has_default else kind | None, option],
    )


def _group(title: str) -> Group:
    """The options of one stage, in the order of the stages."""
    titles = list(dict.fromkeys(setting.title for setting in settings().values()))
    return Group(title, sort_key=2 + titles.index(title))


def steered(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, where a target of latency without a device is one of this machine, which is
    said.
    """
    if "target_latency" not in values or "device" in values:
        return dict(values)
    log.warning("--target-latency without --device: this machine is timed")
    return {"device": "local", **values}
