"""Asks Google's REST APIs and the cluster what `permissions` and `quota` judge. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from slipway.errors import ClusterRefused, SlipwayError
from slipway.facts import JsonObject
from slipway.gke.cluster import judge_cluster
from slipway.gke.permissions import (
    APIS,
    CONTAINER_ADMIN,
    DELETE,
    FIND,
    IAM_APIS,
    PUSH,
    REGISTRY_API,
    REGISTRY_WRITER,
    judge_google_apis,
    judge_google_project,
    judge_permissions,
    plan_permissions,
)
from slipway.gke.prices import cluster_shape_of_spec, read_prices, standing_cost
from slipway.gke.quota import judge_machine_type, judge_quota, plan_quota_everywhere, plan_quota_needs
from slipway.google_rest import NOT_FOUND, GoogleAnswer, GoogleRest, google_rest
from slipway.kubernetes.rendered import read_live
from slipway.kubernetes.rights import inspect_rights, kinds_of_objects, kinds_of_refs, unasked_rights
from slipway.records.history import read_history
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import EVERY_CLUSTERS_NAMESPACE, ClusterSpec, GkeCluster, Target
from slipway.verdict import Finding

OF_GCR = {
    "gcr.io": "us",
    "us.gcr.io": "us",
    "eu.gcr.io": "europe",
    "asia.gcr.io": "asia",
}  # locations in Artifact Registry, which hosts them now
IN_PKG_DEV = "-docker.pkg.dev"


def inspect_gke_target(release: Release) -> tuple[Finding, ...]:
    """Whether a run on a GKE target has what it needs, as far as Google can be asked: one finding per check.

    Raises GoogleUnreachable, InputRefused if the connection is invalid, StoreError.
    """
    cluster, spec = release.target.gke, release.cluster
    assert cluster is not None and spec is not None  # noqa: S101, PT018 - only a GKE target has this task
    objects = read_live(release)  # without an image; only their kinds count
    kinds = kinds_of_objects(objects)
    before = read_history(Store(release.store), release.model).at(release.target, release.deployment).objects
    found, refused = _find(release.target, cluster)
    ready = found is not None and judge_cluster(cluster, found, None).outcome == "pass"
    create = found is None or found["status"] == "STOPPING"
    if create and release.target.namespace != EVERY_CLUSTERS_NAMESPACE:
        kinds = (*kinds, ("", "Namespace"))
    with google_rest(release.target.conn_id) as google:
        findings = [
            *refused,
            *_inspect_project(google, release, cluster, kinds, kinds_of_refs(before), create=create, ready=ready),
            *_inspect_repository(google, release),
            *(_inspect_quota(google, cluster, spec) if create else ()),
        ]
    if create and not refused:
        findings += _announce_creation(release.target, cluster, spec)
    if ready:
        try:
            findings += inspect_rights(release, objects, before)
        except SlipwayError as error:  # the tasks downstream report it too, and try again
            findings.append(unasked_rights(release.target, error))
    return tuple(findings)


def _announce_creation(target: Target, cluster: GkeCluster, spec: ClusterSpec) -> Iterator[Finding]:
    """What the run is going to create, and its cost."""
    cost = standing_cost(read_prices(), cluster_shape_of_spec(spec, cluster.location))
    yield Finding(outcome="ok", said=f"{cluster} will be created: {cost}")
    if target.namespace != EVERY_CLUSTERS_NAMESPACE:
        yield Finding(outcome="ok", said=f"namespace {target.namespace} will be created")


def _find(target: Target, cluster: GkeCluster) -> tuple[JsonObject | None, list[Finding]]:
    """The cluster, None if there is none or Google refuses; the refusal is a finding."""
    from slipway.gke.lookup import find_cluster

    try:
        return find_cluster(target.conn_id, cluster), []
    except ClusterRefused as error:
        said, _, then = str(error).partition(". Next: ")
        return None, [Finding(outcome="missing", said=said, then=then)]


def _inspect_project(
    google: GoogleRest,
    release: Release,
    cluster: GkeCluster,
    kinds: Sequence[tuple[str, str]],
    dropped: Sequence[tuple[str, str]],
    *,
    create: bool,
    ready: bool,
) -> Iterator[Finding]:
    project = cluster.project
    yield judge_google_project(project, google.get("cloudresourcemanager", f"/v3/projects/{project}"))
    place = artifact_repository(release.repository)
    apis = [*APIS, *(IAM_APIS if create else ()), *([REGISTRY_API] if place and place[0] == project else [])]
    names = [f"projects/{project}/services/{api}" for api in apis]
    enabled = google.get("serviceusage", f"/v1/projects/{project}/services:batchGet", names=names)
    yield from judge_google_apis(project, apis, enabled)
    previews = release.strategy == "preview"
    needed = plan_permissions(
        kinds,
        dropped=dropped,
        create=create,
        ready=ready,
        delete=release.temporary,
        preview=previews,
        metrics=release.gate.reads_pods,
        forwards=release.forwards_grpc,
    )
    yield from _inspect_permissions(google, project, needed)


def inspect_cluster_deletion(target: Target, cluster: GkeCluster) -> list[Finding]:
    """Whether the target's connection may delete a cluster, before anything in it is. Raises InputRefused, ClusterRefused."""
    with google_rest(target.conn_id) as google:
        return _inspect_permissions(google, cluster.project, dict.fromkeys((*FIND, *DELETE), CONTAINER_ADMIN))


def _inspect_permissions(google: GoogleRest, project: str, needed: Mapping[str, str]) -> list[Finding]:
    asked = {"permissions": list(needed)}
    answer = google.post("cloudresourcemanager", f"/v1/projects/{project}:testIamPermissions", asked)
    grant = f"gcloud projects add-iam-policy-binding {project} {_member(google)}"
    return judge_permissions(f"project {project}", needed, answer, grant=grant)


def _inspect_repository(google: GoogleRest, release: Release) -> Iterator[Finding]:
    """Whether the target's connection may push, if it logs in to an Artifact Registry repository."""
    place = artifact_repository(release.repository)
    if place is None or release.registry_conn_id not in {None, release.target.conn_id}:
        return
    project, location, name = place
    path = f"/v1/projects/{project}/locations/{location}/repositories/{name}:testIamPermissions"
    answer = google.post("artifactregistry", path, {"permissions": list(PUSH)})
    grant = f"gcloud artifacts repositories add-iam-policy-binding {name} --location={location} --project={project} {_member(google)}"
    where = f"repository {name} in {project}, {location} (or there is none)"
    yield from judge_permissions(where, dict.fromkeys(PUSH, REGISTRY_WRITER), answer, grant=grant)


def artifact_repository(repository: str) -> tuple[str, str, str] | None:
    """Project, location and name of the Artifact Registry repository of an image, None if it goes elsewhere."""
    host, *path = repository.split("/")
    if host.endswith(IN_PKG_DEV) and len(path) > 2:  # noqa: PLR2004 - project, repository, image
        return path[0], host.removesuffix(IN_PKG_DEV), path[1]
    if host in OF_GCR and len(path) > 1:
        return path[0], OF_GCR[host], host
    return None


def _inspect_quota(google: GoogleRest, cluster: GkeCluster, spec: ClusterSpec) -> Iterator[Finding]:
    """Whether the cluster fits into the quotas; for Autopilot that depends on its pods."""
    if not spec.node_pools:
        yield Finding(
            outcome="ok", said="quota: not checked, because the nodes of an Autopilot cluster depend on its pods"
        )
        return
    base, regional = f"/compute/v1/projects/{cluster.project}", cluster.regional
    region = google.get("compute", f"{base}/regions/{cluster.region}")
    if region.status == NOT_FOUND:
        said, then = f"region {cluster.region}: there is none", "gcloud compute regions list; fix target.gke.location"
        yield Finding(outcome="missing", said=said, then=then)
        return
    zone = _first_zone(region) if regional else cluster.location
    machines = {
        pool.machine_type: google.get("compute", f"{base}/zones/{zone}/machineTypes/{pool.machine_type}")
        for pool in spec.node_pools
    }
    if region.refusal is None:  # one refusal is enough
        for name, answer in machines.items():
            yield from judge_machine_type(name, zone, answer)
    cpus = {name: int(answer.body["guestCpus"]) for name, answer in machines.items() if answer.refusal is None}
    needs = plan_quota_needs(spec, cpus, regional=regional)
    yield from judge_quota(f"region {cluster.region}", cluster.project, needs, region)
    if everywhere := plan_quota_everywhere(needs):
        yield from judge_quota("all regions", cluster.project, everywhere, google.get("compute", base))


def _first_zone(region: GoogleAnswer) -> str:
    zones = region.body.get("zones") or [""]
    return str(zones[0]).rpartition("/")[2]


def _member(google: GoogleRest) -> str:
    return f"--member=serviceAccount:{google.account or 'ACCOUNT'}"
