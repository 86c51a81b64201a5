"""What a model file says about its source and its golden images."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"  # a DNS label, short enough for a suffix of ours
SHA256_PATTERN = r"^[0-9a-f]{64}$"


# `form` says to people what a pattern says to pydantic; slipway.reference writes it into docs/model-file.md.
Name = Annotated[
    str, Field(pattern=NAME_PATTERN, json_schema_extra={"form": "lower-case letters, digits and `-`, at most 40"})
]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN, json_schema_extra={"form": "64 hex digits"})]
Url = Annotated[str, Field(pattern=r"^https?://", json_schema_extra={"form": "http or https URL"})]
Seconds = Annotated[int, Field(ge=1, le=24 * 3600, json_schema_extra={"form": "seconds, up to a day"})]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    """Unknown fields are refused: a misspelt one would otherwise be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FolderSource(_Part):
    """A checkpoint folder, relative to the model file or by URI; its revision is the hash of its content."""

    folder: str = Field(
        description="A checkpoint folder below `include/served`, or its URI in an object store. Its revision is the hash of its content."
    )

    @property
    def is_remote(self) -> bool:
        """Whether the folder is in an object store, such as `gs://google_cloud_default@BUCKET/checkpoint`."""
        return "://" in self.folder

    @field_validator("folder")
    @classmethod
    def _a_uri_names_a_place(cls, folder: str) -> str:
        if "://" in folder and not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", folder):
            raise ValueError("is no URI. Write it as gs://CONNECTION@BUCKET/FOLDER")
        return folder


class HubSource(_Part):
    """A model of the Hugging Face Hub; `revision` may be a branch, a tag or a commit.

    `token_conn_id` is an Airflow connection whose password is a Hub token, for private and gated models.
    """

    hub: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")] = Field(
        description="A model on the Hugging Face Hub: `owner/name`.", json_schema_extra={"form": "name on the Hub"}
    )
    revision: Annotated[str, Field(min_length=1)] = Field(
        default="main", description="Branch, tag or commit. Each run pins it to a commit at its start."
    )
    token_conn_id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="A connection whose password is a Hub token, for private and gated models."
    )


class ArchiveSource(_Part):
    """A SavedModel as `tar.gz` at a URL, held to its sha256."""

    savedmodel: Annotated[str, Field(pattern=r"^(https?|file)://")] = Field(
        description="URL of a SavedModel as `tar.gz`.", json_schema_extra={"form": "http, https or file URL"}
    )
    sha256: Sha256 = Field(description="The archive's hash, which is checked.")


def _source_kind(value: Any) -> str | None:
    """The one kind of source that the given fields name."""
    given = value.model_dump() if isinstance(value, BaseModel) else value if isinstance(value, dict) else {}
    named = [kind for kind in ("folder", "hub", "savedmodel") if kind in given]
    return named[0] if len(named) == 1 else None


Source = Annotated[
    Annotated[FolderSource, Tag("folder")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[ArchiveSource, Tag("savedmodel")],
    Discriminator(
        _source_kind,
        custom_error_type="source",
        custom_error_message="names no source, or several: give one of folder, hub, savedmodel",
    ),
]


class GoldenImage(_Part):
    """An image whose answer is promised. `image` is a path relative to the model file, or a URL with its sha256."""

    name: Name = Field(description="The case's name in logs and records; each case needs its own.")
    image: str = Field(description="The image: a path relative to the model file, or a URL.")
    sha256: Sha256 | None = Field(default=None, description="The image's hash, which is checked. Required for a URL.")
    label: str | tuple[str, ...] = Field(
        description="The label that the answer must have, or a list of accepted labels.",
        json_schema_extra={"form": "text, or a list of texts"},
    )
    min_confidence: Share = Field(default=0.5, description="The least confidence that the answer must have.")

    @field_validator("label", mode="before")
    @classmethod
    def _is_one_label_or_several(cls, label: Any) -> Any:
        labels = label if isinstance(label, list | tuple) else [label]
        if not labels or not all(isinstance(one, str) and one for one in labels):
            raise ValueError("is neither a text nor a list of texts. Write a number in quotes")
        if len(set(labels)) != len(labels):
            raise ValueError("names a label twice")
        return label

    @model_validator(mode="after")
    def _a_url_is_held_to_its_hash(self) -> GoldenImage:
        if self.image.startswith(("http://", "https://")) and self.sha256 is None:
            raise ValueError("an image by URL needs its sha256")
        return self
