"""The model file's `export`: what the served model accepts and returns, what an export may use, and where it runs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.model.field_types import ImageName, Part
from slipway.release import ExportLimits, ExportOptions
from slipway.runtimes import Calibration, Precision

DEFAULT_EXPORT = ExportOptions()
DEFAULT_LIMITS = ExportLimits()


class LimitSettings(Part):
    """What an export may use on its worker. It is ended when it uses more. MiB is 1024 * 1024 bytes."""

    memory_mib: Annotated[int, Field(ge=512, le=1024 * 1024)] = Field(
        default=DEFAULT_LIMITS.memory_mib, description="Memory, in MiB."
    )
    cpu_s: Annotated[int, Field(ge=10, le=7 * 24 * 3600)] = Field(
        default=DEFAULT_LIMITS.cpu_s, description="Processor time of all its threads together, in seconds."
    )
    processes: Annotated[int, Field(ge=16, le=65536)] = Field(
        default=DEFAULT_LIMITS.processes,
        description="Processes and threads; TensorFlow starts several threads for each core.",
    )
    disk_mib: Annotated[int, Field(ge=16, le=1024 * 1024)] = Field(
        default=DEFAULT_LIMITS.disk_mib, description="What it writes, in MiB; for an archive also what it unpacks to."
    )
    download_mib: Annotated[int, Field(ge=1, le=1024 * 1024)] = Field(
        default=DEFAULT_LIMITS.download_mib, description="What is fetched for it, in MiB."
    )


class PodSettings(Part):
    """The pod that exports, with `run_in: pod`."""

    conn_id: str = Field(
        default="kubernetes_default", description="A connection of type kubernetes, to the cluster that exports."
    )
    namespace: str | None = Field(
        default=None, description="The pod's namespace. If left out: the connection's, else `default`."
    )
    image: ImageName | None = Field(
        default=None,
        description="An image with the exporter's environment, from `include/model/Dockerfile` or `include/onnx_model/Dockerfile`. If left out: the Variable `slipway_exporter_image` or `slipway_onnx_exporter_image`.",
    )
    image_pull_secret: str | None = Field(
        default=None, description="A Secret in the pod's namespace with the login to the image's registry."
    )
    cpu: Annotated[float, Field(ge=0.1, le=256)] = Field(
        default=1, description="Cores that the scheduler reserves. The pod may use more if its node has them."
    )
    memory_mib: Annotated[int, Field(ge=256, le=1024 * 1024)] = Field(
        default=4096,
        description="Memory that the scheduler reserves, in MiB. The pod may use as much as `export.limits.memory_mib`.",
    )
    node_selector: dict[str, str] = Field(default={}, description="Labels that the pod's node must have.")


class ExportSettings(Part):
    """What the served model accepts and returns, which has no effect on a SavedModel archive, and what an export may use."""

    precision: Precision = Field(
        default="float32",
        description="How the weights are stored, see [runtimes.md](runtimes.md#precision); only with `serving.runtime: onnxruntime`. `float16_weights` halves the file, and is refused if its answers are beyond float32's bound. `int8` computes with 8 bits, less exactly: it needs `gate.quality`. Whether it is faster depends on the CPU.",
    )
    calibration: Calibration = Field(
        default="none",
        description="With `precision: int8`: `none`, or `labelled` to fix the scales with a part of `gate.quality.set`, which is then not judged.",
    )
    top_k: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=DEFAULT_EXPORT.top_k,
        description="How many labels the signature `top_k` returns; all if the model has fewer.",
    )
    max_file_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = Field(
        default=DEFAULT_EXPORT.max_file_bytes, description="The largest image file that is decoded, in bytes."
    )
    max_side: Annotated[int, Field(ge=16, le=32768)] = Field(
        default=DEFAULT_EXPORT.max_side, description="The longest side of an image that is decoded, in pixels."
    )
    on_bad_image: Literal["refuse", "mark"] = Field(
        default=DEFAULT_EXPORT.on_bad_image,
        description="What happens to a bad image. `refuse`: the request gets 400. `mark`: the image's label says so, which server-side batching needs on TensorFlow.",
    )
    warmup_batches: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=DEFAULT_EXPORT.warmup_batches,
        min_length=1,
        max_length=10,
        description="Sizes of the warmup requests, in images; each signature gets each size. With server-side batching, at most its `max_batch_size`. If left out: 1 and 4.",
    )
    limits: LimitSettings = LimitSettings()
    run_in: Literal["worker", "pod"] = Field(
        default="worker",
        description="Where the exporter runs. `worker`: beside the task, with the interpreter that the Variable `slipway_exporter_python` names. `pod`: in a pod of its own, so that Airflow's image needs no TensorFlow: [exports in the cluster](#exports-in-the-cluster).",
    )
    pod: PodSettings = PodSettings()

    @model_validator(mode="after")
    def _pod_is_used(self) -> Self:
        if self.run_in == "worker" and self.pod != PodSettings():
            raise ValueError("pod: is only for run_in: pod. Leave it out, or set run_in: pod")
        return self
