"""The tasks that make a GKE cluster and delete it are killed like the others; Google is emulated and counts its calls."""

import pytest
from fixtures.stand import read_surroundings
from random_kills import KILLS, kill_repeatedly, result
from refresh_harness import RefreshHarness

MODEL = "faults-cluster"
TARGET = {"project": "slipway-stand", "location": "us-central1-a", "cluster": MODEL, "temporary": True}
OPERATION_S = 4

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside, pytest.mark.google]


@pytest.fixture(scope="module")
def harness(google, stand, kubectl, engine, tmp_path_factory):
    """A harness for a cluster that does not exist yet; Google takes OPERATION_S for each operation."""
    google("PUT", "/faults", {"operation_s": OPERATION_S})
    root = tmp_path_factory.mktemp(MODEL)
    surroundings = read_surroundings(stand)
    harness = RefreshHarness.make(root, surroundings, stand, kubectl, engine, model=MODEL, target__gke=TARGET)
    harness.took_s = dict.fromkeys(("resolve", "preflight", "plan", "claim_cluster", "look", "leftovers"), 2.0)
    harness.took_s |= dict.fromkeys(("create_cluster", "remove_objects", "delete_cluster"), OPERATION_S + 6.0)
    for task_id in ("resolve", "preflight", "plan"):
        harness.facts[task_id] = result(harness.task(task_id))
    yield harness
    harness.end()


def kill(harness, write_row, task_id, holds):
    """Kill a task repeatedly, and keep its result for the tasks that follow."""
    harness.facts[task_id], good_s = kill_repeatedly(harness, task_id, harness.facts)
    write_row(f"`{task_id.replace('_', ' ')}` killed {KILLS} times", holds, good_s=good_s)


def test_one_cluster_is_made(harness, google, write_row):
    """However often the task is killed, it asks Google for a cluster once, and that cluster belongs to this run."""
    for task_id in ("preflight", "claim_cluster"):
        kill(harness, write_row, task_id, "the same verdict")
    kill(harness, write_row, "create_cluster", "one cluster, requested once")
    state = google("GET", "/state")
    assert state["calls"]["CreateCluster"] == 1
    assert [path.rpartition("/")[2] for path in state["clusters"]] == [MODEL]


def test_it_is_deleted_once(harness, google, write_row):
    """However often the tasks are killed, they ask Google to delete the cluster once, and nothing of the model is left."""
    _, good_s = kill_repeatedly(harness, "look", {"params": {"with_others": True}}, dag="teardown")
    write_row(f"`look` of a teardown killed {KILLS} times", "the same list", good_s=good_s)
    kill(harness, write_row, "remove_objects", "nothing of the model is left in the cluster")
    kill(harness, write_row, "delete_cluster", "no cluster, its deletion requested once")
    kill(harness, write_row, "leftovers", "the same list")
    state = google("GET", "/state")
    assert state["calls"]["DeleteCluster"] == 1
    assert state["clusters"] == {}
    assert harness.debris() == []
