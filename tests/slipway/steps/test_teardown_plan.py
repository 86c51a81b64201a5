from dataclasses import replace

import pytest

from slipway.errors import ClusterInUse, InputRefused
from slipway.facts import Balancer, ObjectRef, Teardown
from slipway.steps.teardown_plan import (
    TeardownPlan,
    check_teardown_alone,
    check_teardown_unchanged,
    plan_teardown_balancers,
    plan_teardown_others,
    render_teardown_plan,
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
PLAN = TeardownPlan(
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


def test_others_are_objects_that_are_neither_the_models_nor_the_systems():
    """An object is the model's only if the record names it and it has the model's label."""
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
    assert plan_teardown_others(items, TEARDOWN) == (
        "deployment/checkout in payments",
        "deployment/hf-vit in shop, of model hf-vit",
        "statefulset/tfs-server in shop, of model digits-vit",
    )


def test_recorded_object_without_the_models_label_is_others():
    """Somebody created it again under the recorded name: it is not Slipway's to delete."""
    assert plan_teardown_others([item("Deployment", "tfs-server")], TEARDOWN) == ("deployment/tfs-server in shop",)


def test_balancers_are_those_of_the_services():
    """Each has the Service's namespace, name, uid and address, which are unknown once the Service is gone."""
    balanced = {"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}
    items = [
        item("Service", "tfs-server", **balanced),
        item("Service", "waiting", **{**balanced, "status": {"loadBalancer": {}}}),
        item("Service", "inner", spec={"type": "ClusterIP"}),
    ]
    assert plan_teardown_balancers(items) == (
        Balancer(service="shop/tfs-server", uid="u-1", address="203.0.113.7"),
        Balancer(service="shop/waiting", uid="u-1", address=None),
    )


NOT_ALONE = {
    "others": ({"others": ("deployment/checkout in payments",)}, "deployment/checkout in payments runs there"),
    "other model files": ({"sharing": ("hf-vit",)}, "include/served/hf-vit.yaml names it too"),
    "what cannot be listed": ({"blind": "no rights"}, "what else runs there cannot be listed: no rights"),
}


@pytest.mark.parametrize(("changes", "words"), NOT_ALONE.values(), ids=NOT_ALONE)
def test_shared_cluster_is_refused_unless_the_form_allows_it(changes, words):
    """The line says what else runs in the cluster."""
    plan = replace(PLAN, **changes)
    with pytest.raises(ClusterInUse, match=words):
        check_teardown_alone(plan, with_others=False)
    check_teardown_alone(plan, with_others=True)


def test_passes_if_nothing_else_runs_in_the_cluster():
    """All objects can be listed, and all are the model's."""
    check_teardown_alone(PLAN, with_others=False)


def test_refused_if_more_runs_there_than_was_approved():
    """An object that is new since the approval stops the deletion; one that is gone does not."""
    approved = replace(PLAN, others=("deployment/a in x", "deployment/b in x"))
    check_teardown_unchanged(approved, replace(PLAN, others=("deployment/b in x",)))
    with pytest.raises(ClusterInUse, match=r"added after the approval: deployment/c in x\. Next: trigger again"):
        check_teardown_unchanged(approved, replace(PLAN, others=("deployment/b in x", "deployment/c in x")))


def test_approval_shows_what_is_deleted_in_order():
    """Objects come first, the last applied one at the top, then load balancers, then the cluster; then what creates it again."""
    body = render_teardown_plan(PLAN)
    order = ["deployment/tfs-server", "service/tfs-server", "203.0.113.7", "cluster tfs-cluster in shop"]
    assert sorted(order, key=body.index) == order
    assert "about $0.90 per hour" in body
    assert "refresh_digits_vit" in body
    assert "NOT digits-vit's" not in body


def test_approval_warns_about_what_is_not_the_models():
    """It lists other workloads and model files, and says if there may be more."""
    body = render_teardown_plan(
        replace(PLAN, others=("deployment/checkout in payments",), sharing=("hf-vit",), blind="no rights")
    )
    warning = body.split("**NOT digits-vit's, AND DELETED WITH THE CLUSTER:**")[1]
    assert all(words in warning for words in ("deployment/checkout in payments", "hf-vit", "no rights"))


def test_approval_says_if_there_is_no_cluster():
    """Then only leftovers are searched for."""
    assert render_teardown_plan(replace(PLAN, status=None)).startswith("There is no cluster tfs-cluster")


def test_refused_if_the_target_is_not_a_gke_cluster():
    """The cluster of a connection is not Slipway's to delete."""
    with pytest.raises(InputRefused, match="its target is not a GKE cluster"):
        _ = replace(TEARDOWN, target=Target(conn_id="kubernetes_default", namespace="shop")).cluster
