"""Facts: what a task leaves for later tasks. XCom's allow-list refuses our classes, so facts travel as dicts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from slipway.errors import InputRefused
from slipway.load_plan import LoadPlan
from slipway.release import Release
from slipway.target import GkeCluster, Target
from slipway.variants import SweepPlan
from slipway.verdict import Verdict

T = TypeVar("T")
JsonObject = dict[str, Any]  # a Kubernetes object, a body of Google's APIs, a fact in XCom


def to_dict(fact: Any) -> dict[str, Any]:
    """A frozen dataclass as plain dicts, lists and scalars."""
    return dataclasses.asdict(fact)


def from_dict(kind: type[T], data: Any) -> T:
    """The fact from its dict.

    Raises InputRefused if the dict is no such fact, such as an XCom of another version of Slipway.
    """
    try:
        fact: T = _adapter(cast("Any", kind)).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputRefused(
            f"{kind.__name__} from an earlier task: {where}: {first['msg']}. Next: clear the run from its first task"
        ) from error
    return fact


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Built once for each kind: it takes 16 ms for a Release, and a trigger reads a Release at each poll, on its event loop."""
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The model card and its key figures."""

    uri: str  # of its page; card.json and the pictures are next to it
    digest: str  # sha256:… of the card without what every export measures again
    parity: str  # how close the exported graph is to 🤗, in one line
    parameters: int | None  # None for a SavedModel archive
    size: int  # of the served model's files, in bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What the exporter left in the artifact store."""

    version: int  # numbers the content: equal content, equal number
    content_hash: str  # sha256:… of the served model's folder
    model_uri: str  # a tar of that folder with fixed times, ready to become an image layer
    golden_uri: str  # JSON: the golden cases with their requests
    descriptors_uri: str  # FileDescriptorSet for TF Serving's gRPC services, which both runtimes have
    report_uri: str  # the exporter's own report
    card: Card | None = None  # None in the exports of an earlier Slipway
    sandbox: str | None = None  # what held the exporter; None in the exports of an earlier Slipway
    int8_uri: str | None = None  # JSON: labels in float32 and in int8, by image; None if the model is not in int8


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image on an engine."""

    image_id: str  # sha256:… of its configuration; differs between commits of equal content
    layer: str  # sha256:… of the model's layer, uncompressed; equal for equal content
    reference: str  # repository:tag
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A smoke test that passed."""

    image: Image
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """An image in the registry."""

    reference: str  # repository@digest
    digest: str  # sha256:… of the manifest
    release_id: str
    version: int
    # Bytes that the registry did not have, without layers of the base; None from an engine, which does not say.
    sent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """An object in a cluster."""

    api_version: str
    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        """The name that kubectl prints."""
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """What runs next to the live release."""

    release_id: str  # that the preview's pods are labelled with
    reference: str  # the image, by digest
    version: int
    objects: tuple[ObjectRef, ...]
    uid: str  # of the Deployment, from the answer to this apply
    generation: int  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply changed in the cluster."""

    release_id: str
    reference: str  # the image, by digest
    version: int
    manifests_uri: str
    manifests_hash: str  # sha256:… of the text there
    objects: tuple[ObjectRef, ...]
    uid: str  # of the Deployment, from the answer to this apply
    generation: int  # likewise


# gate: the live image has to pass a changed gate; cases: the same, after `export` has made its golden cases again
Action = Literal["nothing", "gate", "cases", "manifests", "everything", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do, and why."""

    action: Action
    reasons: tuple[str, ...]
    export: Export | None = None  # the live release's, if there is nothing to export
    pushed: Pushed | None = None  # likewise: the live release's image, under the new release's id
    manifests_uri: str | None = None  # of a recorded release that is applied unchanged
    manifests_hash: str | None = None  # sha256:… of the text there
    release: Release | None = None  # that release, if it is not the one that the run was triggered for
    orphans: tuple[str, ...] = ()  # what is live without a model file, one per line
    unserved: str | None = None  # why a run with nothing to do is red: no proven release serves
    baseline: Baseline | None = None  # the live release on the gate's labelled set, if the gate compares


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A recorded release to roll back to."""

    release: Release
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A release's accuracy on a labelled set."""

    digest: str  # sha256:… of the set
    images: int
    wrong: tuple[str, ...]  # the names of the images classified wrong

    @property
    def correct(self) -> int:
        """The number of images classified correctly."""
        return self.images - len(self.wrong)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.correct} of {self.images} images classified correctly ({self.correct / self.images:.4f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Change:
    """What int8 changes against the same model in float32, on the images of a labelled set that it was not calibrated with."""

    images: int
    changed: tuple[str, ...]  # the names of the images with another label
    lost: tuple[str, ...]  # of those classified correctly in float32 only
    won: tuple[str, ...]  # of those classified correctly in int8 only

    def __str__(self) -> str:
        """For messages."""
        net = len(self.won) - len(self.lost)
        return f"{len(self.changed)} of {self.images} labels changed against float32, {abs(net)} {'more' if net > 0 else 'fewer'} correct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The accuracy on the set of the last release that was proven live, and how it was measured; or why it was not."""

    measured: Accuracy | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a release has answered predictions since its servers started, and how many it failed to answer."""

    release_id: str
    answers: int
    mean_ms: float
    errors: int | None = None  # None in the XCom of an earlier Slipway


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """A Service of type LoadBalancer: identifies what Google made for it after it is deleted."""

    service: str  # namespace/name
    uid: str
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Teardown:
    """What a teardown deletes: a model's recorded objects, then its cluster."""

    model: str
    run_id: str
    store: str
    target: Target
    deployment: str
    objects: tuple[ObjectRef, ...]  # in the order in which they were applied
    balancers: tuple[Balancer, ...]  # for all Services in the cluster
    claim: str | None  # of the run that created a temporary cluster; no other run may delete it
    address_timeout_s: int  # for a load balancer to disappear
    cluster_timeout_s: int  # for the cluster to disappear

    @property
    def cluster(self) -> GkeCluster:
        """The cluster. Raises InputRefused if the target is not a GKE cluster."""
        if self.target.gke is None:
            raise InputRefused(f"model {self.model}: its target is not a GKE cluster. Next: remove its objects by hand")
        return self.target.gke

    @property
    def temporary(self) -> bool:
        """Whether the run created the cluster for itself."""
        return self.claim is not None

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the recorded Services."""
        return tuple(ref.name for ref in self.objects if ref.kind == "Service")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTarget:
    """A live release that is tested under load, or another server that must answer as it does."""

    model: str
    run_id: str
    release_id: str
    version: int  # that must answer
    rest: str | None  # a URL
    grpc: str | None  # host:port
    export: Export
    plan: LoadPlan
    store: str  # URI of the artifact store
    before: str | None = None  # URI of another test's figures, for the same picture
    elsewhere: bool = False  # another server, whose figures are not the release's


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTest:
    """What a load test found."""

    uri: str  # the folder with the figures, the picture and Locust's report
    release_id: str
    version: int
    figures: JsonObject
    said: str | None = None  # what a load test comes to, in one line; a gate reports its verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTarget:
    """A live release whose variants are compared."""

    release: Release
    export: Export
    pushed: Pushed
    manifests_uri: str  # as the live release was applied
    manifests_hash: str | None
    plan: SweepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was measured of a variant once: in each round, or why nothing was."""

    variant: str
    number: int
    why_not: str | None = None  # why it was not measured: it does not fit, or is refused
    uri: str | None = None  # the folder with the figures
    p95_ms: tuple[float, ...] = ()  # at the rate, of the rounds without an error
    reached_per_s: tuple[float, ...] = ()  # at the rate
    most_per_s: tuple[float, ...] = ()  # answered in the closed loop
    per_cpu_s: tuple[
        float, ...
    ] = ()  # answered requests per CPU second in the closed loop, for each measurement of the pods' CPU
    why_no_cpu: str | None = None
    errors: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What a sweep found."""

    uri: str  # the folder with the table, the picture and the overlay
    variant: str | None  # None: no variant holds the objective
    figures: JsonObject
