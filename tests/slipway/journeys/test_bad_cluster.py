"""The plan refuses clusters that cannot be used, before anything is built. On the stand's API server."""

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
from slipway.kubernetes.client import cluster_client
from slipway.steps.plan import make_plan
from slipway.steps.rendering import render_release
from slipway.target import Target

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

SECRET = "not-a-token-that-anybody-may-see"


@pytest.fixture
def kubeconfig(stand):
    """The stand's kubeconfig."""
    return yaml.safe_load(Path(stand["kubeconfig"]).read_text())


@pytest.fixture
def planned(stand, release, monkeypatch, tmp_path):
    """Plans a release with the connection `tried`, whose kubeconfig is the text or mapping; returns the plan."""

    def plan(kubeconfig, namespace=None, **extra):
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig if isinstance(kubeconfig, str) else yaml.safe_dump(kubeconfig))
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(path), **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", json.dumps(connection))
        target = Target(conn_id="tried", namespace=namespace or stand["namespace"])
        asked = render_release(replace(release, target=target, deployment="tfs-bad-input"))
        return make_plan(asked, by_hand=True)[0]

    return plan


def changed(kubeconfig, *, cluster=None, user=None):
    """The kubeconfig with another cluster or user."""
    config = deepcopy(kubeconfig)
    config["clusters"][0]["cluster"].update(cluster or {})
    if user is not None:
        config["users"][0]["user"] = user
    return config


def refused(kind, pattern, plan, *words, **options):
    """The plan is refused in one line that begins with the pattern, says what next and shows no secret."""
    with pytest.raises(kind, match=rf"^{pattern}.*\. Next: ") as refusal:
        plan(*words, **options)
    message = str(refusal.value)
    assert "\n" not in message
    assert ".." not in message
    assert SECRET not in message
    return message.split("Next: ")[1]


def test_planned_if_the_connection_is_good(planned, kubeconfig):
    """The unchanged kubeconfig is accepted, so the other tests' refusals come from their changes."""
    assert planned(kubeconfig).action == "everything"


BROKEN = {
    "no YAML": f"users:\n - token: {SECRET}\n  bad: [\n",
    "not closed": f"users: [{{token: {SECRET}\n",
    "bytes": f"\x00{SECRET}",
    "a list": f"- {SECRET}\n",
    "a text": SECRET,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_refused_if_the_kubeconfig_is_invalid(planned, text):
    """The error names the connection, and shows nothing of the file: it may be a secret."""
    refused(InputRefused, "connection tried: its kubeconfig is invalid: ", planned, text)


def test_refused_if_the_context_does_not_exist(planned, kubeconfig):
    """The error names the context that the kubeconfig lacks."""
    refused(InputRefused, "connection tried: .*nowhere", planned, kubeconfig, cluster_context="nowhere")


@pytest.mark.parametrize("server", ["https://127.0.0.1:1", "https://cluster.invalid:6443"])
def test_unreachable_if_the_server_does_not_respond(planned, kubeconfig, server):
    """The error names the server and the connection, and can be retried."""
    config = changed(kubeconfig, cluster={"server": server})
    refused(ClusterUnreachable, f"connection tried: {re.escape(server)} does not answer: ", planned, config)


def test_refused_if_the_servers_certificate_is_not_trusted(planned, kubeconfig):
    """A retry does not help if the kubeconfig's authority did not sign the server's certificate."""
    config = changed(kubeconfig, cluster={"certificate-authority-data": b64encode(b"nonsense").decode()})
    refused(InputRefused, "connection tried: https://.*certificate", planned, config)


@pytest.mark.parametrize("user", [{"token": SECRET}, {}], ids=["wrong token", "none"])
def test_refused_if_the_credentials_are_not_accepted(planned, kubeconfig, user):
    """If credentials are unknown or missing, the next step is to fix the connection's kubeconfig."""
    config = changed(kubeconfig, user=user)
    then = refused(ApplyRefused, "cluster https://127.* in .*: HTTP 40[13]: ", planned, config)
    assert then == "put a valid token or certificate into the kubeconfig of connection tried"


def test_refused_if_the_namespace_does_not_exist(planned, kubeconfig):
    """The error has the command that creates the namespace; a run creates none by itself."""
    then = refused(ApplyRefused, ".* in gone-namespace: HTTP 404: ", planned, kubeconfig, namespace="gone-namespace")
    assert then.startswith("kubectl create namespace gone-namespace, or ")


@pytest.fixture
def stranger(stand, planned, kubeconfig):
    """The kubeconfig of a user without rights."""
    planned(kubeconfig)  # makes the connection
    with cluster_client(Target(conn_id="tried", namespace=stand["namespace"])) as client:
        core, name = CoreV1Api(client), "slipway-stranger"
        core.create_namespaced_service_account(stand["namespace"], {"metadata": {"name": name}})
        given = core.create_namespaced_service_account_token(name, stand["namespace"], {"spec": {}})
        yield changed(kubeconfig, user={"token": given.status.token})
        core.delete_namespaced_service_account(name, stand["namespace"])


def test_refused_if_the_user_has_no_rights(stand, planned, stranger):
    """One line names all missing rights, the connection, and where to look."""
    rights = "get configmaps, create configmaps, patch configmaps, .*patch deployments.apps, .*list pods"
    where = rf"connection tried: no right in namespace {stand['namespace']} to {rights}"
    then = refused(PreflightFailed, where, planned, stranger)
    assert then.startswith(f"kubectl -n {stand['namespace']} auth can-i --list as connection tried; ")
