"""Whether a record that was read from JSON holds values of the kinds that were written: a right
checksum alone doesn't say so.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

# A loss may have become infinite.
Loss = Annotated[float, Field(allow_inf_nan=True)]


class Record(BaseModel):
    """The values of a JSON file. None is converted; what is not named here may stand beside
    them.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def require(kind: Any, value: Any) -> None:
    """Raise ValueError, in a line that names the first wrong value, where plain JSON is not of this
    kind (a Record, a dataclass).
    """
    try:
        _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(first_mistake(error)) from None


def first_mistake(error: ValidationError) -> str:
    """The first wrong value and what is wrong with it; without its place where that is the whole
    text.
    """
    wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(map(str, wrong["loc"]))
    message = " ".join(wrong["msg"].removeprefix("Value error, ").split())
    reason = f"{message[0].lower()}{message[1:]}"
    return f"{path}: {reason}" if path else reason


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
