"""The model file: one YAML file in `include/served/` for each served model.

An invalid file is refused in one line with the file, the field and what to do next.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from slipway.model.export_settings import ExportSettings
from slipway.model.field_types import ImageName, Part, Schedule, Seconds
from slipway.model.gate_settings import INT8_LIMITS, GateSettings
from slipway.model.hub import COMMIT
from slipway.model.load_settings import LoadSettings
from slipway.model.source_settings import ArchiveSource, HubSource, SourceSettings
from slipway.model.sweep_settings import SweepSettings, sweep_plan
from slipway.model.target_settings import TargetSettings
from slipway.names import repository_of
from slipway.release import Builder, Retention
from slipway.runtimes import RUNTIMES, TENSORFLOW, RuntimeName

DEFAULT_RETENTION = Retention()


class ServingSettings(Part):
    """What answers the requests."""

    runtime: RuntimeName = Field(
        default="tensorflow",
        description="`tensorflow`: TensorFlow Serving with an exported SavedModel. `onnxruntime`: Slipway's own server with an ONNX file, exported from the checkpoint's PyTorch class. [runtimes.md](runtimes.md) says which to choose.",
    )


class ImageSettings(Part):
    """Where the image is built and where it is pushed."""

    base: ImageName | None = Field(
        default=None,
        description=f"The base image, which the model is copied into. If left out: `{TENSORFLOW.serving_image}`, or with `serving.runtime: onnxruntime` the Variable `{RUNTIMES['onnxruntime'].image_variable}`.",
    )
    cpu_features: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_]{2,30}$")], ...] = Field(
        default=(),
        max_length=20,
        description="What the base image needs of the nodes' CPUs, in the words of Node Feature Discovery, such as `AVX512F`: see [base-image.md](base-image.md). `plan` compares the nodes' labels.",
    )
    repository: str | None = Field(
        default=None,
        description="Where the image is pushed, without a tag. If left out: the Variable `slipway_registry`, `/` and the model's name.",
    )
    builder: Builder = Field(
        default="engine",
        description="What makes the image. `engine`: a Docker Engine, on which the smoke test runs too. `registry`: the registry itself, which gets the model as one more layer of the base image; the worker needs no engine, and the preview is the smoke test: [builders](#builders).",
    )
    engine_conn_id: str = Field(
        default="docker_default",
        description="A connection of type docker whose host names an engine: `unix:///…`, `tcp://…`. Only with `builder: engine`.",
    )
    registry_conn_id: str | None = Field(
        default=None,
        description="The connection for the registry's login: of type docker, with host, login and password; or of type google_cloud_platform, with a short-lived token. If left out: [see below](#logins).",
    )


class WatchSettings(Part):
    """How often the Hub is polled for new commits between the runs of the schedule."""

    poll_s: Annotated[int, Field(ge=10, le=24 * 3600)] = Field(
        default=600, description="How often the triggerer polls the Hub, in seconds."
    )


class RetentionSettings(Part):
    """How much of the past is kept. What exceeds it is pruned at the end of each run that had something to do."""

    releases: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=DEFAULT_RETENTION.releases,
        description="Releases that were proven live, including the live one. A rollback to each is possible; older ones are gone for good.",
    )
    records: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=DEFAULT_RETENTION.records,
        description="Records of other runs, passed or failed. The records of kept and of bad releases are kept in addition.",
    )
    registry: bool = Field(
        default=DEFAULT_RETENTION.registry,
        description="Whether old images are deleted from the registry too; `false` if the registry has its own rules.",
    )


class ModelFile(Part):
    """One served model, as its file describes it."""

    description: str = Field(default="", description="The text that people see in the Airflow UI.")
    source: SourceSettings = Field(description="Where the model comes from.")
    serving: ServingSettings = ServingSettings()
    export: ExportSettings = ExportSettings()
    image: ImageSettings = ImageSettings()
    target: TargetSettings = TargetSettings()
    gate: GateSettings
    load_test: LoadSettings | None = Field(
        default=None, description="Gives the model a DAG `load_test_NAME`. If left out: it has none."
    )
    sweep: SweepSettings | None = Field(
        default=None, description="Gives the model a DAG `sweep_NAME`. If left out: it has none."
    )
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
    schedule: Schedule | None = Field(
        default=None,
        description='When it runs by itself: a cron expression, or a preset such as `"@weekly"`. If left out: only by hand.',
    )
    watch: WatchSettings | None = Field(
        default=None,
        description="Starts a run for each new commit on a Hub model's branch. If left out: only the schedule notices new revisions.",
    )

    @model_validator(mode="after")
    def _runtime_can_serve(self) -> ModelFile:
        runtime, precision, base = RUNTIMES[self.serving.runtime], self.export.precision, self.image.base
        if isinstance(self.source, ArchiveSource) and not runtime.serves_saved_models:
            raise ValueError(
                f"source.savedmodel is a model of TensorFlow, which serving.runtime: {runtime.name} cannot serve: "
                "give its checkpoint as source.folder or source.hub, or leave serving.runtime out"
            )
        if precision not in runtime.precisions:
            raise ValueError(
                f"export.precision: {precision} needs serving.runtime: onnxruntime: give that, or leave export.precision out"
            )
        if precision == "int8" and self.gate.quality is None:
            raise ValueError("export.precision: int8 needs gate.quality, which shows what it costs in accuracy")
        if precision != "int8" and self.export.calibration != "none":
            raise ValueError("export.calibration has no effect without export.precision: int8: leave one of them out")
        quality = self.gate.quality
        if precision != "int8" and quality is not None and (unused := sorted(INT8_LIMITS & quality.model_fields_set)):
            raise ValueError(
                f"gate.quality.{unused[0]} has no effect without export.precision: int8: leave one of them out"
            )
        if base is not None and runtime is not TENSORFLOW and is_tensorflow_serving(base):
            raise ValueError(
                f"image.base: {base} is TensorFlow Serving, and serving.runtime is {runtime.name}: "
                f"name {runtime.image_source}, or leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _runtime_has_what_is_asked(self) -> ModelFile:
        runtime = RUNTIMES[self.serving.runtime]
        if "h5" in getattr(self.source, "allow", ()) and not runtime.reads_h5:
            raise ValueError(
                f"source.allow: h5 has no effect with serving.runtime: {runtime.name}, whose exporter reads safetensors only: "
                "leave one of them out, and save the checkpoint with safetensors"
            )
        if self.sweep and self.sweep.grid.inter_op and not runtime.has_inter_op:
            raise ValueError(
                f"sweep.grid.inter_op has no effect with serving.runtime: {runtime.name}, whose server ignores it: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _load_test_can_run(self) -> ModelFile:
        if self.load_test is None:
            return self
        if is_temporary(self):
            raise ValueError(
                "load_test has no effect on a temporary cluster, which keeps nothing live: leave one of them out"
            )
        if self.load_test.images == "labelled" and self.gate.quality is None:
            raise ValueError("load_test.images: labelled needs gate.quality")
        return self

    @model_validator(mode="after")
    def _sweep_can_compare(self) -> ModelFile:
        if self.sweep is None:
            return self
        if is_temporary(self):
            raise ValueError(
                "sweep has no effect on a temporary cluster, which keeps nothing live: leave one of them out"
            )
        if len(sweep_plan(self.sweep, self.target.overlay).variants) == 1:
            raise ValueError(
                "sweep has nothing to compare with target.overlay: give sweep.overlays, sweep.grid or both"
            )
        return self

    @model_validator(mode="after")
    def _baked_release_has_users(self) -> ModelFile:
        if self.gate.bake is not None and is_temporary(self):
            raise ValueError("gate.bake has no effect on a temporary cluster, which nobody uses: leave one of them out")
        return self

    @model_validator(mode="after")
    def _temporary_cluster_keeps_nothing(self) -> ModelFile:
        if self.target.gke is not None and self.target.gke.temporary and self.on_first_failure == "keep":
            raise ValueError("on_first_failure: keep has no effect on a temporary cluster: leave one of them out")
        return self

    @model_validator(mode="after")
    def _approval_comes_before_users(self) -> ModelFile:
        if self.gate.approval == "always" and not is_previewed(self):
            raise ValueError(
                "gate.approval: always needs a preview, which target.strategy: rolling and a temporary cluster do not have: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _image_is_tested_before_users(self) -> ModelFile:
        if self.image.builder == "registry" and not (is_previewed(self) or is_temporary(self)):
            raise ValueError(
                "image.builder: registry needs a preview, which is where its image is tested: leave it or target.strategy: rolling out"
            )
        return self

    @model_validator(mode="after")
    def _load_comes_before_users(self) -> ModelFile:
        if self.gate.load is not None and not is_previewed(self):
            raise ValueError(
                "gate.load needs a preview, which target.strategy: rolling and a temporary cluster do not have: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _watch_can_see_changes(self) -> ModelFile:
        if self.watch is None:
            return self
        if not isinstance(self.source, HubSource):
            raise ValueError("watch is only for a Hub source: leave it out, the schedule notices new content")  # noqa: TRY004 - pydantic takes ValueError
        if COMMIT.fullmatch(self.source.revision):
            raise ValueError("watch is only for a branch: a commit never changes")
        if self.schedule in {"@once", "@continuous"}:
            raise ValueError(f"watch needs a cron expression or no schedule, not {self.schedule}")
        return self


def is_tensorflow_serving(base: str) -> bool:
    """Whether a base image is TensorFlow Serving's own or a mirror of it, by its name."""
    return f"/{repository_of(base)}".endswith("/tensorflow/serving")


def is_temporary(file: ModelFile) -> bool:
    """Whether each run of the model makes its own cluster and deletes it again."""
    return file.target.gke is not None and file.target.gke.temporary


def is_previewed(file: ModelFile) -> bool:
    """Whether a new release first runs next to the live one. A temporary cluster has no live one."""
    return file.target.strategy == "preview" and not is_temporary(file)


def may_ask_person(file: ModelFile) -> bool:
    """Whether a person may be asked to approve a release."""
    gate = file.gate
    may_be_inconclusive = any(part is not None for part in (gate.latency_ms, gate.quality, gate.load))
    return gate.approval == "always" or (gate.on_inconclusive == "ask" and may_be_inconclusive)
