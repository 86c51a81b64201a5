"""Kubeconfigs whose credentials come from another program, as on EKS: both of the provider's hooks on the stand's API server."""

import asyncio
import base64
import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from kubernetes.client import AuthenticationV1Api, CoreV1Api, RbacAuthorizationV1Api, V1SelfSubjectReview
from kubernetes_asyncio.client.exceptions import ApiException

from slipway.dag.triggers.rollout import AddressTrigger
from slipway.errors import InputRefused
from slipway.facts import to_dict
from slipway.kubernetes.api import read_object_async
from slipway.kubernetes.client import cluster_client, namespace_of_connection
from slipway.target import Target

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

NAME = "slipway-exec"
REFUSED = "no-token-of-this-cluster"


def ends(**later):
    """An expiry time as a plugin prints it."""
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def kubeconfig(stand):
    """The stand's kubeconfig."""
    return yaml.safe_load(Path(stand["kubeconfig"]).read_text())


@pytest.fixture
def connected(stand, monkeypatch, tmp_path):
    """Makes the connection `tried` with this user in its kubeconfig, a file or inline; returns the target."""

    def make(kubeconfig, user, *, inline=False):
        config = {**kubeconfig, "users": [{"name": kubeconfig["users"][0]["name"], "user": user}]}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        extra = {"kube_config": json.dumps(config)} if inline else {"kube_config_path": str(path)}
        extra["namespace"] = stand["namespace"]
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", json.dumps({"conn_type": "kubernetes", "extra": extra}))
        return Target(conn_id="tried", namespace=stand["namespace"])

    return make


@pytest.fixture
def plugin(tmp_path):
    """A kubeconfig's user whose plugin gives these answers, one a run; `plugin.runs()` counts the runs."""

    def answering(*answers):
        (tmp_path / "answers").write_text(json.dumps(answers))
        script = str(Path(__file__).with_name("exec_plugin.py"))
        return {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": sys.executable, "args": [script, str(tmp_path)]}}  # fmt: skip

    answering.runs = lambda: len((tmp_path / "runs").read_text().split()) if (tmp_path / "runs").exists() else 0
    return answering


@pytest.fixture
def token(stand, kubeconfig, connected):
    """A token of an account that may read the checkout's namespace."""
    admin = connected(kubeconfig, kubeconfig["users"][0]["user"])
    where, subject = stand["namespace"], {"kind": "ServiceAccount", "name": NAME, "namespace": stand["namespace"]}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    with cluster_client(admin) as client:
        core, rbac = CoreV1Api(client), RbacAuthorizationV1Api(client)
        core.create_namespaced_service_account(where, {"metadata": {"name": NAME}})
        rbac.create_namespaced_role_binding(where, {"metadata": {"name": NAME}, "roleRef": role, "subjects": [subject]})
        yield core.create_namespaced_service_account_token(NAME, where, {"spec": {}}).status.token
        rbac.delete_namespaced_role_binding(NAME, where)
        core.delete_namespaced_service_account(NAME, where)


def who_am_i(client):
    """The user that the API server identifies."""
    answer = AuthenticationV1Api(client).create_self_subject_review(V1SelfSubjectReview(), _request_timeout=300)
    return answer.status.user_info.username.rpartition(":")[2]


def service(target):
    """What a trigger reads for a Service that does not exist."""
    return asyncio.run(read_object_async(target, "Service", "not-there"))


@pytest.mark.parametrize("inline", [False, True], ids=["in a file", "in the connection"])
def test_both_clients_use_the_plugins_credentials(kubeconfig, connected, plugin, token, inline):
    """A task's client runs the plugin once; each poll of a trigger runs it again."""
    target = connected(kubeconfig, plugin({"token": token, "expirationTimestamp": ends(minutes=14)}), inline=inline)
    with cluster_client(target) as client:
        assert [who_am_i(client) for _ in range(3)] == [NAME] * 3
    assert plugin.runs() == 1
    assert [service(target) for _ in range(2)] == [None, None]
    assert plugin.runs() == 1 + 2


def test_a_client_outlives_its_token(kubeconfig, connected, plugin, token):
    """The client asks the plugin for new credentials when they have expired."""
    stale, fresh = (
        {"token": one, "expirationTimestamp": ends(minutes=later)} for one, later in ((REFUSED, -1), (token, 14))
    )
    target = connected(kubeconfig, plugin(stale, fresh))
    with cluster_client(target) as client:
        assert [who_am_i(client) for _ in range(2)] == [NAME] * 2
    assert plugin.runs() == 2


def test_a_wait_outlives_its_token(kubeconfig, connected, plugin, token, release):
    """A poll that was refused, or whose plugin failed, decides nothing: the next poll gets new credentials."""
    target = connected(kubeconfig, plugin({"token": REFUSED}, {"fails": "the token service is away"}, {"token": token}))
    with pytest.raises(ApiException, match="Unauthorized"):
        service(target)
    trigger = AddressTrigger(release=to_dict(replace(release, target=target)), deadline=0, poll_s=0)
    polled = [asyncio.run(trigger.poll_or_wait()).reason for _ in range(2)]
    assert polled[0].startswith("polling failed: ConfigException: exec: process returned 1. the token service is away")
    assert "polling failed" not in polled[1]


def test_a_poll_does_not_wait_for_a_plugin_that_hangs(kubeconfig, connected, plugin, release, monkeypatch):
    """The asynchronous client would block the triggerer without end: a poll has a time limit."""
    monkeypatch.setattr("slipway.kubernetes.client.REQUEST_TIMEOUT_S", 0.5)
    target = connected(kubeconfig, plugin({"hangs_s": 60, "token": REFUSED}))
    began_s = time.monotonic()
    trigger = AddressTrigger(release=to_dict(replace(release, target=target)), deadline=0, poll_s=0)
    verdict = asyncio.run(trigger.poll_or_wait())
    assert verdict.reason.startswith("polling failed: TimeoutError")
    assert time.monotonic() - began_s < 50


def test_a_plugin_may_give_a_certificate(kubeconfig, connected, plugin):
    """A client certificate works in place of a token."""
    admin = kubeconfig["users"][0]["user"]
    pem = {name: base64.b64decode(admin[name]).decode() for name in ("client-certificate-data", "client-key-data")}
    target = connected(
        kubeconfig,
        plugin({"clientCertificateData": pem["client-certificate-data"], "clientKeyData": pem["client-key-data"]}),
    )
    with cluster_client(target) as client:
        assert who_am_i(client)
    assert service(target) is None


BROKEN = {
    "plugin fails": (
        {"fails": "Unable to locate credentials"},
        "exec: process returned 1. Unable to locate credentials",
    ),
    "no credentials": ({}, "exec: missing token or clientCertificateData field in plugin output"),
}


@pytest.mark.parametrize(("answer", "words"), BROKEN.values(), ids=BROKEN)
def test_refused_in_one_line_if_the_plugin_gives_nothing(kubeconfig, connected, plugin, answer, words):
    """The client alone would go on without credentials, and be refused: the error has the plugin's message."""
    connected(kubeconfig, plugin(answer))
    with pytest.raises(
        InputRefused, match=rf"^connection tried: the exec plugin .*{words}\. Next: install its command on"
    ):
        namespace_of_connection("tried")


def test_refused_in_one_line_if_the_plugin_is_not_installed(kubeconfig, connected):
    """The error names the command that the worker lacks."""
    target = connected(
        kubeconfig, {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "no-such-aws"}}
    )
    with (
        pytest.raises(InputRefused, match=r"no-such-aws'?\. Next: install its command") as refusal,
        cluster_client(target),
    ):
        pass
    assert "\n" not in str(refusal.value)
