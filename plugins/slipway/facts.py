"""Facts go from task to task as small dicts: XCom's allow-list refuses classes of ours."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from slipway.errors import InputRefused

T = TypeVar("T")


def to_dict(fact: Any) -> dict[str, Any]:
    """A frozen dataclass as plain dicts, lists and scalars."""
    return dataclasses.asdict(fact)


def from_dict(kind: type[T], data: Any) -> T:
    """The fact again from its dict.

    Raises InputRefused where the dict is not one of this kind, such as an XCom that another version of Slipway left.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputRefused(
            f"{kind.__name__} handed over by an earlier task: {where}: {first['msg']}. Next: clear the run from its first task"
        ) from error
