"""Idle clusters, in the stand's emulator of Google."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from slipway.errors import ClusterUnreachable
from slipway.gke import idle_clusters
from slipway.gke.idle_clusters import find_idle_clusters, judge_idle_cluster, named_clusters
from slipway.records.record import write_record
from slipway.records.store import Store
from slipway.target import GkeCluster, Target

HERE = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AGE = timedelta(hours=30)
OLD, YOUNG = NOW - AGE, NOW - timedelta(hours=0.5)
FILE = "source: {folder: x}\ngate: {golden: [{name: three, image: three.png, label: '3'}]}\n"


@pytest.fixture
def asked(release):
    """A release on a GKE target."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=HERE)
    return replace(release, target=target)


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Sets the model files: `served(name=text)`; `read` replaces reading objects from a cluster."""

    def have(read=idle_clusters.read_object, **texts):
        monkeypatch.setattr(idle_clusters, "read_object", read)
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(FILE + text)
        monkeypatch.setattr(idle_clusters, "served_files", lambda: sorted(tmp_path.glob("*.yaml")))
        return sorted(tmp_path.glob("*.yaml"))

    have()
    return have


def put(google, release, name, **fields):
    """Put a cluster into the emulator, by default created 30 hours ago by a Slipway with this release's store."""
    from google.cloud.container_v1.types import Cluster

    shape = {
        "status": "RUNNING",
        "create_time": (datetime.now(UTC) - AGE).isoformat(),
        "resource_labels": release.cluster_labels,
        "node_pools": [{"name": "p", "initial_node_count": 2, "config": {"machine_type": "n1-standard-8"}}],
    }
    cluster = Cluster.from_json(json.dumps({**shape, **fields}))
    google.put(f"projects/slipway-stand/locations/us-central1-a/clusters/{name}", cluster)


def test_reported_if_no_model_file_names_it(google, asked, served):
    """With its cost and the command that deletes it; nothing is deleted."""
    put(google, asked, "old-cluster")
    [line] = find_idle_clusters(asked, [])
    assert line.startswith(
        "cluster old-cluster in slipway-stand, us-central1-a is idle: created for model digits-vit, and no model file names it; "
        "about $0.90 per hour"
    )
    assert line.endswith(
        ". Next: gcloud container clusters delete old-cluster --location us-central1-a --project slipway-stand"
    )
    assert google.calls == {"ListClusters": 1}


@pytest.mark.parametrize(("installation", "lines"), [("here", 1), ("there", 0)])
def test_not_reported_if_another_airflow_uses_it(google, asked, served, record_of, installation, lines):  # noqa: PLR0917
    """An Airflow that shares the store has model files of its own."""
    put(google, asked, "their-cluster")
    there = replace(asked.target, gke=replace(HERE, name="their-cluster"))
    write_record(Store(asked.store), record_of("r0", target=there, installation=installation))
    assert len(find_idle_clusters(replace(asked, installation="here"), [])) == lines


def test_not_reported_if_not_ours_in_use_or_being_deleted(google, asked, served):
    """Clusters without this store's label are not ours; the run is about to use its own cluster."""
    put(google, asked, "by-hand", resource_labels={})
    put(google, asked, "another", resource_labels={**asked.cluster_labels, "slipway-store": "0123456789ab"})
    put(google, asked, "tfs-cluster")
    put(google, asked, "stopping", status="STOPPING")
    assert find_idle_clusters(asked, []) == ()


def test_reported_if_no_release_runs_there(google, asked, served):
    """A model file names it, but no record of the model has a Deployment there."""
    served(other="target: {gke: {cluster: others-cluster}}\n")
    put(google, asked, "others-cluster")
    [line] = find_idle_clusters(asked, [])
    assert "and no release of other runs in it; " in line


@pytest.mark.parametrize("sees", ["its Deployment", "no answer"])
def test_not_reported_if_its_model_may_run_there(google, asked, served, record_of, sees):
    """The Deployment of the other model's record is there, or the cluster does not respond."""
    put(google, asked, "others-cluster")
    there = replace(asked.target, gke=replace(HERE, name="others-cluster"))
    write_record(Store(asked.store), record_of("r0", target=there, model="other"))

    def read(target, kind, name):
        assert (target, kind, name) == (there, "Deployment", "tfs-server")
        if sees != "its Deployment":
            raise ClusterUnreachable("no answer")
        return {"metadata": {"labels": {"slipway/model": "other"}}}

    served(read, other="target: {gke: {cluster: others-cluster}}\n")
    assert find_idle_clusters(asked, []) == ()


def test_searched_in_projects_of_models_without_a_file(google, release, asked, served):
    """A release with another kind of target finds the cluster of a deleted model file, by the target in its records."""
    put(google, asked, "old-cluster")
    assert find_idle_clusters(release, []) == ()
    assert len(find_idle_clusters(release, [asked.target])) == 1


def test_reported_if_clusters_may_not_be_listed(google, asked, served):
    """A missing right is reported, and the run does not fail."""
    google.faults.deny = ["ListClusters"]
    [line] = find_idle_clusters(asked, [])
    assert line.startswith("idle clusters of project slipway-stand could not be listed: ")


@pytest.mark.parametrize(
    ("created", "users", "used", "why"),
    [
        (OLD, ["a"], True, None),
        (OLD, ["a", "b"], False, "no release of a, b runs in it"),
        (YOUNG, ["a"], False, None),
        (YOUNG, [], False, "no model file names it"),
    ],
)
def test_idle_if_unused_and_not_young(created, users, used, why):
    """A cluster younger than an hour is not idle, unless no model file names it."""
    found = {"status": "RUNNING", "create_time": created.isoformat()}
    assert judge_idle_cluster(found, users, used=used, now=NOW) == why


def test_an_invalid_model_file_may_name_the_cluster_created_for_it(served):
    """An invalid model file makes no cluster idle."""
    files = served(broken="target: {gke: {zone: x}}\n", plain="", named="target: {gke: {cluster: c}}\n")
    broken, named = named_clusters(files)
    assert broken.names(HERE, "broken")
    assert not broken.names(HERE, "other")
    assert named.names(replace(HERE, name="c"), "whoever")
    assert not named.names(HERE, "whoever")
