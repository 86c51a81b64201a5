"""The types that the fields of a model file share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from slipway.urls import has_login, query_of

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"  # a DNS label, short enough for a suffix
SHA256_PATTERN = r"^[0-9a-f]{64}$"
IMAGE = re.compile(
    r"[\w.:/\[\]-]+(@sha256:[0-9a-f]{64})?", re.ASCII
)  # no scheme, no login; who pulls it checks the rest
PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")  # Airflow's own


def check_schedule(schedule: str) -> str:
    """The schedule. Raises ValueError if Airflow would refuse it."""
    from croniter import CroniterBadDateError, croniter

    if schedule in PRESETS:
        return schedule
    if not croniter.is_valid(schedule):
        raise ValueError(f"is neither a cron expression nor one of {', '.join(PRESETS)}")
    try:
        croniter(schedule).get_next()
    except CroniterBadDateError as error:  # Airflow would raise it too, for all DAGs of the file
        raise ValueError("is a time that never comes") from error
    return schedule


def check_image(image: str) -> str:
    """The image. Raises ValueError if it is none."""
    if not IMAGE.fullmatch(image):
        raise ValueError("is not an image. Write it as HOST[:PORT]/PATH:TAG, without https:// and without a login")
    return image


def without_login(url: str) -> str:
    """The URL. Raises ValueError if it has a login, or the key of a bucket: URLs are kept in records and logs."""
    if has_login(url):
        raise ValueError("has a login in its URL, which would be kept in records and logs: leave it out")
    return url


def without_query(url: str) -> str:
    """The URL. Raises ValueError if it has a login, a query or a fragment."""
    if query_of(without_login(url)):
        raise ValueError("has a query in its URL: leave it out")
    return url


def without_scheme(path: str) -> str:
    """The path. Raises ValueError if it is a URL."""
    if "://" in path:
        raise ValueError("is a URL, not a path relative to the model file")
    return path


# `form` tells people what the pattern tells pydantic; slipway.model.reference writes it into docs/model-file.md.
Name = Annotated[
    str, Field(pattern=NAME_PATTERN, json_schema_extra={"form": "lower-case letters, digits and `-`, at most 40"})
]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN, json_schema_extra={"form": "64 hex digits"})]
ImageName = Annotated[str, AfterValidator(check_image)]
Url = Annotated[
    str,
    Field(pattern=r"^https?://", json_schema_extra={"form": "http or https URL"}),
    AfterValidator(without_query),
]
Seconds = Annotated[int, Field(ge=1, le=24 * 3600, json_schema_extra={"form": "seconds, up to a day"})]
Schedule = Annotated[str, AfterValidator(check_schedule)]
RelativePath = Annotated[str, Field(min_length=1), AfterValidator(without_scheme)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Part(BaseModel):
    """A group of fields. Unknown fields are refused: a misspelt field would otherwise be silently ignored.

    Pydantic's own messages, which tracebacks in logs contain, quote no values: a URL may have a login.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
