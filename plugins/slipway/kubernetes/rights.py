"""The rights that a run needs in its namespace, and which of them the API server grants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.errors import ApplyRefused, SlipwayError
from slipway.facts import JsonObject
from slipway.kubernetes.api import api_errors
from slipway.kubernetes.client import cluster_client
from slipway.kubernetes.manifests import Manifest
from slipway.release import Release
from slipway.target import REQUEST_TIMEOUT_S, Target
from slipway.verdict import Finding

PREVIEWED = ("deployments", "services")  # of the preview, whatever the overlay brings besides
APPLY_VERBS = {"get": "get", "create": "create", "patch": "update"}  # Kubernetes' word, and IAM's for the same
LEASE_VERBS = ("get", "create", "update", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A verb on a kind of object in the namespace; one that is not needed serves what a failed run says, or a clean-up."""

    group: str
    resource: str  # deployments, pods/log
    verb: str
    needed: bool = True

    def __str__(self) -> str:
        """As kubectl takes it."""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


def plan_rights(kinds: Iterable[tuple[str, str]], *, preview: bool = False) -> tuple[Right, ...]:
    """The rights in the namespace that apply, the waits and the rollback use, for these (group, kind) of objects.

    A preview is asked through the API server, and is to be removed.
    """
    applied = [(group, plural(kind.lower())) for group, kind in kinds]
    return (
        *(Right(group=group, resource=resource, verb=verb) for group, resource in applied for verb in APPLY_VERBS),
        Right(group="", resource="pods", verb="list"),
        *([Right(group="", resource="services/proxy", verb="create")] if preview else ()),
        *(Right(group="coordination.k8s.io", resource="leases", verb=verb) for verb in LEASE_VERBS),
        *(
            Right(group=group, resource=resource, verb="delete", needed=preview and resource in PREVIEWED)
            for group, resource in applied
        ),
        *([Right(group="", resource="services/proxy", verb="get", needed=False)] if preview else ()),
        Right(group="", resource="events", verb="list", needed=False),
        Right(group="", resource="pods/log", verb="get", needed=False),
    )


def kinds_of(objects: Iterable[JsonObject]) -> tuple[tuple[str, str], ...]:
    """Each (group, kind) among manifests, once, in their order."""
    return tuple(dict.fromkeys((_group(str(one["apiVersion"])), str(one["kind"])) for one in objects))


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def plural(kind: str) -> str:
    """A kind's resource, as Kubernetes' own clients guess it without asking."""
    if kind.endswith("s"):
        return f"{kind}es"
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def judge_rights(namespace: str, allowed: Mapping[Right, bool], *, grant: str) -> list[Finding]:
    """Which rights the connection does not have in the namespace."""
    lacking = [right for right, may in allowed.items() if not may]
    needed = [str(right) for right in lacking if right.needed]
    useful = [str(right) for right in lacking if not right.needed]
    found = []
    if needed:
        found.append(
            Finding(outcome="missing", said=f"no right in namespace {namespace} to {', '.join(needed)}", then=grant)
        )
    if useful:
        said = (
            f"no right in namespace {namespace} to {', '.join(useful)}: pruning, or what a failed run says, may lack it"
        )
        found.append(Finding(outcome="warned", said=said, then=grant))
    return found or [
        Finding(outcome="ok", said=f"rights in namespace {namespace}: all {len(allowed)} that the run uses")
    ]


def inspect_rights(release: Release, objects: Iterable[Manifest]) -> list[Finding]:
    """What the connection may do in the namespace of the release, asked right by right.

    A review of rules in their place is not complete where something else than RBAC decides, as IAM does on GKE.
    Raises ClusterUnreachable, InputRefused where the connection cannot be meant.
    """
    target = release.target
    rights = plan_rights(kinds_of(objects), preview=release.strategy == "preview")
    try:
        allowed = dict(_reviews(target, rights))
    except ApplyRefused as error:
        return [_unasked_rights(target, error)]
    then = f"{target.kubectl('auth can-i --list')} as connection {target.conn_id}; then a Role with them, and a RoleBinding"
    return judge_rights(target.namespace, allowed, grant=then)


def _unasked_rights(target: Target, error: SlipwayError) -> Finding:
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


def _review(namespace: str, right: Right) -> dict[str, Any]:
    resource, _, subresource = right.resource.partition("/")
    asked = {"namespace": namespace, "group": right.group, "resource": resource, "verb": right.verb}
    return {"spec": {"resourceAttributes": {**asked, **({"subresource": subresource} if subresource else {})}}}
