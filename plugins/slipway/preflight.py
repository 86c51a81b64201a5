"""Preflight: whether a run can do what it is going to do, found out before anything is built, made or billed. Pure.

A judge gives findings: what is as it has to be, what is missing, and what could not be asked, which is a warning: an account
that may do all that a run does need not be allowed to read quotas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slipway.facts import JsonObject
from slipway.google_rest import NOT_FOUND, Answer
from slipway.verdict import Finding

CONTAINER_ADMIN, ACCOUNT_USER, REGISTRY_WRITER = (
    "roles/container.admin", "roles/iam.serviceAccountUser", "roles/artifactregistry.writer",
)  # fmt: skip
FIND = ("container.clusters.get", "container.operations.list")
CREATE = ("container.clusters.create", "container.operations.get")
DELETE = ("container.clusters.delete",)
ACT_AS = "iam.serviceAccounts.actAs"
PUSH = ("artifactregistry.repositories.downloadArtifacts", "artifactregistry.repositories.uploadArtifacts")
APIS = ("container.googleapis.com", "compute.googleapis.com")
REGISTRY_API = "artifactregistry.googleapis.com"
IAM_APIS = ("iam.googleapis.com", "iamcredentials.googleapis.com")  # nodes' accounts, and pods that act as accounts

PREVIEWED = ("deployments", "services")  # of the preview, whatever the overlay brings besides
SERVICE_PROXY = "container.services.proxy"
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


def judge_project(project: str, answer: Answer) -> Finding:
    """Whether the project is there; Google does not tell one that is not there from one that may not be seen."""
    state = answer.body.get("state")
    if answer.refusal is None:
        if state == "ACTIVE":
            return Finding(outcome="ok", said=f"project {project}: ACTIVE")
        return Finding(
            outcome="missing", said=f"project {project}: {state}", then=f"gcloud projects undelete {project}"
        )
    if answer.status == NOT_FOUND:
        return Finding(
            outcome="missing", said=f"project {project}: there is none", then="gcloud projects list; target.gke.project"
        )
    return unasked(f"project {project}", answer)


def judge_apis(project: str, needed: Sequence[str], answer: Answer) -> list[Finding]:
    """Which of the APIs that the run calls are not enabled."""
    if answer.refusal is not None:
        return [unasked(f"enabled APIs of {project}", answer)]
    states = {str(one["name"]).rpartition("/")[2]: one["state"] for one in answer.body.get("services") or ()}
    off = [api for api in needed if states.get(api) != "ENABLED"]
    found = [
        Finding(
            outcome="warned" if api in IAM_APIS else "missing",
            said=f"API {api} is not enabled in {project}",
            then=f"gcloud services enable {api} --project {project}",
        )
        for api in off
    ]
    on = [api.removesuffix(".googleapis.com") for api in needed if api not in off]
    return [*found, *([Finding(outcome="ok", said=f"APIs enabled in {project}: {', '.join(on)}")] if on else [])]


def judge_permissions(where: str, needed: Mapping[str, str], answer: Answer, *, grant: str) -> list[Finding]:
    """Which permissions the account does not have on a resource, by the role that has them.

    `needed` gives each permission its role, `grant` is the command that gives a role to the account.
    """
    if answer.refusal is not None:
        return [unasked(f"permissions on {where}", answer)]
    had = set(answer.body.get("permissions") or ())
    absent: dict[str, list[str]] = {}
    for permission, role in needed.items():
        if permission not in had:
            absent.setdefault(role, []).append(permission)
    if not absent:
        return [Finding(outcome="ok", said=f"permissions on {where}: all {len(needed)} that the run needs")]
    return [_absent(where, role, permissions, f"{grant} --role={role}") for role, permissions in absent.items()]


def _absent(where: str, role: str, permissions: list[str], grant: str) -> Finding:
    said = f"no permission {', '.join(permissions)} on {where}"
    if role == ACCOUNT_USER:
        return Finding(
            outcome="warned", said=f"{said}: it has to be granted on the nodes' service account then", then=grant
        )
    return Finding(outcome="missing", said=said, then=grant)


def plan_permissions(
    kinds: Iterable[tuple[str, str]], *, create: bool, ready: bool, delete: bool = False, preview: bool = False
) -> dict[str, str]:
    """The permissions on the project that a run needs, each with its role.

    Rights on objects are IAM's as long as there is no cluster to ask (`ready`); afterwards the cluster knows them better.
    """
    needed = [*FIND, *(CREATE if create else ()), *(DELETE if delete else ())]
    if not ready:
        needed += [
            f"container.{iam_resource(group, kind)}.{verb}" for group, kind in kinds for verb in APPLY_VERBS.values()
        ]
        needed += ["container.pods.list", *(f"container.leases.{verb}" for verb in LEASE_VERBS)]
        needed += [SERVICE_PROXY] if preview else []
    return {**dict.fromkeys(needed, CONTAINER_ADMIN), **({ACT_AS: ACCOUNT_USER} if create else {})}


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


def iam_resource(group: str, kind: str) -> str:
    """What IAM calls objects of a kind: `horizontalPodAutoscalers`; those that GKE does not know itself have one name."""
    known = group in {"", "apps", "autoscaling", "batch", "policy"} or group.endswith(".k8s.io")
    return plural(kind[0].lower() + kind[1:]) if known else "thirdPartyObjects"


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


def unasked(what: str, answer: Answer) -> Finding:
    """That something could not be asked, in the words of the refusal: a warning."""
    return Finding(outcome="warned", said=f"{what}: could not be asked: {answer.refusal}")
