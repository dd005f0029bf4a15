"""What a setting is: a typed attribute of a section, with its default, its limits and its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Notes:
    """What is known of a setting beside its type, default, limits and help.

    `key` is its name among all settings, where that is not the attribute's. `kind` is the type in
    which the command line takes it, where that is not the attribute's. A `is_basic` one comes first
    in the help. One that `is_inherited` a run that goes on from another has from there. One that
    `is_derived` is worked out by the run itself, and nobody asks for it. `choices` says what there
    is to choose from, of one whose values other files define. `unit` is that of its number, which
    the command line wants to see.
    """

    key: str | None = None
    kind: Any = None
    is_basic: bool = False
    is_derived: bool = False
    is_inherited: bool = True
    choices: str = ""
    unit: str = ""


def setting(default: Any, help: str = "", notes: Notes | None = None, **limits: Any) -> Any:
    """A setting of a section, with what `--help` says of it and the limits of its values (`ge`,
    `gt`, `le`, `lt`).
    """
    field: Any = Field(default, description=help, **limits)
    field.metadata.append(notes or Notes())
    return field


def basic(
    default: Any,
    help: str,
    key: str | None = None,
    kind: Any = None,
    is_inherited: bool = True,
    **limits: Any,
) -> Any:
    """A setting that comes first in the help."""
    notes = Notes(key=key, kind=kind, is_basic=True, is_inherited=is_inherited)
    return setting(default, help, notes, **limits)


def derived(default: Any, key: str | None = None, **limits: Any) -> Any:
    """A setting that the run works out by itself."""
    return setting(default, "", Notes(key=key, is_derived=True), **limits)


class Section(BaseModel):
    """The settings of one stage."""

    # No infinities, which a file could not hold, and after which nothing would end.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    title: ClassVar[str]

    def usual(self, attribute: str) -> Any:
        """What an attribute is where nobody says anything of it."""
        field = type(self).model_fields[attribute]
        return field.get_default(call_default_factory=True)


@dataclass(frozen=True)
class Setting:
    """A setting of a `RunConfig`: its section, its attribute there, and what is known of it."""

    key: str
    section: str
    title: str
    attribute: str
    field: FieldInfo
    notes: Notes

    @property
    def default(self) -> Any:
        """What it is where nobody says anything."""
        return self.field.get_default(call_default_factory=True)

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.field.is_required()

    @property
    def kind(self) -> Any:
        """The type of its values, where they are given."""
        return self.notes.kind or self.field.annotation

    @property
    def help(self) -> str:
        """What it does, for whoever sets it."""
        return self.field.description or ""

    @property
    def full_help(self) -> str:
        """The same with what there is to choose from, where other files define that."""
        return f"{self.help} {self.notes.choices}".rstrip()

    def written(self, value: Any) -> str:
        """A value as the command line takes it, and as a reader knows it: `30min`, `none`."""
        if value is None:
            return "none"
        return f"{value:g}{self.notes.unit}" if self.notes.unit else str(value)
