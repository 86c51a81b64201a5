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
    """Where the image is made and where it goes."""

    base: str = Field(default=SERVING_IMAGE, description="The image that the model is put into.")
    repository: str | None = Field(
        default=None,
        description="Where the image goes, without a tag. Left out: the Variable `slipway_registry`, `/` and the model's name.",
    )
    engine_conn_id: str = Field(
        default="docker_default",
        description="A connection of type docker whose host names an engine: `unix:///…`, `tcp://…`.",
    )
    registry_conn_id: str | None = Field(
        default=None,
        description="The connection that logs in to the registry: of type docker, with host, login and password; or of type google_cloud_platform, by a short-lived token. Left out: [see below](#logins).",
    )


class ExportSettings(_Part):
    """What the served graph takes and gives; a SavedModel archive brings its own graph, and these change nothing there."""

    top_k: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="Labels that the signature `top_k` gives; all of them where the model has fewer."
    )
    max_file_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = Field(
        default=16 * 1024 * 1024, description="The largest image file that is decoded, in bytes."
    )
    max_side: Annotated[int, Field(ge=16, le=32768)] = Field(
        default=8192, description="The longest side of an image that is decoded, in pixels."
    )
    on_bad_image: Literal["refuse", "mark"] = Field(
        default="refuse",
        description="`refuse` answers a request with a bad image with 400; `mark` says so in that image's label, as server-side batching needs it.",
    )
    warmup_batches: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(1, 4),
        min_length=1,
        max_length=10,
        description="How many images the requests have that the server warms up with, each signature with each number; where it joins requests, at most its `max_batch_size`. Left out: 1 and 4.",
    )


class QualitySettings(_Part):
    """A labelled set of images, and how many of them have to be told right before a release counts."""

    set: Annotated[str, Field(min_length=1)] = Field(
        description="The set, relative to the model file: a folder with a folder of images for each label, or a CSV file of `image,label` with the images' paths relative to it."
    )
    min_top1: Share | None = Field(
        default=None, description="The share of its images that has to be told right, from 0 to 1."
    )
    max_drop: Share | None = Field(
        default=None, description="How much smaller that share may be than the live release's on the same images."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> QualitySettings:
        if self.min_top1 is None and self.max_drop is None:
            raise ValueError("asks for nothing: give min_top1, max_drop or both")
        return self


class GateSettings(_Part):
    """What has to be answered before a release counts."""

    golden: Annotated[tuple[GoldenImage, ...], Field(min_length=1)] = Field(
        description="Images whose answers are promised; every one must hold before a release counts."
    )
    passes: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="Rounds in a row, each on new connections."
    )
    timeout_s: Seconds = Field(default=300, description="How long the gate asks before it says no.")
    failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="Wrong answers that the gate bears before it says no; the rounds in a row begin anew."
    )
    errors: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description="Rounds that the gate bears in which no answer came to some question (no connection, 404, 429, 5xx), once a round has passed. Left out: as many as come in `timeout_s`.",
    )
    latency_ms: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=None,
        description="What 95 of 100 answers may take at most, in milliseconds, each with its connection. Left out: not judged.",
    )
    garbage: bool = Field(
        default=True, description="Whether each round also asks something that is no image, which has to be refused."
    )
    quality: QualitySettings | None = Field(
        default=None, description="How well a labelled set has to be told. Left out: not asked."
    )
    on_inconclusive: Literal["ask", "fail"] = Field(
        default="ask",
        description="What follows where the gate is in doubt, see [gate.md](gate.md): `ask` a person, or `fail`.",
    )
    ask_timeout_s: Seconds = Field(default=1800, description="How long a person has to answer; no answer means no.")

    @model_validator(mode="after")
    def _names_differ(self) -> GateSettings:
        names = [case.name for case in self.golden]
        if len(set(names)) != len(names):
            raise ValueError(f"golden cases need names of their own, these are {', '.join(names)}")
        return self


class WatchSettings(_Part):
    """How a Hub model is watched for new commits between the runs of the schedule."""

    poll_s: Annotated[int, Field(ge=10, le=24 * 3600)] = Field(
        default=600, description="How often the triggerer asks the Hub, in seconds."
    )


class RetentionSettings(_Part):
    """How much of the past is kept; what goes beyond it is pruned after each run that brought something."""

    releases: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=10,
        description="Releases that were proven live, the live one among them: each can come back, older ones are gone for good.",
    )
    records: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=50,
        description="Records of runs, whatever became of them, beside those of the kept releases and of each that was found bad.",
    )
    registry: bool = Field(
        default=True,
        description="Whether old images are deleted from the registry too; `false` where it has rules of its own.",
    )


class ModelFile(_Part):
    """One served model, as its file says."""

    description: str = Field(default="", description="What people read in the Airflow UI.")
    source: Source = Field(description="Where the model comes from.")
    export: ExportSettings = ExportSettings()
    image: ImageSettings = ImageSettings()
    target: TargetSettings = TargetSettings()
    gate: GateSettings
    rollout_timeout_s: Seconds = Field(default=900, description="How long new pods may take to be ready.")
    address_timeout_s: Seconds = Field(
        default=600,
        description="How long the Service may take to get an address; a cloud's load balancer takes one to two minutes.",
    )
    on_first_failure: Literal["remove", "keep"] = Field(
        default="remove",
        description="What becomes of a first release that fails, which has none to go back to; `keep` leaves it for inspection.",
    )
    retention: RetentionSettings = RetentionSettings()
    schedule: str | None = Field(
        default=None,
        description='When it runs by itself: a cron expression, or a preset such as `"@weekly"`. Left out: by hand only.',
    )
    watch: WatchSettings | None = Field(
        default=None,
        description="A run for each new commit of a Hub model's branch. Left out: the schedule alone notices new revisions.",
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
