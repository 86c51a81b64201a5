"""The API server out of reach for 30 s, by a door in front of the real one, at three instants of a refresh."""

import json
from pathlib import Path

import pytest
import yaml
from doors import ByteDoor
from road import eventually

DOWN_S = 30
APPEARS_S = 90

pytestmark = [pytest.mark.stand, pytest.mark.faults]


@pytest.fixture(scope="module")
def door(stand):
    """The door to the API server."""
    config = yaml.safe_load(Path(stand["kubeconfig"]).read_text())
    host, port = config["clusters"][0]["cluster"]["server"].removeprefix("https://").split(":")
    return ByteDoor(host, int(port))


@pytest.fixture(scope="module")
def road(make_road, door, stand, tmp_path_factory):
    """A road whose connection leads through the door, on which A is live."""
    config = yaml.safe_load(Path(stand["kubeconfig"]).read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{door.address}"
    kubeconfig = tmp_path_factory.mktemp("door") / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    kubeconfig.chmod(0o600)
    road = make_road("faults-api")
    connection = json.loads(road.environment["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    connection["extra"]["kube_config_path"] = str(kubeconfig)
    road.environment["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = json.dumps(connection)
    road.run()
    yield road
    road.end()


def stored(road, before):
    """Whether a new release's manifests are in the store: the next thing is the apply."""
    return set((road.root / "store" / "manifests" / road.model).glob("[!.]*")) - before


INSTANTS = {"apply": None, "rollout": "task_id=wait_for_rollout", "gate": "task_id=gate"}


@pytest.mark.parametrize("instant", INSTANTS)
def test_out_of_reach(road, door, tell, instant):
    """The run waits or tries again by itself, and brings its release."""
    manifests = set((road.root / "store" / "manifests" / road.model).glob("[!.]*"))
    with road.container(env=[{"name": "ROUND", "value": instant}]), road.beside() as beside:
        eventually(lambda: stored(road, manifests), seconds=APPEARS_S, what="the release's manifests")
        if INSTANTS[instant]:
            beside.says(INSTANTS[instant])
        with door.shut_for_a_while(DOWN_S):
            pass
        run = beside.ends()
    road.has_brought(run, version=1)
    tell(f"API server out of reach for 30 s during {instant}", "the release is live, one record", good_s=run.seconds)


def test_out_of_reach_during_the_rollback(road, door, tell):
    """A rollback waits for an API server that is silent, and the good release serves again."""
    good = road.serves()
    with road.container(args=["--rest_api_port=none"]), road.beside() as beside:
        beside.says("task_id=rollback", seconds=180)
        with door.shut_for_a_while(DOWN_S):
            pass
        run = beside.ends(green=False)
    assert run.record("rollback")["outcome"] == "live"
    road.has_given_up(run, words="", good=good)
    tell(
        "API server out of reach for 30 s during the rollback",
        "the release before it serves, gated again",
        run.detect_s(),
        run.good_s(),
    )
