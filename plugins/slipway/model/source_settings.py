"""The model file's `source`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, field_validator

from slipway.model.field_types import Part, Sha256, without_login
from slipway.urls import has_login

Allow = Annotated[
    tuple[Literal["h5"], ...],
    Field(
        default=(),
        description="Old formats of weights that may be read besides safetensors. `h5` is HDF5: its reader has had many faults, so allow it only if you trust who made the checkpoint.",
    ),
]


class FolderSource(Part):
    """A checkpoint folder, by a path relative to the model file or by URI. Its revision is the hash of its content."""

    folder: str = Field(
        description="A checkpoint folder below `include/served`, or its URI in an object store. Its revision is the hash of its content."
    )

    allow: Allow = ()

    @property
    def is_remote(self) -> bool:
        """Whether the folder is in an object store, such as `gs://google_cloud_default@BUCKET/checkpoint`."""
        return "://" in self.folder

    @field_validator("folder")
    @classmethod
    def _uri_is_complete(cls, folder: str) -> str:
        if "://" in folder and not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", folder):
            raise ValueError("is not a URI. Write it as gs://CONNECTION@BUCKET/FOLDER")
        if folder.partition("://")[0] in {"file", "local"} and "://" in folder:
            raise ValueError("is a path of the worker. Write a folder next to the model file by its relative path")
        if "://" in folder and (has_login(folder) or "?" in folder):
            raise ValueError(
                "has a login or a query, which would be kept in records and logs. Name an Airflow connection, as gs://CONNECTION@BUCKET/FOLDER"
            )
        return folder


class HubSource(Part):
    """A model on the Hugging Face Hub."""

    hub: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")] = Field(
        description="A model on the Hugging Face Hub: `owner/name`.", json_schema_extra={"form": "name on the Hub"}
    )
    revision: Annotated[str, Field(min_length=1)] = Field(
        default="main", description="Branch, tag or commit. Each run pins it to a commit at its start."
    )
    token_conn_id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="A connection whose password is a Hub token, for private and gated models."
    )
    allow: Allow = ()


class ArchiveSource(Part):
    """A SavedModel as `tar.gz` at a URL, with the hash that it must have."""

    savedmodel: Annotated[str, Field(pattern=r"^(https?|file)://"), AfterValidator(without_login)] = Field(
        description="URL of a SavedModel as `tar.gz`. Its query, such as a signature, is [kept nowhere](#urls).",
        json_schema_extra={"form": "http, https or file URL"},
    )
    sha256: Sha256 = Field(description="The archive's hash, which is checked.")


def _source_kind(value: Any) -> str | None:
    """The kind of source, if the given fields name exactly one."""
    given = value.model_dump() if isinstance(value, BaseModel) else value if isinstance(value, dict) else {}
    named = [kind for kind in ("folder", "hub", "savedmodel") if kind in given]
    return named[0] if len(named) == 1 else None


SourceSettings = Annotated[
    Annotated[FolderSource, Tag("folder")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[ArchiveSource, Tag("savedmodel")],
    Discriminator(
        _source_kind,
        custom_error_type="source",
        custom_error_message="names no source, or several: give one of folder, hub, savedmodel",
    ),
]
