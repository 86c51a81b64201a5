import json

import pytest
import yaml

from slipway.errors import InputRefused
from slipway.kubernetes.client import namespace_of_connection

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


@pytest.fixture
def connection(monkeypatch, tmp_path):
    """Makes a Kubernetes connection with a kubeconfig; `connection(**extra)` is its id."""
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(KUBECONFIG))

    def make(**extra):
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(path), **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", json.dumps(connection))
        return "tried"

    return make


@pytest.mark.parametrize(("extra", "namespace"), [({"namespace": "shop"}, "shop"), ({}, "default")])
def test_namespace_is_the_connections(connection, extra, namespace):
    """The namespace is the connection's, `default` if it has none."""
    assert namespace == namespace_of_connection(connection(**extra))


@pytest.mark.parametrize("kubeconfig", ["/nowhere/kubeconfig", "empty"])
def test_refused_in_one_line_if_the_kubeconfig_is_invalid(connection, tmp_path, kubeconfig):
    """A connection whose kubeconfig is missing or empty is refused before anything is built."""
    (tmp_path / "empty").touch()
    place = kubeconfig if kubeconfig.startswith("/") else str(tmp_path / kubeconfig)
    with pytest.raises(InputRefused, match=r"^connection tried: .*Next: fix it in Airflow .*kube_config") as refusal:
        namespace_of_connection(connection(kube_config_path=place))
    assert "\n" not in str(refusal.value)
