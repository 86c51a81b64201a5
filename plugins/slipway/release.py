"""A Release: what one run serves, from where, to where, and all names that follow from it.

`resolve` makes the Release once; every later task reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from string import Template
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from slipway import names
from slipway.names import (
    CLUSTER_LABEL_MODEL,
    CLUSTER_LABEL_RUN,
    CLUSTER_LABEL_STORE,
    LABEL_MODEL,
    LABEL_RELEASE,
    LABEL_VERSION,
)
from slipway.runtimes import RUNTIMES, Calibration, Precision, Runtime, RuntimeName
from slipway.target import ClusterSpec, Target

DEFAULT_UNSCHEDULABLE_GRACE_S = 300
# Of a recorded release that does not say.
FIRST_RUNTIME = {"runtime": "tensorflow", "precision": "float32", "calibration": "none"}
# What `gate.bake.prometheus` fills in.
QUERY_NAMES = ("namespace", "deployment", "model", "version", "release", "window")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source, pinned to a revision."""

    kind: Literal["folder", "objects", "hub", "savedmodel"]
    location: str  # a folder relative to include/served, URI of a folder in a bucket, Hub repository, or plain URL
    revision: str  # sha256:… of the folder's content, 40-hex commit, or sha256:… of the archive
    token_conn_id: str | None = None  # the connection whose password is a Hub token; the token itself is never here
    allow: tuple[str, ...] = ()  # old formats of weights that may be read

    @property
    def url(self) -> str:
        """The value of OCI's `org.opencontainers.image.source`, without credentials."""
        if self.kind == "hub":
            return f"https://huggingface.co/{self.location}"
        parts = urlsplit(self.location)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def kept_key(self, model: str) -> str:
        """The store's key for a copy of this revision, which may disappear upstream."""
        return names.source_key(model, self.revision, ".tar.gz" if self.kind == "savedmodel" else ".tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """A golden image and the answer that the model file promises; the task `export` fetches its bytes."""

    name: str
    image: str  # relative to include/served, or a plain URL: without its query, which may be a signature
    sha256: str | None  # of its bytes when the run was resolved; None in the records of an earlier Slipway
    label: str | tuple[str, ...]  # several: any of them is correct
    min_confidence: float  # 0..1

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of which one must be answered."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityBounds:
    """A labelled set, pinned by its content, and the share of its images that must be classified correctly."""

    uri: str  # of the copy in the artifact store, made when the run was resolved
    digest: str  # sha256:… of images and labels
    min_top1: float | None  # 0..1
    max_drop: float | None  # 0..1, from the live release's share
    # Of an int8 model, against its float32 graph; a record of an earlier Slipway has neither.
    int8_max_changed: float = 0.02  # 0..1, of the labels
    int8_max_drop: float = 0.01  # 0..1, of the share classified correctly


Builder = Literal["engine", "registry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBounds:
    """A constant rate that a release must bear at its preview, measured in rounds."""

    rate_per_s: float
    p95_ms: float | None = None
    max_slowdown: float | None = None  # how far p95 may be above the live release's: 0.2 for 20 %
    max_errors: float = 0  # share of the requests that may have no answer, 0..1
    grpc_share: float = 0  # of the users, 0..1
    rounds: int = 5
    step_s: int = 10  # of each release in each round
    settle_s: int = 2  # the beginning of a step, which is in no figure

    @property
    def seconds(self) -> int:
        """How long the rounds take."""
        return self.rounds * self.step_s * (1 if self.max_slowdown is None else 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusQueries:
    """A Prometheus that is asked in place of the pods, and the queries; each gives one number."""

    conn_id: str
    errors: str | None = None  # a query for a share, 0..1
    p95_ms: str | None = None

    def filled(self, query: str, values: Mapping[str, object]) -> str:
        """A query with the values of QUERY_NAMES; a `$` that begins no name stays, as in a pattern."""
        return Template(query).safe_substitute(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """How long a release is watched after its gate, and what it may not exceed; the defaults are the model file's."""

    for_s: int = 600
    every_s: int = 30
    max_errors: float = 0.01  # 0..1, of the requests that the server could answer
    max_more_errors: float | None = (
        None  # how far that share may be above the release before's: 0.01 for one in a hundred
    )
    max_refused: float | None = None  # 0..1, of all requests
    p95_ms: float | None = None
    max_slowdown: float | None = None  # how far the mean answer time may be above the release before's: 0.2 for 20 %
    prometheus: PrometheusQueries | None = None

    @property
    def reads_pods(self) -> bool:
        """Whether the metrics are those of the pods' own page."""
        return self.prometheus is None

    @property
    def compares(self) -> bool:
        """Whether the release before is measured too."""
        return self.max_slowdown is not None or self.max_more_errors is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the gate sends besides the golden requests, and its limits; the defaults are the model file's."""

    failures: int = 0  # wrong answers that it tolerates
    errors: int | None = None  # rounds with missing answers that it tolerates after the first pass; None: any number
    latency_ms: int | None = None
    garbage: bool = True
    quality: QualityBounds | None = None
    load: LoadBounds | None = None
    bake: Bake | None = None  # None: the release counts as good once its gate has passed
    approval: Literal["when_inconclusive", "always"] = "when_inconclusive"
    on_inconclusive: Literal["ask", "fail"] = "ask"
    ask_timeout_s: int = 1800

    @property
    def limits(self) -> dict[str, object]:
        """The rules, without where the labelled set is stored, who is asked, and for how long."""
        quality = self.quality
        return {
            "failures": self.failures,
            "errors": self.errors,
            "latency_ms": self.latency_ms,
            "garbage": self.garbage,
            "set": quality and quality.digest,
            "min_top1": quality and quality.min_top1,
            "max_drop": quality and quality.max_drop,
            "int8_max_changed": quality and quality.int8_max_changed,
            "int8_max_drop": quality and quality.int8_max_drop,
            "load": self.load and asdict(self.load),
            "bake": self.bake and asdict(self.bake),
        }

    @property
    def compares(self) -> bool:
        """Whether the live release's accuracy is needed: for the limit, or for the person who approves each release."""
        return self.quality is not None and (self.quality.max_drop is not None or self.approval == "always")

    @property
    def reads_pods(self) -> bool:
        """Whether the pods' own metrics are read."""
        return self.bake is not None and self.bake.reads_pods

    @property
    def forwards_grpc(self) -> bool:
        """Whether pods are asked over gRPC without the model's address: through a port-forward."""
        return self.load is not None and self.load.grpc_share > 0

    @property
    def promises_only(self) -> Gate:
        """The gate of a rollback: golden cases and garbage only. The release was judged when it was new, and is needed now."""
        return replace(self, latency_ms=None, quality=None, load=None, bake=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a model's history is kept."""

    releases: int = 10  # proven live, the live one included; each can be rolled back to
    records: int = 50  # of runs, whether they succeeded or failed
    registry: bool = True  # whether images are deleted from the registry too


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The inputs and outputs of the exported graph; a SavedModel archive has its own graph and ignores these."""

    top_k: int = 5
    max_file_bytes: int = 16 * 1024 * 1024
    max_side: int = 8192  # pixels
    on_bad_image: Literal["refuse", "mark"] = "refuse"
    warmup_batches: tuple[int, ...] = (1, 4)  # images per warm-up request


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportLimits:
    """What an export may use; MiB is 1024 * 1024 bytes. They decide nothing about its result."""

    memory_mib: int = 16 * 1024
    cpu_s: int = 2 * 3600
    processes: int = 1024  # and threads: TensorFlow starts several for each core
    disk_mib: int = 32 * 1024
    download_mib: int = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPod:
    """The pod that exports, in place of the worker. It decides nothing about the export's result."""

    conn_id: str
    namespace: str
    image: str
    image_pull_secret: str | None = None
    cpu: float = 1  # cores that the scheduler reserves
    memory_mib: int = 4096  # that it reserves; the limit is in ExportLimits
    node_selector: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one run deploys."""

    model: str
    run_id: str
    source: Source
    exporter: str  # sha256:… of the exporter's code and lock
    base_image: str  # the reference that the model file or this Airflow names
    base_digest: str  # sha256:…, when the run was resolved
    repository: str  # registry/path without tag
    engine_conn_id: str
    registry_conn_id: str | None
    target: Target
    deployment: str
    overlay: str | None
    address: str | None  # a fixed URL instead of the Service's address
    golden: tuple[GoldenRequest, ...]
    gate_passes: int
    gate_timeout_s: int
    rollout_timeout_s: int
    address_timeout_s: int
    manifests_hash: str  # sha256:… of the manifests rendered without digest, version and ids
    store: str  # URI of the artifact store
    force: bool
    keep_first: bool  # keep a failed first release for inspection
    retention: Retention = Retention()
    export: ExportOptions = ExportOptions()
    cluster: ClusterSpec | None = None  # the GKE cluster to create if there is none
    # For a pod that fits no node, from the last sign that nodes are being added.
    unschedulable_grace_s: int = DEFAULT_UNSCHEDULABLE_GRACE_S
    gate: Gate = Gate()
    grpc_address: str | None = None  # host:port, with a fixed URL
    strategy: Literal["preview", "rolling"] = "rolling"  # preview: it first runs next to the live release
    store_uid: str | None = None  # the store's own id; None from an earlier Slipway
    rendered_hash: str | None = None  # sha256:… of the rendered manifests in the store; None from an earlier Slipway
    installation: str | None = None  # the name of the run's Airflow; an earlier Slipway gave it only to GKE targets
    limits: ExportLimits = ExportLimits()
    export_pod: ExportPod | None = None  # None: the worker exports
    cpu_features: tuple[str, ...] = ()  # that the base image needs, as Node Feature Discovery names them
    without_sandbox: bool = False  # archives and old formats are also exported by a worker that cannot shut them in
    runtime: RuntimeName = "tensorflow"  # a record of an earlier Slipway has neither this nor `precision`
    precision: Precision = "float32"  # of the exported weights
    calibration: Calibration = "none"  # of int8
    builder: Builder = "engine"  # where the image is made; it decides nothing about what is served

    @property
    def fingerprint(self) -> str:
        """sha256:… of everything that decides what is served, known before anything is built."""
        inputs = [self.source.revision, self.exporter, asdict(self.export), self.base_digest, self.manifests_hash]
        return names.digest_of([*inputs, *self.runtime_inputs])

    @property
    def runtime_inputs(self) -> list[dict[str, str]]:
        """What the runtime adds to what is hashed: nothing for TensorFlow, whose releases are older than the choice."""
        if self.runtime == "tensorflow":
            return []
        inputs: dict[str, str] = {"runtime": self.runtime, "precision": self.precision}
        if self.precision == "int8" and (
            quality := self.gate.quality
        ):  # measured on the set, perhaps calibrated with it
            inputs |= {"calibration": self.calibration, "set": quality.digest}
        return [inputs]

    @property
    def served_by(self) -> Runtime:
        """The runtime."""
        return RUNTIMES[self.runtime]

    @property
    def base_reference(self) -> str:
        """The base image by digest."""
        return f"{names.repository_of(self.base_image)}@{self.base_digest}"

    @property
    def store_id(self) -> str:
        """A short id of the store; tells installations apart that share an engine or a registry."""
        return self.store_uid or names.former_store_id(self.store)

    @property
    def build_container(self) -> str:
        """The container that the image is committed from; one per model, so that a leftover is found by name."""
        return names.build_container_name(self.model, self.store_id)

    @property
    def smoke_container(self) -> str:
        """The container of the smoke test."""
        return names.smoke_container_name(self.model, self.store_id)

    @property
    def service(self) -> str:
        """The Service, which has the Deployment's name."""
        return self.deployment

    @property
    def preview(self) -> Release:
        """The same release as it first runs next to the live one, under its own name."""
        return self.beside(names.PREVIEW_SUFFIX)

    def beside(self, suffix: str) -> Release:
        """The same release next to the live one, under a name with this suffix."""
        return replace(self, deployment=f"{self.deployment}{suffix}")

    @property
    def preview_is_first_test(self) -> bool:
        """Whether nothing has run the image before its preview, whose gate then asks all that the smoke test would."""
        return self.builder == "registry"

    @property
    def forwards_grpc(self) -> bool:
        """Whether the preview's pods are asked over gRPC, which takes a port-forward."""
        return self.gate.forwards_grpc or (self.preview_is_first_test and self.strategy == "preview")

    @property
    def proxy_path(self) -> str:
        """The API server's path that forwards to the Service's REST port; it needs no address and is not public."""
        return names.proxy_path(self.target.namespace, self.service)

    def release_id(self, image_digest: str) -> str:
        """The release's id, from its fingerprint and the image's digest."""
        return names.short(names.digest_of([self.fingerprint, image_digest]))

    def tag(self, version: int, image_id: str) -> str:
        """The image's tag, for people and for the registry's own rules; Kubernetes pulls by digest."""
        return names.image_tag(version, image_id)

    def reference(self, digest: str) -> str:
        """The pushed image by digest."""
        return f"{self.repository}@{digest}"

    def version_folder(self, version: int) -> str:
        """The folder in the image; the server reports its number as the version."""
        return names.version_folder(self.model, version)

    def version_path(self, version: int) -> str:
        """The REST path that only a server of this version answers."""
        return names.version_path(self.model, version)

    def object_labels(self, version: int | str, release_id: str) -> dict[str, str]:
        """The labels of the rendered objects and pods that identify the release."""
        return {LABEL_VERSION: str(version), LABEL_RELEASE: release_id}

    @property
    def selector_labels(self) -> dict[str, str]:
        """The label that selectors have besides the base's `app: tfs-server`."""
        return {LABEL_MODEL: self.model}

    @property
    def temporary(self) -> bool:
        """Whether the run creates its own cluster and deletes it again."""
        return self.cluster is not None and self.cluster.temporary

    @property
    def marks_garbage(self) -> bool:
        """Whether the graph labels a bad image as such; the graph of a SavedModel archive is not ours."""
        return self.source.kind != "savedmodel" and self.export.on_bad_image == "mark"

    @property
    def claim(self) -> str:
        """The label value of a cluster that this run creates; the run deletes only a cluster with its own claim.

        Scheduled runs have the same id in every Airflow, and Airflows may share a store: the installation tells them apart.
        """
        return names.short(names.digest_of([self.installation, self.store, self.model, self.run_id]))

    @property
    def cluster_labels(self) -> dict[str, str]:
        """Labels that name the cluster's maker; their absence is not drift."""
        return {CLUSTER_LABEL_STORE: self.store_id, CLUSTER_LABEL_MODEL: self.model, CLUSTER_LABEL_RUN: self.claim}
