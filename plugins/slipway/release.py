"""The plan of one refresh: what is served, from where, to where, and every name that does not depend on content.

`resolve` makes a Release once; every task below reads it. All identifiers are minted here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from slipway.names import (
    LABEL_MODEL,
    LABEL_RELEASE,
    LABEL_VERSION,
    MODELS_FOLDER,
    REST_PORT,
    asset_uri,
    digest_of,
    preview_name,
    repository_of,
    short,
    store_id,
)
from slipway.target import CLUSTER_LABEL_MODEL, CLUSTER_LABEL_RUN, CLUSTER_LABEL_STORE, ClusterSpec, Target

DEFAULT_UNSCHEDULABLE_GRACE_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source whose revision can no longer move."""

    kind: Literal["folder", "objects", "hub", "savedmodel"]
    location: str  # folder relative to include/served, URI of a folder of objects, Hub repository, or URL
    revision: str  # sha256:… of the folder's content, 40-hex commit, or sha256:… of the archive
    token_conn_id: str | None = None  # the connection whose password is a Hub token; the token itself is never here

    @property
    def url(self) -> str:
        """What OCI's `org.opencontainers.image.source` says; no credentials."""
        if self.kind == "hub":
            return f"https://huggingface.co/{self.location}"
        parts = urlsplit(self.location)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def kept_key(self, model: str) -> str:
        """Where the store keeps a copy of this revision; upstream it may vanish."""
        suffix = ".tar.gz" if self.kind == "savedmodel" else ".tar"
        return f"sources/{model}/{self.revision.removeprefix('sha256:')}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """A golden image as the model file promises it; bytes are fetched by the exporter's task."""

    name: str
    image: str  # relative to include/served, or a URL
    sha256: str | None
    label: str | tuple[str, ...]  # several: any of them will do
    min_confidence: float  # 0..1

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of which one has to come."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityBounds:
    """A labelled set, pinned by its content, and how many of its images have to be told right."""

    uri: str  # the set in the artifact store, as it was when the run was resolved
    digest: str  # sha256:… of images and labels
    min_top1: float | None  # 0..1
    max_drop: float | None  # 0..1, against the live release


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the gate asks besides the golden questions, and how it judges; the defaults are those of the model file."""

    failures: int = 0  # wrong answers that it bears
    errors: int | None = (
        None  # rounds without all answers that it bears once one has passed; None: until its time is up
    )
    latency_ms: int | None = None
    garbage: bool = True
    quality: QualityBounds | None = None
    on_inconclusive: Literal["ask", "fail"] = "ask"
    ask_timeout_s: int = 1800

    @property
    def promises_only(self) -> Gate:
        """The same for a release that comes back: it was judged when it was new, and is needed now."""
        return replace(self, latency_ms=None, quality=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a model's past is kept."""

    releases: int = 10  # that were proven live, the live one among them; each can come back
    records: int = 50  # of runs, whatever became of them
    registry: bool = True  # whether images go from the registry too


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What the served graph takes and gives; of a SavedModel archive, which brings its graph, nothing of this is true."""

    top_k: int = 5
    max_file_bytes: int = 16 * 1024 * 1024
    max_side: int = 8192  # pixels
    on_bad_image: Literal["refuse", "mark"] = "refuse"
    warmup_batches: tuple[int, ...] = (1, 4)  # images in the requests that the server warms up with


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a run is going to make live."""

    model: str
    run_id: str
    source: Source
    exporter: str  # sha256:… of the exporter's code and lock
    base_image: str  # the reference that the model file or the stand names
    base_digest: str  # sha256:… that it had when it was resolved
    repository: str  # registry/path without tag
    engine_conn_id: str
    registry_conn_id: str | None
    target: Target
    deployment: str
    overlay: str | None
    address: str | None  # a fixed URL in place of the Service's address
    golden: tuple[GoldenRequest, ...]
    gate_passes: int
    gate_timeout_s: int
    rollout_timeout_s: int
    address_timeout_s: int
    manifests_hash: str  # sha256:… of the manifests rendered without digest, version and ids
    store: str  # URI of the artifact store
    force: bool
    keep_first: bool  # a first release that fails is left for inspection
    retention: Retention = Retention()
    export: ExportOptions = ExportOptions()
    cluster: ClusterSpec | None = None  # the shape of a GKE cluster that is made where there is none
    unschedulable_grace_s: int = (
        DEFAULT_UNSCHEDULABLE_GRACE_S  # of a pod that fits no node, from the last sign that nodes are being added
    )
    gate: Gate = Gate()
    grpc_address: str | None = None  # host:port beside a fixed URL
    strategy: Literal["preview", "rolling"] = "rolling"  # whether it first runs beside the live one
    installation: str | None = None  # the name of the Airflow whose run makes the cluster; None where it makes none

    @property
    def fingerprint(self) -> str:
        """sha256:… of everything that decides what will be served, before any of it is made."""
        return digest_of(
            [self.source.revision, self.exporter, asdict(self.export), self.base_digest, self.manifests_hash]
        )

    @property
    def base_reference(self) -> str:
        """The base image by digest."""
        return f"{repository_of(self.base_image)}@{self.base_digest}"

    @property
    def store_id(self) -> str:
        """The store in a few characters: names what is ours where several installations share an engine or a registry."""
        return store_id(self.store)

    @property
    def build_container(self) -> str:
        """The container that the image is committed from; one per model, so that a leftover is found by name."""
        return f"slipway-build-{self.model}-{self.store_id}"

    @property
    def smoke_container(self) -> str:
        """The container that the smoke test asks."""
        return f"slipway-smoke-{self.model}-{self.store_id}"

    @property
    def service(self) -> str:
        """The Service bears the Deployment's name."""
        return self.deployment

    @property
    def preview(self) -> Release:
        """The same release as it first runs beside the live one, under a name of its own."""
        return replace(self, deployment=preview_name(self.deployment))

    @property
    def proxy_path(self) -> str:
        """Where the API server passes requests on to the Service's REST port; needs no address, and no client but ours has it."""
        return f"/api/v1/namespaces/{self.target.namespace}/services/{self.service}:{REST_PORT}/proxy"

    def release_id(self, image_digest: str) -> str:
        """The release's id: a fingerprint and an image digest."""
        return short(digest_of([self.fingerprint, image_digest]))

    def tag(self, version: int, content_hash: str) -> str:
        """A tag for people; deployment is by digest."""
        return f"v{version}-{short(digest_of([content_hash, self.base_digest]))}"

    def reference(self, digest: str) -> str:
        """The pushed image by digest."""
        return f"{self.repository}@{digest}"

    def version_folder(self, version: int) -> str:
        """The folder in the image whose number TF Serving reports."""
        return f"{MODELS_FOLDER}/{self.model}/{version}"

    def version_path(self, version: int) -> str:
        """The REST path that only the server of this version knows."""
        return f"/v1/models/{self.model}/versions/{version}"

    def object_labels(self, version: int | str, release_id: str) -> dict[str, str]:
        """What the rendered objects and pods say of themselves."""
        return {LABEL_VERSION: str(version), LABEL_RELEASE: release_id}

    @property
    def selector_labels(self) -> dict[str, str]:
        """The label that selectors carry besides the seed's `app: tfs-server`."""
        return {LABEL_MODEL: self.model}

    @property
    def temporary(self) -> bool:
        """Whether the run makes its own cluster and deletes it again."""
        return self.cluster is not None and self.cluster.temporary

    @property
    def marks_garbage(self) -> bool:
        """Whether the graph answers something that is no image with a label that says so; an archive's graph is its own."""
        return self.source.kind != "savedmodel" and self.export.on_bad_image == "mark"

    @property
    def claim(self) -> str:
        """What a cluster is labelled with by the run that makes it, and by which a run that makes its own alone deletes it.

        Runs of one schedule have one id in each Airflow, which may share the store too: the installation tells them apart.
        """
        return short(digest_of([self.installation, self.store, self.model, self.run_id]))

    @property
    def cluster_labels(self) -> dict[str, str]:
        """What a cluster says of who made it; nobody's drift where one bears them not."""
        return {CLUSTER_LABEL_STORE: self.store_id, CLUSTER_LABEL_MODEL: self.model, CLUSTER_LABEL_RUN: self.claim}

    @property
    def asset_uri(self) -> str:
        """The Asset that `announce` updates."""
        return asset_uri(self.model)
