"""The model file: one YAML in `include/served/` for each model that is served.

A file that cannot be meant is refused in one line that names file, field and the way to mend it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from slipway.model.source_settings import GoldenImage, HubSource, Seconds, Share, Source, _Part
from slipway.model.target_settings import TargetSettings

SERVING_IMAGE = "tensorflow/serving:2.20.0"
PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")  # Airflow's own


class ImageSettings(_Part):
    """Where the image is built and where it is pushed."""

    base: str = Field(default=SERVING_IMAGE, description="The base image, which the model is copied into.")
    repository: str | None = Field(
        default=None,
        description="Where the image is pushed, without a tag. If left out: the Variable `slipway_registry`, `/` and the model's name.",
    )
    engine_conn_id: str = Field(
        default="docker_default",
        description="A connection of type docker whose host names an engine: `unix:///…`, `tcp://…`.",
    )
    registry_conn_id: str | None = Field(
        default=None,
        description="The connection for the registry's login: of type docker, with host, login and password; or of type google_cloud_platform, with a short-lived token. If left out: [see below](#logins).",
    )


class ExportSettings(_Part):
    """What the served graph accepts and returns. No effect on a SavedModel archive, which brings its own graph."""

    top_k: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="How many labels the signature `top_k` returns; all if the model has fewer."
    )
    max_file_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = Field(
        default=16 * 1024 * 1024, description="The largest image file that is decoded, in bytes."
    )
    max_side: Annotated[int, Field(ge=16, le=32768)] = Field(
        default=8192, description="The longest side of an image that is decoded, in pixels."
    )
    on_bad_image: Literal["refuse", "mark"] = Field(
        default="refuse",
        description="What happens to a bad image. `refuse`: the request gets 400. `mark`: the image's label says so, which server-side batching needs.",
    )
    warmup_batches: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(1, 4),
        min_length=1,
        max_length=10,
        description="Sizes of the warmup requests, in images; each signature gets each size. With server-side batching, at most its `max_batch_size`. If left out: 1 and 4.",
    )


class QualitySettings(_Part):
    """A labelled set of images, and how many of them a release must classify correctly."""

    set: Annotated[str, Field(min_length=1)] = Field(
        description="The set, relative to the model file: a folder with one folder of images per label, or a CSV file of `image,label` with the images' paths relative to it."
    )
    min_top1: Share | None = Field(
        default=None, description="The least share of its images that must be classified correctly, from 0 to 1."
    )
    max_drop: Share | None = Field(
        default=None, description="How far that share may be below the live release's on the same images."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> QualitySettings:
        if self.min_top1 is None and self.max_drop is None:
            raise ValueError("asks for nothing: give min_top1, max_drop or both")
        return self


class GateSettings(_Part):
    """What must pass before a release counts as live."""

    golden: Annotated[tuple[GoldenImage, ...], Field(min_length=1)] = Field(
        description="Images with the answers that the model must give; every case must pass."
    )
    passes: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="How many rounds in a row must pass, each on new connections."
    )
    timeout_s: Seconds = Field(default=300, description="How long the gate tries before it fails.")
    failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="How many wrong answers the gate tolerates; each starts the count of rounds again."
    )
    errors: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description="How many rounds with a missing answer (no connection, 404, 429, 5xx) the gate tolerates, once a round has passed. If left out: any number within `timeout_s`.",
    )
    latency_ms: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=None,
        description="Upper limit for the 95th percentile of the answer times, in milliseconds, each including its connection. If left out: not judged.",
    )
    garbage: bool = Field(
        default=True, description="Whether each round also sends something that is not an image, which must be refused."
    )
    quality: QualitySettings | None = Field(
        default=None, description="How much of a labelled set must be classified correctly. If left out: not tested."
    )
    on_inconclusive: Literal["ask", "fail"] = Field(
        default="ask",
        description="What follows if the gate's result is inconclusive, see [gate.md](gate.md#inconclusive): `ask` a person, or `fail`.",
    )
    ask_timeout_s: Seconds = Field(default=1800, description="How long a person has to answer; no answer means no.")

    @model_validator(mode="after")
    def _names_differ(self) -> GateSettings:
        names = [case.name for case in self.golden]
        if len(set(names)) != len(names):
            raise ValueError(f"golden cases need names of their own, these are {', '.join(names)}")
        return self


class WatchSettings(_Part):
    """How often the Hub is polled for new commits between the runs of the schedule."""

    poll_s: Annotated[int, Field(ge=10, le=24 * 3600)] = Field(
        default=600, description="How often the triggerer polls the Hub, in seconds."
    )


class RetentionSettings(_Part):
    """How much of the past is kept. What exceeds it is pruned after each run that applied something."""

    releases: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=10,
        description="Releases that were proven live, including the live one. A rollback to each is possible; older ones are gone for good.",
    )
    records: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=50,
        description="Records of other runs, passed or failed. The records of kept and of bad releases are kept in addition.",
    )
    registry: bool = Field(
        default=True,
        description="Whether old images are deleted from the registry too; `false` if the registry has its own rules.",
    )


class ModelFile(_Part):
    """One served model, as its file describes it."""

    description: str = Field(default="", description="The text that people see in the Airflow UI.")
    source: Source = Field(description="Where the model comes from.")
    export: ExportSettings = ExportSettings()
    image: ImageSettings = ImageSettings()
    target: TargetSettings = TargetSettings()
    gate: GateSettings
    rollout_timeout_s: Seconds = Field(default=900, description="How long new pods may take to become ready.")
    address_timeout_s: Seconds = Field(
        default=600,
        description="How long the Service may take to get an address; a cloud's load balancer takes one to two minutes.",
    )
    on_first_failure: Literal["remove", "keep"] = Field(
        default="remove",
        description="What happens to a first release that fails, because it has no predecessor; `keep` leaves it for inspection.",
    )
    retention: RetentionSettings = RetentionSettings()
    schedule: str | None = Field(
        default=None,
        description='When it runs by itself: a cron expression, or a preset such as `"@weekly"`. If left out: only by hand.',
    )
    watch: WatchSettings | None = Field(
        default=None,
        description="Starts a run for each new commit on a Hub model's branch. If left out: only the schedule notices new revisions.",
    )

    @field_validator("schedule")
    @classmethod
    def _airflow_takes_it(cls, schedule: str | None) -> str | None:
        from croniter import croniter

        if schedule is None or schedule in PRESETS or croniter.is_valid(schedule):
            return schedule
        raise ValueError(f"neither a cron expression nor one of {', '.join(PRESETS)}")

    @model_validator(mode="after")
    def _nothing_stays_on_a_temporary_cluster(self) -> ModelFile:
        if self.target.gke is not None and self.target.gke.temporary and self.on_first_failure == "keep":
            raise ValueError("on_first_failure: keep leaves nothing on a temporary cluster: leave one of them out")
        return self

    @model_validator(mode="after")
    def _a_watch_has_something_to_see(self) -> ModelFile:
        if self.watch is None:
            return self
        if not isinstance(self.source, HubSource):
            raise ValueError("watch is for a Hub source: leave it out, new content is noticed by the schedule")  # noqa: TRY004 - pydantic takes ValueError
        if re.fullmatch(r"[0-9a-f]{40}", self.source.revision):
            raise ValueError("watch is for a branch: a commit never changes")
        if self.schedule in {"@once", "@continuous"}:
            raise ValueError(f"watch goes with a cron expression or no schedule, not with {self.schedule}")
        return self


def is_temporary(file: ModelFile) -> bool:
    """Whether each run of the model makes its own cluster and deletes it again."""
    return file.target.gke is not None and file.target.gke.temporary


def is_previewed(file: ModelFile) -> bool:
    """Whether a new release first runs beside the live one; on a cluster of the run's own there is no live one."""
    return file.target.strategy == "preview" and not is_temporary(file)


def may_be_in_doubt(file: ModelFile) -> bool:
    """Whether the gate may come to ask a person."""
    gate = file.gate
    return gate.on_inconclusive == "ask" and (gate.latency_ms is not None or gate.quality is not None)
