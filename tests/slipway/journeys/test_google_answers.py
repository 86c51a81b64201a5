"""Read-only requests give the same answers from the emulator and from a real project (docs/gke.md)."""

import re
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest

from local.google_project import read_google_project
from slipway.gke.leftovers import LISTS
from slipway.gke.lookup import find_cluster, find_operation, list_clusters, list_compute
from slipway.gke.preflight import inspect_cluster_deletion, inspect_gke_target
from slipway.model.target_settings import GkeSettings
from slipway.steps.rendering import render_release
from slipway.target import GkeCluster, Target

CONN = "google_cloud_default"


@pytest.fixture
def account(request, monkeypatch):
    """A cluster that does not exist and its target, in the emulated project or the real one."""
    real = read_google_project()
    if real is None:
        request.getfixturevalue("google")
    else:
        for name, value in real.environment({}).items():
            monkeypatch.setenv(name, value)
    project, location = (real.project, real.location) if real else ("slipway-stand", "us-central1-a")
    cluster = GkeCluster(project=project, location=location, name=f"no-{uuid.uuid4().hex[:8]}")
    return SimpleNamespace(
        cluster=cluster, target=Target(kind="gke", conn_id=CONN, namespace="default", gke=cluster), project=project
    )


def test_none_if_the_cluster_does_not_exist(account):
    """Neither the cluster, nor an operation that creates or deletes it."""
    assert find_cluster(CONN, account.cluster) is None
    assert find_operation(CONN, account.cluster, "CREATE_CLUSTER") is None
    assert find_operation(CONN, account.cluster, "DELETE_CLUSTER") is None


def test_clusters_of_the_project_are_listed(account):
    """Each with name, location and status."""
    assert all(one["name"] and one["location"] and one["status"] for one in list_clusters(CONN, account.project))


@pytest.mark.parametrize("resource", LISTS.values())
def test_resources_that_may_outlive_a_cluster_are_listed_by_scope(account, resource):
    """Regions, zones and `global`, each with a list; most are empty."""
    listed = list_compute(CONN, account.cluster, resource)
    assert listed
    for scope, items in listed.items():
        assert re.fullmatch(r"global|(regions|zones)/[a-z0-9-]+", scope)
        assert all(one["name"] for one in items[resource])


def test_permission_to_delete_can_be_asked(account):
    """Google reports that the account has what a teardown needs."""
    [found] = inspect_cluster_deletion(account.target, account.cluster)
    assert (found.outcome, found.said) == ("ok", f"permissions on project {account.project}: all 3 that the run needs")


def test_every_check_of_preflight_is_permitted(account, release):
    """Project, APIs, permissions and quota can be asked with the rights that docs/gke.md names."""
    asked = replace(release, target=account.target, cluster=GkeSettings(temporary=True).spec)
    for one in inspect_gke_target(render_release(asked)):
        print(one)
        assert "could not be asked" not in one.said
