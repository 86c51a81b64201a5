"""The tasks that make a GKE cluster and delete it again, killed like the others; Google is emulated, and counts what it is asked."""

import pytest
from fixtures.stand import read_surroundings
from kills import KILLS, kill_again_and_again, result
from road import Road

MODEL = "faults-cluster"
TARGET = {"project": "slipway-stand", "location": "us-central1-a", "cluster": MODEL, "temporary": True}
OPERATION_S = 4

pytestmark = [pytest.mark.stand, pytest.mark.faults]


@pytest.fixture(scope="module")
def road(google, stand, kubectl, engine, tmp_path_factory):
    """A road to a cluster that is not there yet, at a Google that takes some seconds for each operation."""
    google("PUT", "/faults", {"operation_s": OPERATION_S})
    root = tmp_path_factory.mktemp(MODEL)
    road = Road.make(root, read_surroundings(stand), stand, kubectl, engine, model=MODEL, target__gke=TARGET)
    road.took_s = dict.fromkeys(("resolve", "preflight", "plan", "claim_cluster", "look", "leftovers"), 2.0)
    road.took_s |= dict.fromkeys(("create_cluster", "remove_objects", "delete_cluster"), OPERATION_S + 6.0)
    for task_id in ("resolve", "preflight", "plan"):
        road.facts[task_id] = result(road.task(task_id))
    yield road
    road.end()


def killed(road, tell, task_id, holds):
    """Kill a task again and again, and keep what it left for those after it."""
    road.facts[task_id], good_s = kill_again_and_again(road, task_id, road.facts)
    tell(f"`{task_id.replace('_', ' ')}` killed {KILLS} times", holds, good_s=good_s)


def test_one_cluster_is_made(road, google, tell):
    """However often its maker is killed, Google is asked for a cluster once, and it is this run's own."""
    for task_id in ("preflight", "claim_cluster"):
        killed(road, tell, task_id, "the same verdict")
    killed(road, tell, "create_cluster", "one cluster, asked for once")
    state = google("GET", "/state")
    assert state["calls"]["CreateCluster"] == 1
    assert [path.rpartition("/")[2] for path in state["clusters"]] == [MODEL]


def test_it_is_deleted_once(road, google, tell):
    """However often its remover is killed, Google is asked to delete it once, and nothing of the model is left."""
    _, good_s = kill_again_and_again(road, "look", {"params": {"with_others": True}}, dag="teardown")
    tell(f"`look` of a teardown killed {KILLS} times", "the same list", good_s=good_s)
    killed(road, tell, "remove_objects", "nothing of the model is left in the cluster")
    killed(road, tell, "delete_cluster", "no cluster, its deletion asked for once")
    killed(road, tell, "leftovers", "the same list")
    state = google("GET", "/state")
    assert state["calls"]["DeleteCluster"] == 1
    assert state["clusters"] == {}
    assert road.debris() == []
