"""A preflight against the stand's emulator of Google, in this process, with the provider's own credentials."""

import json
import time
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.tasks.cluster import PreflightOperator
from slipway.errors import GoogleUnreachable
from slipway.gke.preflight import artifact_repository, inspect_target
from slipway.model.target_settings import GkeSettings
from slipway.target import GkeCluster, Target

PATH = "projects/slipway-stand/locations/us-central1-a/clusters/tfs-cluster"


@pytest.fixture
def asked(release):
    """A release whose model file says `target: gke`."""
    cluster = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="default", gke=cluster)
    return replace(release, target=target, cluster=GkeSettings().spec)


def outcomes(findings):
    """The findings that are not as they have to be."""
    return [(one.outcome, one.said) for one in findings if one.outcome != "ok"]


def test_nothing_is_missing_in_a_project_that_may_do_everything(google, asked):
    """All is asked, nothing is made, and what the cluster will cost is said before it is."""
    findings = inspect_target(asked)
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


def test_all_findings_come_in_one_report(google, asked, context_of, caplog):
    """An API, a permission and two quotas: a line each in the log, one line for all, and no cluster."""
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


def test_repository_of_images_is_asked_about(google, asked):
    """Whether the account may push there; Google answers for a repository that is not there as for one without rights."""
    there = replace(asked, repository="us-central1-docker.pkg.dev/slipway-stand/models/digits-vit")
    assert outcomes(inspect_target(there)) == []
    [missing] = outcomes(inspect_target(replace(there, repository=there.repository.replace("models", "others"))))
    assert missing[1].endswith("on repository others in slipway-stand, us-central1 (or there is none)")


DENIED = [
    "cloudresourcemanager.projects.get", "cloudresourcemanager.projects.testIamPermissions", "serviceusage.services.batchGet",
    "compute.regions.get", "compute.machineTypes.get", "compute.projects.get",
]  # fmt: skip


def test_what_may_not_be_asked_is_a_warning(google, asked):
    """An account that may do all that a run does need not be allowed to read projects, services or quotas."""
    google.faults.deny = DENIED
    found = outcomes(inspect_target(asked))
    assert {outcome for outcome, _ in found} == {"warned"}
    assert all("could not be asked: HTTP 403: " in words for _, words in found)
    assert len(found) >= 4


def test_project_that_is_not_there(google, asked):
    """Google tells nobody that a project is not there: what it says instead is in the report."""
    elsewhere = replace(asked.target.gke, project="gone")
    found = outcomes(inspect_target(replace(asked, target=replace(asked.target, gke=elsewhere))))
    assert found[0] == (
        "warned",
        "project gone: could not be asked: HTTP 403: Permission 'resourcemanager.projects.get' denied on resource '//cloudresourcemanager.googleapis.com/projects/gone' (or it may not exist)",
    )


def test_cluster_that_may_not_be_seen_is_missing(google, asked):
    """Without a look at clusters the run cannot go on; the rest of the report is there all the same."""
    google.faults.deny = ["GetCluster"]
    google.compute.limits = {**google.compute.limits, "CPUS": 8.0}
    found = outcomes(inspect_target(asked))
    assert [outcome for outcome, _ in found] == ["missing", "missing"]
    assert found[0][1].startswith("cluster tfs-cluster in slipway-stand, us-central1-a: ")


def test_a_machine_type_that_is_not_there_is_missing(google, asked):
    """A type that the zone does not have is named with the command that lists those there are."""
    pools = (replace(asked.cluster.node_pools[0], machine_type="n1-standard-9000"),)
    [found] = outcomes(inspect_target(replace(asked, cluster=replace(asked.cluster, node_pools=pools))))
    assert found == ("missing", "machine type n1-standard-9000: there is none in us-central1-a")


def test_a_region_that_is_not_there_is_missing(google, asked):
    """A misspelt location is found before Google is told to make anything."""
    elsewhere = replace(asked.target.gke, location="us-central9-a")
    [found] = outcomes(inspect_target(replace(asked, target=replace(asked.target, gke=elsewhere))))
    assert found == ("missing", "region us-central9: there is none")


def test_quota_is_not_asked_for_a_cluster_that_is_there(google, asked):
    """What runs already is paid for and counted; the cluster itself is asked about rights, and this one does not answer."""
    from google.cloud.container_v1.types import Cluster

    google.compute.limits = {}
    google.put(PATH, Cluster.from_json(json.dumps({"status": "RUNNING"})))
    [(outcome, words)] = outcomes(inspect_target(asked))
    assert outcome == "warned"
    assert words.startswith("rights in namespace default: could not be asked: ")
    assert "compute.regions.get" not in google.calls


def test_namespace_of_a_new_cluster_needs_its_own_right(google, asked):
    """A new cluster has `default` alone; apply makes another one, if the account may."""
    shop = replace(asked, target=replace(asked.target, namespace="shop"))
    assert outcomes(inspect_target(shop)) == []
    google.project.missing = ["container.namespaces.create"]
    assert outcomes(inspect_target(asked)) == []
    [(outcome, words)] = outcomes(inspect_target(shop))
    assert outcome == "missing"
    assert words.startswith("no permission container.namespaces.create on project")


def test_autopilot_has_no_nodes_to_count(google, asked):
    """Its pods take of the region's quota, which nobody knows before."""
    google.compute.limits = {}
    autopilot = replace(asked, cluster=GkeSettings(autopilot=True).spec)
    assert outcomes(inspect_target(autopilot)) == []


def test_google_in_trouble_is_tried_again(google, asked, context_of, monkeypatch):
    """A bad minute that outlasts the client's own tries is no finding: the task is worth another try."""

    def out_of_order(*_):
        raise GoogleUnreachable("503")

    monkeypatch.setattr("slipway.gke.lookup.find_cluster", out_of_order)
    with pytest.raises(GoogleUnreachable):
        PreflightOperator(task_id="preflight").execute(context_of("preflight", resolve=asked))


def test_api_that_hangs_holds_no_task(google, asked, monkeypatch):
    """Each question has a limit of its own; what did not answer in time is a warning."""
    from slipway import google_rest

    monkeypatch.setattr(google_rest, "REQUEST_S", 0.2)
    with google.lock:
        began = time.monotonic()
        with google_rest.google_rest("google_cloud_default") as rest:
            answer = rest.get("compute", "/compute/v1/projects/slipway-stand")
        assert time.monotonic() - began < 5
    assert answer.status == 0
    assert "Timeout" in answer.refusal


REPOSITORIES = {
    "europe-docker.pkg.dev/shop/models/vit": ("shop", "europe", "models"),
    "europe-west4-docker.pkg.dev/shop/models/team/vit": ("shop", "europe-west4", "models"),
    "eu.gcr.io/shop/vit": ("shop", "europe", "eu.gcr.io"),
    "gcr.io/shop/vit": ("shop", "us", "gcr.io"),
    "registry.example:5000/shop/models/vit": None,
}


@pytest.mark.parametrize(("image", "place"), REPOSITORIES.items())
def test_repositories_of_googles_are_known_by_their_names(image, place):
    """Artifact Registry's hosts name the location, and it now hosts the old ones' names."""
    assert artifact_repository(image) == place
