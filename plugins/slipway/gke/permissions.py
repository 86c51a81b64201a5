"""Judges Google's answers about project, APIs and permissions; `preflight` asks. Pure.

Each finding is ok, missing, or a warning. What could not be asked is a warning, because an account that can do everything
a run does need not be allowed to read quotas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slipway.google_rest import NOT_FOUND, GoogleAnswer
from slipway.kubernetes.rights import APPLY_VERBS, LEASE_VERBS, PRUNE_VERBS, plural_of_kind
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
IAM_APIS = ("iam.googleapis.com", "iamcredentials.googleapis.com")  # for nodes' accounts, and pods that act as accounts

NAMESPACE_VERBS = ("get", "create")  # the run creates it if it is missing, and deletes none
SERVICE_PROXY, POD_PROXY, PORT_FORWARD = (
    "container.services.proxy",
    "container.pods.proxy",
    "container.pods.portForward",
)


def judge_google_project(project: str, answer: GoogleAnswer) -> Finding:
    """Whether the project exists. Google's answer is often the same for one that the account may not see."""
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
    return permissions_not_asked(f"project {project}", answer)


def judge_google_apis(project: str, needed: Sequence[str], answer: GoogleAnswer) -> list[Finding]:
    """Which APIs that the run calls are enabled, and which are not."""
    if answer.refusal is not None:
        return [permissions_not_asked(f"enabled APIs of {project}", answer)]
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


def judge_permissions(where: str, needed: Mapping[str, str], answer: GoogleAnswer, *, grant: str) -> list[Finding]:
    """Which permissions the account lacks on a resource, one finding per role.

    `needed` maps each permission to its role; `grant` is the command that grants a role to the account.
    """
    if answer.refusal is not None:
        return [permissions_not_asked(f"permissions on {where}", answer)]
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
            outcome="warned", said=f"{said}: then it has to be granted on the nodes' service account", then=grant
        )
    return Finding(outcome="missing", said=said, then=grant)


def plan_permissions(
    kinds: Sequence[tuple[str, str]],
    *,
    dropped: Iterable[tuple[str, str]] = (),
    create: bool,
    ready: bool,
    delete: bool = False,
    preview: bool = False,
    metrics: bool = False,
    forwards: bool = False,
) -> dict[str, str]:
    """The permissions on the project that a run needs, each with its role. `dropped` are kinds of objects that it only prunes.

    Those on objects are among them only if no cluster is `ready`: a cluster is asked for its own, which is more exact.
    """
    needed = [*FIND, *(CREATE if create else ()), *(DELETE if delete else ())]
    if not ready:
        needed += [
            f"container.{iam_resource(group, kind)}.{verb}"
            for group, kind in kinds
            for verb in (NAMESPACE_VERBS if kind == "Namespace" else APPLY_VERBS.values())
        ]
        needed += [
            f"container.{iam_resource(group, kind)}.{verb}"
            for group, kind in dropped
            if (group, kind) not in kinds
            for verb in PRUNE_VERBS
        ]
        needed += [
            "container.pods.list",
            "container.replicaSets.list",
            *(f"container.leases.{verb}" for verb in LEASE_VERBS),
        ]
        needed += [*([SERVICE_PROXY] if preview else ()), *([POD_PROXY] if metrics else ())]
        needed += [PORT_FORWARD] if forwards else []
    return {**dict.fromkeys(needed, CONTAINER_ADMIN), **({ACT_AS: ACCOUNT_USER} if create else {})}


def iam_resource(group: str, kind: str) -> str:
    """IAM's name for objects of a kind, such as `horizontalPodAutoscalers`; kinds unknown to GKE share one name."""
    known = group in {"", "apps", "autoscaling", "batch", "policy"} or group.endswith(".k8s.io")
    return plural_of_kind(kind[0].lower() + kind[1:]) if known else "thirdPartyObjects"


def permissions_not_asked(what: str, answer: GoogleAnswer) -> Finding:
    """A warning that a check was refused, with Google's message."""
    return Finding(outcome="warned", said=f"{what}: could not be asked: {answer.refusal}")
