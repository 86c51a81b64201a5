"""The types that the fields of a model file share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"  # a DNS label, short enough for a suffix
SHA256_PATTERN = r"^[0-9a-f]{64}$"

# `form` tells people what the pattern tells pydantic; slipway.model.reference writes it into docs/model-file.md.
Name = Annotated[
    str, Field(pattern=NAME_PATTERN, json_schema_extra={"form": "lower-case letters, digits and `-`, at most 40"})
]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN, json_schema_extra={"form": "64 hex digits"})]
Url = Annotated[str, Field(pattern=r"^https?://", json_schema_extra={"form": "http or https URL"})]
Seconds = Annotated[int, Field(ge=1, le=24 * 3600, json_schema_extra={"form": "seconds, up to a day"})]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Part(BaseModel):
    """A group of fields. Unknown fields are refused: a misspelt field would otherwise be silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
