"""The API server is unreachable for 30 s, by a proxy in front of it, at four instants of a refresh."""

import json
from pathlib import Path

import pytest
import yaml
from closable_proxies import TcpProxy
from refresh_runs import WAIT_S, eventually

DOWN_S = 30

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


@pytest.fixture(scope="module")
def proxy(stand):
    """The proxy in front of the API server."""
    config = yaml.safe_load(Path(stand["kubeconfig"]).read_text())
    host, port = config["clusters"][0]["cluster"]["server"].removeprefix("https://").split(":")
    return TcpProxy(host, int(port))


@pytest.fixture(scope="module")
def harness(released, proxy, stand, tmp_path_factory):
    """The harness, with a Kubernetes connection that leads through the proxy."""
    config = yaml.safe_load(Path(stand["airflow"]["kubeconfig"]).read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{proxy.address}"
    kubeconfig = tmp_path_factory.mktemp("proxy") / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    kubeconfig.chmod(0o600)
    direct = released.environment["AIRFLOW_CONN_KUBERNETES_DEFAULT"]
    connection = json.loads(direct)
    connection["extra"]["kube_config_path"] = str(kubeconfig)
    released.environment["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = json.dumps(connection)
    yield released
    released.environment["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = direct


def test_unreachable_at_three_instants_of_a_refresh(harness, proxy, write_row):
    """The run waits or retries by itself, three times, and its release goes live."""
    folder = harness.root / "store" / "manifests" / harness.model
    before = set(folder.glob("[!.]*"))
    with harness.container(env=[{"name": "ROUND", "value": "unreachable"}]), harness.in_background() as background:
        eventually(
            lambda: set(folder.glob("[!.]*")) - before, seconds=WAIT_S, what="the manifests, just before the apply"
        )
        with proxy.closed_for(DOWN_S):
            pass
        for task_id in ("wait_for_rollout", "gate"):
            background.logs(f"task_id={task_id}")
            with proxy.closed_for(DOWN_S):
                pass
        run = background.ends()
    harness.assert_live(run, version=1)
    write_row(
        "API server unreachable for 30 s during apply, again during the rollout, and again during the gate",
        "the release is live, one record",
        good_s=run.seconds,
    )


def test_unreachable_during_the_rollback(harness, proxy, write_row):
    """A rollback waits for an API server that does not respond, and the good release serves again."""
    good = harness.serves()
    with harness.container(args=["--rest_api_port=none"]), harness.in_background() as background:
        background.logs("task_id=rollback")
        with proxy.closed_for(DOWN_S):
            pass
        run = background.ends(green=False)
    assert run.record("rollback")["outcome"] == "live"
    harness.assert_given_up(run, words="", good=good)
    write_row(
        "API server unreachable for 30 s during the rollback",
        "the release before it serves and has passed its gate again",
        run.detect_s(),
        run.good_s(),
    )
