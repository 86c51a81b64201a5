"""What Google answers to what is only read: of the emulator, or of a real project (docs/gke.md), so that the two are held together."""

import re
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest

from local.google_project import read_google_project
from slipway.gke.leftovers import LISTS
from slipway.gke.lookup import find_cluster, find_operation, list_clusters, list_compute
from slipway.gke.preflight import inspect_deletion, inspect_target
from slipway.model.target_settings import GkeSettings
from slipway.target import GkeCluster, Target

CONN = "google_cloud_default"


@pytest.fixture
def account(request, monkeypatch):
    """A cluster that is not there, and the target that it would be, in the emulated project or the real one."""
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


def test_cluster_that_is_not_there_is_none(account):
    """Neither the cluster, nor an operation that made it or deletes it."""
    assert find_cluster(CONN, account.cluster) is None
    assert find_operation(CONN, account.cluster, "CREATE_CLUSTER") is None
    assert find_operation(CONN, account.cluster, "DELETE_CLUSTER") is None


def test_clusters_of_the_project_are_listed(account):
    """Each with what tells it from others."""
    assert all(one["name"] and one["location"] and one["status"] for one in list_clusters(CONN, account.project))


@pytest.mark.parametrize("resource", LISTS.values())
def test_what_may_outlive_a_cluster_is_listed_by_its_place(account, resource):
    """Regions, zones and `global`, each with a list, most of them empty."""
    listed = list_compute(CONN, account.cluster, resource)
    assert listed
    for scope, items in listed.items():
        assert re.fullmatch(r"global|(regions|zones)/[a-z0-9-]+", scope)
        assert all(one["name"] for one in items[resource])


def test_rights_to_delete_can_be_asked(account):
    """The account has what a teardown needs, and Google says so."""
    [found] = inspect_deletion(account.target, account.cluster)
    assert (found.outcome, found.said) == ("ok", f"permissions on project {account.project}: all 3 that the run needs")


def test_preflight_gets_an_answer_to_each_question(account, release):
    """Project, APIs, permissions and quota can be asked with the rights that the page names."""
    asked = replace(release, target=account.target, cluster=GkeSettings(temporary=True).spec)
    for one in inspect_target(asked):
        print(one)
        assert "could not be asked" not in one.said
