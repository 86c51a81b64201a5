"""Clusters that cannot be used: refused by the plan, before anything is built, on the stand's own API server."""

import json
import re
from base64 import b64encode
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from kubernetes.client import CoreV1Api

from slipway.errors import ApplyRefused, ClusterUnreachable, InputRefused, PreflightFailed
from slipway.plan import make_plan
from slipway.target import Target, cluster_client

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

SECRET = "not-a-token-that-anybody-may-see"


@pytest.fixture
def kubeconfig(stand):
    """The stand's kubeconfig."""
    return yaml.safe_load(Path(stand["kubeconfig"]).read_text())


@pytest.fixture
def planned(stand, release, monkeypatch, tmp_path):
    """Plans a release with the connection `tried` whose kubeconfig is the text or mapping; the plan comes back."""

    def plan(kubeconfig, namespace=None, **extra):
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig if isinstance(kubeconfig, str) else yaml.safe_dump(kubeconfig))
        said = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(path), **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", json.dumps(said))
        target = Target(conn_id="tried", namespace=namespace or stand["namespace"])
        return make_plan(replace(release, target=target, deployment="tfs-bad-input"), by_hand=True)[0]

    return plan


def changed(kubeconfig, *, cluster=None, user=None):
    """The kubeconfig with another cluster or user."""
    config = deepcopy(kubeconfig)
    config["clusters"][0]["cluster"].update(cluster or {})
    if user is not None:
        config["users"][0]["user"] = user
    return config


def refused(kind, pattern, plan, *words, **options):
    """The plan is refused in one line that begins with the pattern and says what next, without a secret in it."""
    with pytest.raises(kind, match=rf"^{pattern}.*\. Next: ") as refusal:
        plan(*words, **options)
    said = str(refusal.value)
    assert "\n" not in said
    assert ".." not in said
    assert SECRET not in said
    return said.split("Next: ")[1]


def test_planned_if_the_connection_is_good(planned, kubeconfig):
    """The kubeconfig that all others are made from is good, so that it is what was changed that is refused."""
    assert planned(kubeconfig).action == "everything"


BROKEN = {
    "no YAML": f"users:\n - token: {SECRET}\n  bad: [\n",
    "not closed": f"users: [{{token: {SECRET}\n",
    "bytes": f"\x00{SECRET}",
    "a list": f"- {SECRET}\n",
    "a text": SECRET,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_refused_if_the_kubeconfig_is_none(planned, text):
    """What is no kubeconfig names the connection, and shows nothing of what may be a secret."""
    refused(InputRefused, "connection tried: its kubeconfig is no kubeconfig: ", planned, text)


def test_refused_if_the_context_is_not_there(planned, kubeconfig):
    """A context that the kubeconfig lacks is named."""
    refused(InputRefused, "connection tried: .*nowhere", planned, kubeconfig, cluster_context="nowhere")


@pytest.mark.parametrize("server", ["https://127.0.0.1:1", "https://cluster.invalid:6443"])
def test_unreachable_if_nobody_answers_there(planned, kubeconfig, server):
    """A server that does not answer is named with the connection, and is worth another try."""
    said = changed(kubeconfig, cluster={"server": server})
    refused(ClusterUnreachable, f"connection tried: {re.escape(server)} does not answer: ", planned, said)


def test_refused_if_the_server_is_another(planned, kubeconfig):
    """A server whose certificate is not of the kubeconfig's authority will not become another one by trying again."""
    said = changed(kubeconfig, cluster={"certificate-authority-data": b64encode(b"nonsense").decode()})
    refused(InputRefused, "connection tried: https://.*certificate", planned, said)


@pytest.mark.parametrize("user", [{"token": SECRET}, {}], ids=["wrong token", "none"])
def test_refused_if_the_credentials_are_not_accepted(planned, kubeconfig, user):
    """Who is not known, or comes without credentials, is sent to the connection's kubeconfig."""
    said = changed(kubeconfig, user=user)
    then = refused(ApplyRefused, "cluster https://127.* in .*: HTTP 40[13]: ", planned, said)
    assert then == "put a token or certificate that is valid into the kubeconfig of connection tried"


def test_refused_if_there_is_no_such_namespace(planned, kubeconfig):
    """A namespace that is not there is named with the command that makes it; a run makes none by itself."""
    then = refused(ApplyRefused, ".* in gone-namespace: HTTP 404: ", planned, kubeconfig, namespace="gone-namespace")
    assert then.startswith("kubectl create namespace gone-namespace, or ")


@pytest.fixture
def stranger(stand, planned, kubeconfig):
    """A user of the cluster who may do nothing in it, as a kubeconfig."""
    planned(kubeconfig)  # makes the connection
    with cluster_client(Target(conn_id="tried", namespace=stand["namespace"])) as client:
        core, name = CoreV1Api(client), "slipway-stranger"
        core.create_namespaced_service_account(stand["namespace"], {"metadata": {"name": name}})
        given = core.create_namespaced_service_account_token(name, stand["namespace"], {"spec": {}})
        yield changed(kubeconfig, user={"token": given.status.token})
        core.delete_namespaced_service_account(name, stand["namespace"])


def test_refused_if_the_user_has_no_rights(stand, planned, stranger):
    """A user without rights is told in one line all that are missing, where to look, and whose connection it is."""
    rights = "get services, create services, patch services, .*patch deployments.apps, .*list pods"
    where = rf"connection tried: no right in namespace {stand['namespace']} to {rights}"
    then = refused(PreflightFailed, where, planned, stranger)
    assert then.startswith(f"kubectl -n {stand['namespace']} auth can-i --list as connection tried; ")
