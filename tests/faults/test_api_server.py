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


INSTANTS = {
    "apply": lambda log: "apply: " not in log,
    "rollout": lambda log: "task_id=wait_for_rollout" in log,
    "gate": lambda log: "task_id=gate" in log,
}


@pytest.mark.parametrize("instant", INSTANTS)
def test_out_of_reach(road, door, tell, instant):
    """The run waits or tries again by itself, and brings its release."""
    manifests = set((road.root / "store" / "manifests" / road.model).glob("[!.]*"))
    before = set(road.records())
    with road.container(env=[{"name": "ROUND", "value": instant}]), road.beside() as process:
        eventually(lambda: stored(road, manifests), seconds=APPEARS_S, what="the release's manifests")
        eventually(lambda: INSTANTS[instant](process.log.read_text()), seconds=APPEARS_S, what=instant)
        with door.shut_for_a_while(DOWN_S):
            pass
        code = process.wait(timeout=240)
    log = process.log.read_text()
    assert code == 0, log[-5000:]
    [record] = [found for name, found in road.records().items() if name not in before]
    assert record["outcome"] == "live"
    assert road.serves() == {"release": record["release_id"], "version": 1}
    assert road.debris() == []
    tell(f"API server out of reach for 30 s during {instant}", "the release is live, one record", good_s=None)


def test_out_of_reach_during_the_rollback(road, door, tell):
    """A rollback waits for an API server that is silent, and the good release serves again."""
    good, before = road.serves(), set(road.records())
    with road.container(args=["--rest_api_port=none"]), road.beside() as process:
        eventually(lambda: "task_id=rollback" in process.log.read_text(), seconds=180, what="the rollback")
        with door.shut_for_a_while(DOWN_S):
            pass
        assert process.wait(timeout=240) != 0
    outcomes = {found["cause"]: found["outcome"] for name, found in road.records().items() if name not in before}
    assert outcomes == {"refresh": "failed", "rollback": "live"}, process.log.read_text()[-5000:]
    assert road.serves() == good
    assert road.debris() == []
    tell("API server out of reach for 30 s during the rollback", "the release before it serves, gated again")
