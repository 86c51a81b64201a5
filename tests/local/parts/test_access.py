"""What the stand's Airflow may do in the cluster."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from local.parts.access import RULES
from slipway.kubernetes.rights import plan_rights

PROJECT = Path(__file__).resolve().parents[3]
ELSEWHERE = "kube-system"


def test_the_role_has_what_a_run_of_the_shipped_overlays_uses():
    """Every right that `plan` asks for, for every kind that the shipped manifests contain."""
    objects = [
        one
        for path in (PROJECT / "include" / "manifests").rglob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
        if "metadata" in one
    ]
    kinds = {(one["apiVersion"].rpartition("/")[0], one["kind"]) for one in objects}
    assert {kind for _, kind in kinds} >= {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    given = {(group, resource, verb) for group, resources, verbs in RULES for resource in resources for verb in verbs}
    used = plan_rights({*kinds, ("", "ConfigMap")}, preview=True, metrics=True, forwards=True)
    assert {(right.group, right.resource, right.verb) for right in used} <= given


@pytest.fixture
def may(stand):
    """True if the stand's Airflow has a right: `may("get", "secrets", "-n", "shop")`."""

    def ask(*words):
        command = [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", stand["airflow"]["kubeconfig"]]
        done = subprocess.run(
            [*command, "auth", "can-i", *words], capture_output=True, text=True, check=False, timeout=600
        )
        assert done.stdout.strip() in {"yes", "no"}, done.stderr
        return done.stdout.strip() == "yes"

    return ask


@pytest.mark.stand
@pytest.mark.alongside
@pytest.mark.parametrize(
    "words",
    [
        ("*", "*", "--all-namespaces"),
        ("*", "*"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("create", "serviceaccounts", "--subresource=token"),
        ("create", "pods"),
        ("get", "secrets", "-n", ELSEWHERE),
        ("create", "deployments.apps", "-n", ELSEWHERE),
        ("list", "pods", "--all-namespaces"),
        ("get", "namespaces/default", "-n", "default"),
    ],
    ids=" ".join,
)
def test_airflow_is_no_administrator_of_the_cluster(may, words):
    """Its account has no rights outside the checkout's namespace, and cannot give itself any."""
    assert not may(*words)


@pytest.mark.stand
@pytest.mark.alongside
@pytest.mark.parametrize(
    "words",
    [
        ("patch", "deployments.apps"),
        ("get", "pods", "--subresource=proxy"),
        ("list", "nodes"),
        ("get", f"namespaces/{ELSEWHERE}"),
    ],
    ids=" ".join,
)
def test_airflow_has_its_rights(may, words):
    """Those in the namespace, and the two optional ones outside it."""
    assert may(*words)
