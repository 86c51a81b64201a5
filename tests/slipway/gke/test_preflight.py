"""Preflight against the stand's emulator of Google, in this process, with the provider's credentials."""

import json
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.tasks.cluster import PreflightOperator
from slipway.errors import GoogleUnreachable
from slipway.facts import ObjectRef
from slipway.gke.preflight import artifact_repository, inspect_gke_target
from slipway.kubernetes import client
from slipway.model.target_settings import GkeSettings
from slipway.records.record import write_record
from slipway.release import LoadBounds
from slipway.steps.rendering import render_release
from slipway.target import GkeCluster, Target

PATH = "projects/slipway-stand/locations/us-central1-a/clusters/tfs-cluster"


@pytest.fixture
def asked(release):
    """A release whose model file says `target: gke`."""
    cluster = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="default", gke=cluster)
    return render_release(replace(release, target=target, cluster=GkeSettings().spec))


def outcomes(findings):
    """The findings that are not ok."""
    return [(one.outcome, one.said) for one in findings if one.outcome != "ok"]


def test_nothing_is_missing_if_everything_is_permitted(google, asked):
    """Preflight asks everything, creates nothing, and reports what the cluster will cost."""
    findings = inspect_gke_target(asked)
    assert outcomes(findings) == []
    assert "quota CPUS of region us-central1: 16 for 2 n1-standard-8: 72 of 72 are free" in [
        one.said for one in findings
    ]
    assert "will be created: about $0.90 per hour" in findings[-1].said
    assert google.clusters == {}
    assert set(google.calls) == {
        "GetCluster", "cloudresourcemanager.projects.get", "cloudresourcemanager.projects.testIamPermissions",
        "serviceusage.services.batchGet", "compute.projects.get", "compute.regions.get", "compute.machineTypes.get",
    }  # fmt: skip


def test_everything_missing_is_in_one_report(google, asked, context_of, caplog):
    """An API, a permission and two quotas are missing: one log line each, one error line for all, no cluster."""
    google.project.disabled = ["artifactregistry.googleapis.com"]
    google.project.missing = ["container.clusters.create", "iam.serviceAccounts.actAs"]
    google.compute.limits = {**google.compute.limits, "CPUS": 8.0, "IN_USE_ADDRESSES": 1.0}
    google.artifacts.repositories = []
    asked = replace(asked, repository="us-central1-docker.pkg.dev/slipway-stand/models/digits-vit")
    context = context_of("preflight", resolve=asked)
    with pytest.raises(AirflowFailException) as failure:
        PreflightOperator(task_id="preflight").execute(context)
    line = str(failure.value)
    assert "\n" not in line
    assert line.startswith("PreflightFailed: cluster tfs-cluster in slipway-stand, us-central1-a: API artifactregistry")
    for words in (
        "API artifactregistry.googleapis.com is not enabled in slipway-stand",
        "no permission container.clusters.create on project slipway-stand",
        "quota CPUS of region us-central1: 16 for 2 n1-standard-8: 8 of 8 are free",
        "quota IN_USE_ADDRESSES of region us-central1: 2 for 2 n1-standard-8: 1 of 1 are free",
    ):
        assert words in line
        assert f"preflight: {words}" in caplog.text
    member = "--member=serviceAccount:slipway@slipway-stand.iam.gserviceaccount.com --role=roles/container.admin"
    assert member in caplog.text
    assert google.calls["CreateCluster"] == 0


def test_missing_if_the_image_cannot_be_pushed(google, asked):
    """Google gives the same answer for a repository without rights and for one that does not exist."""
    there = replace(asked, repository="us-central1-docker.pkg.dev/slipway-stand/models/digits-vit")
    assert outcomes(inspect_gke_target(there)) == []
    [missing] = outcomes(inspect_gke_target(replace(there, repository=there.repository.replace("models", "others"))))
    assert missing[1].endswith("on repository others in slipway-stand, us-central1 (or there is none)")


DENIED = [
    "cloudresourcemanager.projects.get", "cloudresourcemanager.projects.testIamPermissions", "serviceusage.services.batchGet",
    "compute.regions.get", "compute.machineTypes.get", "compute.projects.get",
]  # fmt: skip


def test_a_check_that_is_not_permitted_is_a_warning(google, asked):
    """An account that can do everything a run does need not be allowed to read projects, services or quotas."""
    google.faults.deny = DENIED
    found = outcomes(inspect_gke_target(asked))
    assert {outcome for outcome, _ in found} == {"warned"}
    assert all("could not be asked: HTTP 403: " in words for _, words in found)
    assert len(found) >= 4


def test_googles_message_if_the_project_does_not_exist(google, asked):
    """Google does not report that a project does not exist; the finding quotes what it reports."""
    elsewhere = replace(asked.target.gke, project="gone")
    found = outcomes(inspect_gke_target(replace(asked, target=replace(asked.target, gke=elsewhere))))
    assert found[0] == (
        "warned",
        "project gone: could not be asked: HTTP 403: Permission 'resourcemanager.projects.get' denied on resource '//cloudresourcemanager.googleapis.com/projects/gone' (or it may not exist)",
    )


def test_missing_if_clusters_may_not_be_read(google, asked):
    """A run cannot work without reading clusters; the other checks run all the same."""
    google.faults.deny = ["GetCluster"]
    google.compute.limits = {**google.compute.limits, "CPUS": 8.0}
    found = outcomes(inspect_gke_target(asked))
    assert [outcome for outcome, _ in found] == ["missing", "missing"]
    assert found[0][1].startswith("cluster tfs-cluster in slipway-stand, us-central1-a: ")


def test_missing_if_the_zone_lacks_the_machine_type(google, asked):
    """The finding names the machine type and the command that lists the available ones."""
    pools = (replace(asked.cluster.node_pools[0], machine_type="n1-standard-9000"),)
    [found] = outcomes(inspect_gke_target(replace(asked, cluster=replace(asked.cluster, node_pools=pools))))
    assert found == ("missing", "machine type n1-standard-9000: there is none in us-central1-a")


def test_missing_if_the_region_does_not_exist(google, asked):
    """A misspelt location is found before anything is created."""
    elsewhere = replace(asked.target.gke, location="us-central9-a")
    [found] = outcomes(inspect_gke_target(replace(asked, target=replace(asked.target, gke=elsewhere))))
    assert found == ("missing", "region us-central9: there is none")


def test_rights_and_no_quota_are_asked_if_the_cluster_exists(google, asked):
    """A running cluster already counts towards the quota. It is asked for rights; this one does not respond."""
    from google.cloud.container_v1.types import Cluster

    google.compute.limits = {}
    google.put(PATH, Cluster.from_json(json.dumps({"status": "RUNNING"})))
    [(outcome, words)] = outcomes(inspect_gke_target(asked))
    assert outcome == "warned"
    assert words.startswith("rights in namespace default: could not be asked: ")
    assert "compute.regions.get" not in google.calls


def test_creating_the_namespace_needs_a_permission(google, asked):
    """A new cluster has only `default`; apply creates any other namespace."""
    shop = replace(asked, target=replace(asked.target, namespace="shop"))
    assert outcomes(inspect_gke_target(shop)) == []
    google.project.missing = ["container.namespaces.create"]
    assert outcomes(inspect_gke_target(asked)) == []
    [(outcome, words)] = outcomes(inspect_gke_target(shop))
    assert outcome == "missing"
    assert words.startswith("no permission container.namespaces.create on project")


@pytest.fixture
def in_shop(google, asked, api_server, monkeypatch):
    """The same release in the namespace `shop` of a running cluster, whose API server is the test's."""
    from google.cloud.container_v1.types import Cluster

    google.put(PATH, Cluster.from_json(json.dumps({"status": "RUNNING"})))
    monkeypatch.setattr(client, "_gke_client", lambda *_: client._hook_client("kubernetes_default"))
    return replace(asked, target=replace(asked.target, namespace="shop"))


def test_creating_the_namespace_of_a_running_cluster_needs_a_right(in_shop, api_server):
    """The first run in a namespace creates it. A run without that right would fail only after the build."""
    assert outcomes(inspect_gke_target(in_shop)) == []
    api_server.denied.add("create namespaces")
    [missing] = [one for one in inspect_gke_target(in_shop) if one.outcome != "ok"]
    assert (missing.outcome, missing.said) == ("missing", "no right in namespace shop to create namespaces")
    assert missing.then.startswith("kubectl create namespace shop; kubectl -n shop auth can-i --list ")


def test_no_right_to_create_a_namespace_is_needed_if_it_exists(in_shop, api_server):
    """An account may be limited to a namespace that somebody else has created. One that may not look needs the right to."""
    api_server.denied.add("create namespaces")
    api_server.objects["/api/v1/namespaces/shop"] = {"kind": "Namespace", "metadata": {"name": "shop"}}
    assert outcomes(inspect_gke_target(in_shop)) == []
    api_server.forbidden.add("/api/v1/namespaces/shop")
    api_server.denied.add("get namespaces")
    assert outcomes(inspect_gke_target(in_shop)) == [("missing", "no right in namespace shop to get namespaces")]


INGRESS = ObjectRef(api_version="networking.k8s.io/v1", kind="Ingress", name="tfs-server", namespace="default")


def test_what_only_the_last_release_had_needs_permissions(google, asked, store, record_of):
    """The overlay has dropped its Ingress: the run deletes the one of the last release, and creates none."""
    google.project.missing = [f"container.ingresses.{verb}" for verb in ("get", "create", "update", "delete")]
    assert outcomes(inspect_gke_target(asked)) == []
    write_record(store, record_of("elsewhere", objects=[INGRESS]))
    assert outcomes(inspect_gke_target(asked)) == []
    write_record(store, record_of("last", objects=[INGRESS], target=asked.target))
    [(outcome, words)] = outcomes(inspect_gke_target(asked))
    assert outcome == "missing"
    assert words.startswith("no permission container.ingresses.get, container.ingresses.delete on project")


def test_what_only_the_last_release_had_needs_rights(google, asked, store, record_of, monkeypatch):
    """A running cluster is asked for its rights on those objects too."""
    from google.cloud.container_v1.types import Cluster

    google.put(PATH, Cluster.from_json(json.dumps({"status": "RUNNING"})))
    write_record(store, record_of("last", objects=[INGRESS], target=asked.target))
    seen = []
    monkeypatch.setattr("slipway.gke.preflight.inspect_rights", lambda *arguments: seen.append(arguments[2:]) or [])
    inspect_gke_target(asked)
    assert seen == [((INGRESS,),)]


def test_a_load_over_grpc_needs_the_permission_of_a_port_forward(google, asked):
    """Without a cluster the project is asked; without a share of gRPC the permission is not needed."""
    google.project.missing = ["container.pods.portForward"]
    assert outcomes(inspect_gke_target(asked)) == []
    over_grpc = replace(asked, gate=replace(asked.gate, load=LoadBounds(rate_per_s=1, grpc_share=0.5)))
    [(outcome, words)] = outcomes(inspect_gke_target(over_grpc))
    assert (outcome, words.partition(" on ")[0]) == ("missing", "no permission container.pods.portForward")


def test_quota_is_not_checked_if_autopilot(google, asked):
    """The nodes of an Autopilot cluster depend on its pods."""
    google.compute.limits = {}
    autopilot = replace(asked, cluster=GkeSettings(autopilot=True).spec)
    assert outcomes(inspect_gke_target(autopilot)) == []


def test_retryable_if_google_has_an_outage(google, asked, context_of, monkeypatch):
    """An outage that outlasts the client's own retries is not a finding: the task can be retried."""

    def unavailable(*_):
        raise GoogleUnreachable("503")

    monkeypatch.setattr("slipway.gke.lookup.find_cluster", unavailable)
    with pytest.raises(GoogleUnreachable):
        PreflightOperator(task_id="preflight").execute(context_of("preflight", resolve=asked))


REPOSITORIES = {
    "europe-docker.pkg.dev/shop/models/vit": ("shop", "europe", "models"),
    "europe-west4-docker.pkg.dev/shop/models/team/vit": ("shop", "europe-west4", "models"),
    "eu.gcr.io/shop/vit": ("shop", "europe", "eu.gcr.io"),
    "gcr.io/shop/vit": ("shop", "us", "gcr.io"),
    "registry.example:5000/shop/models/vit": None,
}


@pytest.mark.parametrize(("image", "place"), REPOSITORIES.items())
def test_artifact_repository_of_an_image(image, place):
    """The host name has the location; Artifact Registry also hosts the old gcr.io names."""
    assert artifact_repository(image) == place
