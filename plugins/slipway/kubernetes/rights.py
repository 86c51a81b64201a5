"""The rights that a run needs in its namespace, and which of them the connection has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from slipway.errors import ApplyRefused, SlipwayError
from slipway.facts import JsonObject, ObjectRef
from slipway.kubernetes.api import api_errors
from slipway.kubernetes.apply import lacks_namespace
from slipway.kubernetes.client import cluster_client
from slipway.kubernetes.identity import SYSTEM_NAMESPACE, read_cluster_uid
from slipway.release import ExportPod, Release
from slipway.target import EVERY_CLUSTERS_NAMESPACE, REQUEST_TIMEOUT_S, Target
from slipway.verdict import Finding

APPLY_VERBS = {"get": "get", "create": "create", "patch": "update", "delete": "delete"}  # Kubernetes' verb, and IAM's
PRUNE_VERBS = ("get", "delete")
LEASE_VERBS = ("get", "create", "update", "delete")
FORWARD_VERBS = ("get", "create")  # a websocket begins with GET; newer API servers also ask for create


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A verb on a kind of object in the namespace; `needed` unless only a diagnosis uses it."""

    group: str
    resource: str  # deployments, pods/log
    verb: str
    needed: bool = True

    def __str__(self) -> str:
        """As `kubectl auth can-i` takes it."""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


EXPORT_RIGHTS = (  # of an export in a pod (dag/export_pod.py)
    *(Right(group="", resource="pods", verb=verb) for verb in ("create", "get", "list", "patch", "delete")),
    Right(group="", resource="pods/log", verb="get"),
    *(Right(group="", resource="pods/exec", verb=verb) for verb in ("get", "create")),
    Right(group="", resource="events", verb="list", needed=False),
)


def plan_rights(
    kinds: Iterable[tuple[str, str]],
    *,
    dropped: Iterable[tuple[str, str]] = (),
    preview: bool = False,
    metrics: bool = False,
    forwards: bool = False,
    finds_namespace: bool = False,
    creates_namespace: bool = False,
) -> tuple[Right, ...]:
    """The rights that a run uses in the namespace for objects of these (group, kind).

    Each object may be deleted: a preview always is, an object that an overlay no longer has is pruned, and a first release that
    fails is removed. `dropped` are kinds of objects that the run only prunes. A preview also needs requests through the API
    server's Service proxy, a bake that reads the pods' `metrics` through its pod proxy. A load over gRPC `forwards` ports of pods.
    """
    applied = _resources(kinds)
    pruned = [one for one in _resources(dropped) if one not in applied]
    return (
        *(Right(group=group, resource=resource, verb=verb) for group, resource in applied for verb in APPLY_VERBS),
        *(Right(group=group, resource=resource, verb=verb) for group, resource in pruned for verb in PRUNE_VERBS),
        Right(group="", resource="pods", verb="list"),
        Right(group="apps", resource="replicasets", verb="list"),
        *([Right(group="", resource="services/proxy", verb="create")] if preview else ()),
        *([Right(group="", resource="pods/proxy", verb="get")] if metrics else ()),
        *(Right(group="", resource="pods/portforward", verb=verb) for verb in FORWARD_VERBS if forwards),
        *([Right(group="", resource="namespaces", verb="get")] if finds_namespace else ()),
        *([Right(group="", resource="namespaces", verb="create")] if creates_namespace else ()),
        *(Right(group="coordination.k8s.io", resource="leases", verb=verb) for verb in LEASE_VERBS),
        Right(group="", resource="events", verb="list", needed=False),
        Right(group="", resource="pods/log", verb="get", needed=False),
    )


def _resources(kinds: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(group, plural_of_kind(kind.lower())) for group, kind in kinds]


def kinds_of_objects(objects: Iterable[JsonObject]) -> tuple[tuple[str, str], ...]:
    """Each (group, kind) among the manifests once, in their order."""
    return tuple(dict.fromkeys((_group(str(one["apiVersion"])), str(one["kind"])) for one in objects))


def kinds_of_refs(refs: Iterable[ObjectRef]) -> tuple[tuple[str, str], ...]:
    """Each (group, kind) among the references once, in their order."""
    return tuple(dict.fromkeys((_group(ref.api_version), ref.kind) for ref in refs))


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def plural_of_kind(kind: str) -> str:
    """A kind's resource, as Kubernetes' own clients derive it without a request."""
    if kind.endswith("s"):
        return f"{kind}es"
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def judge_rights(namespace: str, allowed: Mapping[Right, bool], *, grant: str) -> list[Finding]:
    """Findings on the rights that the connection lacks in the namespace."""
    lacking = [right for right, may in allowed.items() if not may]
    needed = [str(right) for right in lacking if right.needed]
    useful = [str(right) for right in lacking if not right.needed]
    found = []
    if needed:
        found.append(
            Finding(outcome="missing", said=f"no right in namespace {namespace} to {', '.join(needed)}", then=grant)
        )
    if useful:
        said = f"no right in namespace {namespace} to {', '.join(useful)}: a failed run's diagnosis may be incomplete"
        found.append(Finding(outcome="warned", said=said, then=grant))
    return found or [
        Finding(outcome="ok", said=f"rights in namespace {namespace}: all {len(allowed)} that the run uses")
    ]


def inspect_rights(release: Release, objects: Iterable[JsonObject], before: Iterable[ObjectRef] = ()) -> list[Finding]:
    """Findings on the connection's rights in the release's namespace: one access review for each right.

    `before` are the objects of the last release: those that the new one drops are pruned.

    A rules review would be one request, but is incomplete if not only RBAC decides, as with IAM on GKE.
    Raises ClusterUnreachable, and InputRefused if the connection is invalid.
    """
    target = release.target
    creates = _creates_namespace(target)
    rights = plan_rights(
        kinds_of_objects(objects),
        dropped=kinds_of_refs(before),
        preview=release.strategy == "preview",
        metrics=release.gate.reads_pods,
        forwards=release.forwards_grpc,
        finds_namespace=target.gke is not None and target.namespace != EVERY_CLUSTERS_NAMESPACE,
        creates_namespace=creates,
    )
    try:
        allowed = dict(_reviews(target, rights))
    except ApplyRefused as error:
        return [unasked_rights(target, error), *_inspect_cluster_uid(target)]
    exports = inspect_export_rights(release.export_pod) if release.export_pod else []
    grant = f"{target.kubectl('auth can-i --list')} as connection {target.conn_id}; then create a Role with them, and a RoleBinding"
    if creates:
        grant = f"kubectl create namespace {quote(target.namespace)}; {grant}"
    return [*judge_rights(target.namespace, allowed, grant=grant), *exports, *_inspect_cluster_uid(target)]


def inspect_export_rights(pod: ExportPod) -> list[Finding]:
    """Findings on the rights that an export in a pod uses. Raises as `inspect_rights` does."""
    place = Target(conn_id=pod.conn_id, namespace=pod.namespace)
    try:
        allowed = dict(_reviews(place, EXPORT_RIGHTS))
    except ApplyRefused as error:
        return [unasked_rights(place, error)]
    grant = f"{place.kubectl('auth can-i --list')} as connection {pod.conn_id}; then create a Role with them, and a RoleBinding"
    return judge_rights(pod.namespace, allowed, grant=grant)


def _creates_namespace(target: Target) -> bool:
    """Whether the run will create the namespace; False if the connection may not look, because it then lacks that right."""
    try:
        return lacks_namespace(target)
    except ApplyRefused:
        return False


def _inspect_cluster_uid(target: Target) -> list[Finding]:
    """A warning if the connection may not read the cluster's uid. A GKE cluster needs none: its name identifies it."""
    if target.gke or read_cluster_uid(target):
        return []
    said = (
        f"no right to get the namespace {SYSTEM_NAMESPACE}, whose uid identifies the cluster: "
        "if the connection is renamed, its releases are unknown"
    )
    role = f"--verb=get --resource=namespaces --resource-name={SYSTEM_NAMESPACE}"
    return [
        Finding(outcome="warned", said=said, then=f"kubectl create clusterrole slipway-cluster {role}, and bind it")
    ]


def unasked_rights(target: Target, error: SlipwayError) -> Finding:
    """The finding if the API server did not say which rights the connection has."""
    return Finding(outcome="warned", said=f"rights in namespace {target.namespace}: could not be asked: {error}")


def _reviews(target: Target, rights: Sequence[Right]) -> Iterator[tuple[Right, bool]]:
    from kubernetes.client import AuthorizationV1Api

    with cluster_client(target) as client:
        reviews = AuthorizationV1Api(client)
        for right in rights:
            with api_errors(target, "selfsubjectaccessreview"):
                answer = reviews.create_self_subject_access_review(
                    _review(target.namespace, right), _request_timeout=REQUEST_TIMEOUT_S
                )
            yield right, bool(answer.status.allowed)


def _review(namespace: str, right: Right) -> JsonObject:
    resource, _, subresource = right.resource.partition("/")
    attributes = {"namespace": namespace, "group": right.group, "resource": resource, "verb": right.verb}
    return {"spec": {"resourceAttributes": {**attributes, **({"subresource": subresource} if subresource else {})}}}
