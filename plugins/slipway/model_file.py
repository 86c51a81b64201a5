"""The model file: one YAML in `include/served/` for each model that is served.

A file that cannot be meant is refused in one line that names file, field and the way to mend it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from slipway.cluster import ClusterSpec, NodePool
from slipway.errors import InputRefused
from slipway.release import preview_name

PROJECT = Path(__file__).resolve().parents[2]
SERVED = PROJECT / "include" / "served"
OVERLAYS = PROJECT / "include" / "manifests" / "overlays"

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"  # a DNS label, short enough for a suffix of ours
SHA256_PATTERN = r"^[0-9a-f]{64}$"
SERVING_IMAGE = "tensorflow/serving:2.20.0"
PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")  # Airflow's own

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


class NodePoolSettings(_Part):
    """Nodes of one kind."""

    name: Name = Field(default="default-pool", description="The pool's name.")
    machine_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*-[a-z0-9-]+$")] = Field(
        default="n1-standard-8",
        description="Compute Engine's machine type.",
        json_schema_extra={"form": "machine type"},
    )
    count: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=2, description="The initial number of nodes; in a region, per zone."
    )
    min_count: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="The autoscaler's lower limit; required with `max_count`."
    )
    max_count: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="The autoscaler's upper limit. If left out: the pool does not scale."
    )

    @model_validator(mode="after")
    def _limits_hold_the_count(self) -> NodePoolSettings:
        if (self.min_count is None) != (self.max_count is None):
            raise ValueError("min_count and max_count go together: give both or neither")
        if (
            self.min_count is not None
            and self.max_count is not None
            and not self.min_count <= self.count <= self.max_count
        ):
            raise ValueError(f"count {self.count} is not between min_count and max_count")
        return self


class GkeSettings(_Part):
    """A GKE cluster: found by its name, made where there is none, never changed."""

    conn_id: str = Field(
        default="google_cloud_default", description="A connection of type google_cloud_platform, which may impersonate."
    )
    project: str | None = Field(default=None, description="The Google Cloud project. If left out: the connection's.")
    location: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]+(-[a-z])?$")] = Field(
        default="us-central1-a", description="A zone, or a region.", json_schema_extra={"form": "zone or region"}
    )
    cluster: Name = Field(default="tfs-cluster", description="The cluster's name.")
    autopilot: bool = Field(default=False, description="Google manages the nodes; then leave out `node_pools`.")
    node_pools: Annotated[tuple[NodePoolSettings, ...], Field(min_length=1)] = Field(
        default=(NodePoolSettings(),), description="The node pools. If left out: one pool with the defaults below."
    )
    release_channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = Field(
        default="REGULAR", description="How soon Google upgrades the cluster."
    )
    workload_identity: bool = Field(default=True, description="Pods may act as Google service accounts, without keys.")
    private_nodes: bool = Field(default=False, description="Nodes have no public addresses.")
    endpoint: Literal["public", "private", "dns"] = Field(
        default="public",
        description="How Airflow reaches the API server; `private` needs workers in the cluster's network.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels that Google shows on the bill.")
    timeout_s: Seconds = Field(
        default=1800, description="How long creating or deleting the cluster may take; Google takes five minutes."
    )
    temporary: bool = Field(
        default=False,
        description="Each run creates the cluster, proves the release on it and deletes it again, pass or fail; see [gke.md](gke.md#a-cluster-for-one-run).",
    )

    @model_validator(mode="after")
    def _autopilot_has_no_pools(self) -> GkeSettings:
        if self.autopilot and "node_pools" in self.model_fields_set:
            raise ValueError("autopilot has no node_pools: leave one of them out")
        return self

    @property
    def spec(self) -> ClusterSpec:
        """The shape of the cluster as a fact."""
        pools = () if self.autopilot else self.node_pools
        return ClusterSpec(
            node_pools=tuple(NodePool(**pool.model_dump()) for pool in pools),
            release_channel=self.release_channel,
            workload_identity=self.workload_identity and not self.autopilot,  # Autopilot's clusters always have it
            private_nodes=self.private_nodes,
            labels=dict(self.labels),
            timeout_s=self.timeout_s,
            temporary=self.temporary,
        )


class TargetSettings(_Part):
    """Where the model is served."""

    gke: GkeSettings | None = Field(
        default=None,
        description="A GKE cluster in place of `conn_id`; a run creates it if it does not exist. `target: gke` alone means all defaults.",
    )

    conn_id: str = Field(default="kubernetes_default", description="The cluster: a connection of type kubernetes.")
    namespace: Name | None = Field(
        default=None,
        description="The objects' namespace. If left out: the connection's; with `gke` the Variable `slipway_namespace`, or `default`.",
    )
    deployment: Name = Field(
        default="tfs-server",
        description="The name of the Deployment, and of its Service, HorizontalPodAutoscaler and PodDisruptionBudget.",
    )
    overlay: str | None = Field(
        default=None,
        description="A folder of `include/manifests/overlays`, see [overlays.md](overlays.md). If left out: only the base.",
    )
    address: Url | None = Field(
        default=None,
        description="A fixed URL in place of the Service's address, for example of an ingress.",
    )
    grpc_address: Annotated[str, Field(pattern=r"^([\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$")] | None = Field(
        default=None,
        description="The gRPC endpoint that goes with `address`, without TLS. If left out: gRPC is not tested at `address`.",
        json_schema_extra={"form": "host:port"},
    )
    strategy: Literal["preview", "rolling"] = Field(
        default="preview",
        description="`preview`: a new release first runs next to the live one, without users, and must pass its gate there. `rolling`: it replaces the live one pod by pod at once. See [operating.md](operating.md#the-preview).",
    )
    unschedulable_grace_s: Seconds = Field(
        default=300,
        description="How long a pod may be unschedulable before the rollout fails. The count starts again when a node is added or the cluster autoscaler begins to add some.",
    )

    @model_validator(mode="before")
    @classmethod
    def _gke_alone_means_all_defaults(cls, given: Any) -> Any:
        return {"gke": {}} if given == "gke" else given

    @model_validator(mode="after")
    def _one_cluster(self) -> TargetSettings:
        if self.gke is not None and "conn_id" in self.model_fields_set:
            raise ValueError("conn_id and gke name two clusters: leave one of them out")
        return self

    @model_validator(mode="after")
    def _grpc_goes_with_an_address(self) -> TargetSettings:
        if self.grpc_address is not None and self.address is None:
            raise ValueError("grpc_address goes with address: without it the Service says both")
        return self

    @field_validator("address")
    @classmethod
    def _has_a_host(cls, address: str | None) -> str | None:
        if address is not None:
            parts = urlsplit(address)
            if not parts.hostname or parts.port == 0:  # a port that is no number is a ValueError of its own
                raise ValueError("names no host, or port 0")
        return address


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


def served_files(folder: Path = SERVED) -> list[Path]:
    """The model files there are, in the order of their names."""
    return sorted(folder.glob("*.yaml"))


def read_model_file(path: Path) -> ModelFile:
    """The model file at this path.

    Raises InputRefused in one line that names the file, the field and the way to mend it.
    """
    where = " ".join(_shown(path).splitlines())
    if not re.fullmatch(NAME_PATTERN, path.stem):
        raise InputRefused(
            f"{where}: the file's name names the model, and {path.stem!r} cannot be one. "
            "Next: use lower-case letters, digits and '-', at most 40, starting with a letter"
        )
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_FieldsOnce)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise InputRefused(f"{where}: no such model file. Next: create it, see docs/model-file.md") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{where}: cannot be read: {error}. Next: make it a readable UTF-8 file") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that cannot be is a ValueError
        raise InputRefused(f"{where}: not YAML: {' '.join(str(error).split())}. Next: mend that line") from error
    return parse_model_file(data, where=where)


class _FieldsOnce(yaml.SafeLoader):
    """PyYAML's own loader lets the second of two equal fields win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def parse_model_file(data: Any, *, where: str) -> ModelFile:
    """The model file from parsed YAML; `where` names it in what is raised (InputRefused)."""
    if not isinstance(data, dict):
        raise InputRefused(f"{where}: holds no fields. Next: give at least source and gate, see docs/model-file.md")
    try:
        return ModelFile.model_validate(data)
    except ValidationError as error:
        raise InputRefused(f"{where}: {_explain(error)}") from error


def check_unshared(files: dict[str, ModelFile]) -> None:
    """Refuse two model files that would write one object. Raises InputRefused naming both."""
    writers: dict[tuple[tuple[str | None, ...], str | None, str], str] = {}
    for name, file in sorted(files.items()):
        for deployment in _written(file):
            key = (_cluster_of(file.target), file.target.namespace, deployment)
            if key in writers:
                raise InputRefused(
                    f"include/served/{name}.yaml: target.deployment: {deployment!r} is written by "
                    f"include/served/{writers[key]}.yaml too. Next: give one of them a target.deployment of its own"
                )
            writers[key] = name
    _check_temporary(files)


def _written(file: ModelFile) -> list[str]:
    """The Deployments that runs of a model file write, by name."""
    live = file.target.deployment
    return [live, preview_name(live)] if is_previewed(file) else [live]


def _check_temporary(files: dict[str, ModelFile]) -> None:
    """Refuse a temporary cluster that another model file names too: it goes with whatever lives there."""
    named: dict[tuple[str | None, ...], str] = {}
    for name, file in sorted(files.items(), key=lambda item: not is_temporary(item[1])):
        cluster = _cluster_of(file.target)
        if cluster in named and is_temporary(files[named[cluster]]):
            raise InputRefused(
                f"include/served/{named[cluster]}.yaml: target.gke: the temporary cluster is named by "
                f"include/served/{name}.yaml too. Next: give one of them a target.gke.cluster of its own"
            )
        named.setdefault(cluster, name)


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


def sharing_cluster(files: dict[str, ModelFile], name: str) -> tuple[str, ...]:
    """The other model files that name the same cluster, by name."""
    cluster = _cluster_of(files[name].target)
    return tuple(
        other for other, file in sorted(files.items()) if other != name and _cluster_of(file.target) == cluster
    )


def _cluster_of(target: TargetSettings) -> tuple[str | None, ...]:
    """What tells two targets' clusters apart, as far as model files say."""
    gke = target.gke
    return (target.conn_id,) if gke is None else (gke.conn_id, gke.project, gke.location, gke.cluster)


def golden_location(file: Path, case: GoldenImage) -> str:
    """Where a golden image is: its URL, or the absolute path of the file beside the model file."""
    if case.image.startswith(("http://", "https://")):
        return case.image
    return str((file.parent / case.image).resolve())


def overlay_names(folder: Path = OVERLAYS) -> list[str]:
    """The overlays that a release may name: the folders below `include/manifests/overlays`."""
    return sorted(path.parent.name for path in folder.glob("*/kustomization.yaml"))


def _explain(error: ValidationError) -> str:
    """Pydantic's findings as one line: field, what is wrong, what next."""
    findings: list[str] = []
    for finding in error.errors(include_url=False):
        field = _field(finding["loc"])
        text = finding["msg"].removeprefix("Value error, ")
        shown = f" (got {finding['input']!r})" if finding["type"] not in {"missing", "extra_forbidden"} else ""
        findings.append(f"{field}: {text[0].lower()}{text[1:]}{shown if len(shown) < 80 else ''}")  # noqa: PLR2004 - a line stays a line
    shown_findings = "; ".join(dict.fromkeys(findings))
    return f"{shown_findings}. Next: mend {_field(error.errors()[0]['loc'])}, see docs/model-file.md"


def _field(loc: tuple[int | str, ...]) -> str:
    """A path as people write it, without the tag that pydantic puts behind `source`."""
    parts = [str(part) for part in loc]
    if parts[:1] == ["source"]:
        del parts[1:2]
    return ".".join(parts) or "the file"


def _shown(path: Path) -> str:
    """The path from the project's folder where it lies below it."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
