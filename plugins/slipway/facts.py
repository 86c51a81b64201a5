"""Facts go from task to task as small dicts: XCom's allow-list refuses classes of ours."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from slipway.errors import InputRefused
from slipway.release import Release
from slipway.target import GkeCluster, Target
from slipway.verdict import Verdict

T = TypeVar("T")
JsonObject = dict[str, Any]  # a Kubernetes object, a body of Google's APIs, a fact as XCom carries it


def to_dict(fact: Any) -> dict[str, Any]:
    """A frozen dataclass as plain dicts, lists and scalars."""
    return dataclasses.asdict(fact)


def from_dict(kind: type[T], data: Any) -> T:
    """The fact again from its dict.

    Raises InputRefused where the dict is not one of this kind, such as an XCom that another version of Slipway left.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputRefused(
            f"{kind.__name__} handed over by an earlier task: {where}: {first['msg']}. Next: clear the run from its first task"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The model card and its key figures."""

    uri: str  # of its page; card.json and the pictures are beside it
    digest: str  # sha256:… of the card without what is measured anew each time
    parity: str  # how near the exported graph is to 🤗, in one line
    parameters: int | None  # none for a SavedModel archive
    size: int  # of the SavedModel, in bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What the exporter left, by URI in the store."""

    version: int  # numbers the content: same content, same number
    content_hash: str  # sha256:… of the SavedModel folder
    model_uri: str  # a tar of the SavedModel with fixed times, ready to be an image layer
    golden_uri: str  # JSON: the golden cases with their requests
    descriptors_uri: str  # FileDescriptorSet for TF Serving's gRPC services
    report_uri: str  # the exporter's own report
    card: Card | None = None  # none in what an earlier Slipway exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image on an engine."""

    image_id: str  # sha256:… of its configuration; differs between two commits of equal content
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
    """An image as the registry holds it."""

    reference: str  # repository@digest
    digest: str  # sha256:… of the manifest
    release_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """An object in a cluster."""

    api_version: str
    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        """As kubectl names it."""
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply left in the cluster."""

    release_id: str
    reference: str  # the image, by digest
    version: int
    manifests_uri: str
    manifests_hash: str  # sha256:… of the rendered manifests
    objects: tuple[ObjectRef, ...]
    pruned: tuple[ObjectRef, ...]
    uid: str  # of the Deployment, as this apply's answer gave it
    generation: int  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """What runs beside the live release."""

    release_id: str  # as the preview's pods bear it
    reference: str  # the image, by digest
    version: int
    objects: tuple[ObjectRef, ...]
    uid: str  # of the Deployment, as this apply's answer gave it
    generation: int  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a release told a set."""

    digest: str  # sha256:… of the set
    images: int
    wrong: tuple[str, ...]  # the names of those told wrong

    @property
    def right(self) -> int:
        """How many were told right."""
        return self.images - len(self.wrong)

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{self.right} of {self.images} images told right ({self.right / self.images:.4f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """How the live release tells the set, and how that is known; or why it is not."""

    measured: Measured | None
    source: str
    unknown: bool = False  # it serves, and could not be measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A recorded release that comes back."""

    release: Release
    plan: Plan


Action = Literal["nothing", "manifests", "everything", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is going to do, and why."""

    action: Action
    reasons: tuple[str, ...]
    export: Export | None = None  # the live release's, where there is nothing to export
    pushed: Pushed | None = None  # the live release's image under the new release's id, likewise
    manifests_uri: str | None = None  # of a recorded release that comes back as it was
    release: Release | None = None  # that one, where it is not the one that the run was triggered for
    orphans: tuple[str, ...] = ()  # what is live and no model file asks for, one a line
    baseline: Baseline | None = None  # how the live release tells the gate's labelled set, where it is compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """A Service of type LoadBalancer, by which what Google made for it is known when it is gone."""

    service: str  # namespace/name
    uid: str
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Teardown:
    """What is going to be taken away: a model's recorded objects, then its cluster."""

    model: str
    run_id: str
    store: str
    target: Target
    deployment: str
    objects: tuple[ObjectRef, ...]  # in the order of their apply
    balancers: tuple[Balancer, ...]  # of all Services in the cluster
    claim: str | None  # of the run that made a temporary cluster, which alone may delete it
    address_timeout_s: int  # how long a load balancer may take to be gone
    cluster_timeout_s: int  # how long the cluster may take

    @property
    def cluster(self) -> GkeCluster:
        """The cluster. Raises InputRefused where the target is none of Google's."""
        if self.target.gke is None:
            raise InputRefused(f"model {self.model}: its target is no GKE cluster. Next: remove its objects by hand")
        return self.target.gke

    @property
    def temporary(self) -> bool:
        """Whether the run has made the cluster for itself."""
        return self.claim is not None

    @property
    def services(self) -> tuple[str, ...]:
        """The recorded Services by name."""
        return tuple(ref.name for ref in self.objects if ref.kind == "Service")
