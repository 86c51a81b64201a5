from dataclasses import replace

import pytest

from slipway.errors import ClusterInUse, InputRefused
from slipway.facts import Balancer, ObjectRef, Teardown
from slipway.steps.teardown_plan import (
    TeardownPlan,
    check_alone,
    check_unchanged,
    plan_balancers,
    plan_others,
    render_body,
)
from slipway.target import GkeCluster, Target

CLUSTER = GkeCluster(project="shop", location="us-central1-a", name="tfs-cluster")
TARGET = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
TEARDOWN = Teardown(
    model="digits-vit",
    run_id="manual__down",
    store="file:///store",
    target=TARGET,
    deployment="tfs-server",
    objects=(
        ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop"),
        ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop"),
    ),
    balancers=(Balancer(service="shop/tfs-server", uid="u-1", address="203.0.113.7"),),
    claim=None,
    address_timeout_s=600,
    cluster_timeout_s=1800,
)
SURVEY = TeardownPlan(
    teardown=TEARDOWN,
    status="RUNNING",
    cost="about $0.90 per hour",
    others=(),
    blind=None,
    sharing=(),
)


def item(kind, name, namespace="shop", *, model=None, **fields):
    """An object as the API server lists it."""
    labels = {"slipway/model": model} if model else {}
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": "u-1", "labels": labels}, **fields}


def test_others_are_what_is_neither_recorded_nor_the_systems():
    """An object counts as the model's where the record names it and it bears the model's label: nothing else does."""
    items = [
        item("Service", "tfs-server", model="digits-vit"),
        item("Deployment", "tfs-server", model="digits-vit"),
        item("Service", "kubernetes", "default"),
        item("Deployment", "coredns", "kube-system"),
        item("DaemonSet", "fluentbit", "gmp-system"),
        item("Deployment", "checkout", "payments"),
        item("StatefulSet", "tfs-server", model="digits-vit"),
        item("Deployment", "hf-vit", model="hf-vit"),
    ]
    assert plan_others(items, TEARDOWN) == (
        "deployment/checkout in payments",
        "deployment/hf-vit in shop, of model hf-vit",
        "statefulset/tfs-server in shop, of model digits-vit",
    )


def test_recorded_object_that_somebody_made_anew_is_others():
    """Of the name that the record has, without the model's label: it is not ours to delete."""
    assert plan_others([item("Deployment", "tfs-server")], TEARDOWN) == ("deployment/tfs-server in shop",)


def test_balancers_are_the_services_that_have_one():
    """By namespace, name, uid and address, which are gone when the Service is."""
    balanced = {"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}
    items = [
        item("Service", "tfs-server", **balanced),
        item("Service", "waiting", **{**balanced, "status": {"loadBalancer": {}}}),
        item("Service", "inner", spec={"type": "ClusterIP"}),
    ]
    assert plan_balancers(items) == (
        Balancer(service="shop/tfs-server", uid="u-1", address="203.0.113.7"),
        Balancer(service="shop/waiting", uid="u-1", address=None),
    )


NOT_ALONE = {
    "others": ({"others": ("deployment/checkout in payments",)}, "deployment/checkout in payments runs there"),
    "other model files": ({"sharing": ("hf-vit",)}, "include/served/hf-vit.yaml names it too"),
    "what cannot be seen": ({"blind": "no rights"}, "what else runs there cannot be listed: no rights"),
}


@pytest.mark.parametrize(("changes", "words"), NOT_ALONE.values(), ids=NOT_ALONE)
def test_refused_unless_the_form_says_so(changes, words):
    """A cluster that is not the model's alone goes only where a person has said so, and the line says who is there."""
    plan = replace(SURVEY, **changes)
    with pytest.raises(ClusterInUse, match=words):
        check_alone(plan, with_others=False)
    check_alone(plan, with_others=True)


def test_passed_if_the_model_is_alone():
    """Nothing else lives there, as far as all of it can be seen."""
    check_alone(SURVEY, with_others=False)


def test_refused_if_more_lives_there_than_was_approved():
    """What moved in between the approval and the deletion is not taken along; what has left is no hindrance."""
    approved = replace(SURVEY, others=("deployment/a in x", "deployment/b in x"))
    check_unchanged(approved, replace(SURVEY, others=("deployment/b in x",)))
    with pytest.raises(ClusterInUse, match=r"only since the approval: deployment/c in x\. Next: trigger again"):
        check_unchanged(approved, replace(SURVEY, others=("deployment/b in x", "deployment/c in x")))


def test_the_approval_shows_what_goes_in_its_order():
    """Objects, the last applied first, then load balancers, then the cluster; and that the next refresh makes it again."""
    body = render_body(SURVEY)
    order = ["deployment/tfs-server", "service/tfs-server", "203.0.113.7", "cluster tfs-cluster in shop"]
    assert sorted(order, key=body.index) == order
    assert "about $0.90 per hour" in body
    assert "refresh_digits_vit" in body
    assert "NOT digits-vit's" not in body


def test_the_approval_says_loudly_what_is_not_the_models():
    """Others' workloads, other model files, and that there may be more."""
    body = render_body(
        replace(SURVEY, others=("deployment/checkout in payments",), sharing=("hf-vit",), blind="no rights")
    )
    loud = body.split("**NOT digits-vit's, AND DELETED WITH THE CLUSTER:**")[1]
    assert all(words in loud for words in ("deployment/checkout in payments", "hf-vit", "no rights"))


def test_the_approval_says_if_there_is_no_cluster():
    """Then there is nothing to delete but what is left to be listed."""
    assert render_body(replace(SURVEY, status=None)).startswith("There is no cluster tfs-cluster")


def test_refused_if_the_target_is_none_of_googles():
    """A model file whose target is a connection has no cluster that is ours to delete."""
    with pytest.raises(InputRefused, match="its target is not a GKE cluster"):
        _ = replace(TEARDOWN, target=Target(conn_id="kubernetes_default", namespace="shop")).cluster
