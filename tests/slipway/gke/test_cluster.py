from dataclasses import replace

import pytest

from slipway.gke.cluster import (
    Drift,
    judge_cluster,
    judge_cluster_gone,
    newest_operation,
    plan_cluster_body,
    plan_cluster_drift,
)
from slipway.target import ClusterSpec, GkeCluster, NodePool
from slipway.verdict import Verdict

CLUSTER = GkeCluster(project="shop", location="us-central1-a", name="tfs-cluster")
POOL = NodePool(name="default-pool", machine_type="n1-standard-8", count=2)
SPEC = ClusterSpec(
    node_pools=(POOL,),
    release_channel="REGULAR",
    workload_identity=True,
    private_nodes=False,
    labels={"team": "vision"},
    timeout_s=1800,
)
BODY = {
    "name": "tfs-cluster",
    "release_channel": {"channel": "REGULAR"},
    "resource_labels": {"team": "vision"},
    "node_pools": [
        {
            "name": "default-pool",
            "initial_node_count": 2,
            "config": {
                "machine_type": "n1-standard-8",
                "oauth_scopes": ["https://www.googleapis.com/auth/cloud-platform"],
                "workload_metadata_config": {"mode": "GKE_METADATA"},
            },
        }
    ],
    "workload_identity_config": {"workload_pool": "shop.svc.id.goog"},
}
LINK = "https://container.googleapis.com/v1/projects/42/zones/us-central1-a/clusters/tfs-cluster"
CREATION = {
    "operation_type": "CREATE_CLUSTER",
    "status": "RUNNING",
    "target_link": LINK,
    "start_time": "2026-11-23T01:00:00Z",
}
STOCKOUT = {**CREATION, "status": "DONE", "error": {"code": 8, "message": "[GCE_STOCKOUT] no machines left"}}


def test_body_by_default():
    """Two n1-standard-8 in one zone, in the form that the provider's operator takes."""
    assert plan_cluster_body(CLUSTER, SPEC) == BODY


def test_body_if_autopilot():
    """Google manages the nodes, so the body has no pools."""
    body = plan_cluster_body(CLUSTER, replace(SPEC, node_pools=(), workload_identity=False, labels={}))
    assert body == {
        "name": "tfs-cluster",
        "release_channel": {"channel": "REGULAR"},
        "resource_labels": {},
        "autopilot": {"enabled": True},
    }


def test_body_if_the_pool_scales_and_the_endpoint_is_private_or_dns():
    """The body has the autoscaler's limits, private nodes and the kind of endpoint."""
    scaling = replace(POOL, min_count=1, max_count=4)
    private = replace(CLUSTER, endpoint="private")
    body = plan_cluster_body(private, replace(SPEC, node_pools=(scaling,), private_nodes=True))
    assert body["node_pools"][0]["autoscaling"] == {"enabled": True, "min_node_count": 1, "max_node_count": 4}
    assert body["private_cluster_config"] == {"enable_private_nodes": True, "enable_private_endpoint": True}
    dns = plan_cluster_body(replace(CLUSTER, endpoint="dns"), SPEC)
    assert dns["control_plane_endpoints_config"] == {"dns_endpoint_config": {"allow_external_traffic": True}}


def test_no_drift_if_the_cluster_is_as_the_model_file_says():
    """Fields that the model file does not set are not drift, such as labels that the provider adds."""
    found = {**BODY, "status": "RUNNING", "resource_labels": {"team": "vision", "airflow-version": "v3-3-2"}}
    assert plan_cluster_drift(CLUSTER, SPEC, found) == ()


def test_drift_names_each_field():
    """Each field that differs, with the value in the model file and the value found."""
    pool = {**BODY["node_pools"][0], "initial_node_count": 1, "autoscaling": {"enabled": True}}
    pool["config"] = {**pool["config"], "machine_type": "e2-small"}
    found = {**BODY, "release_channel": {"channel": "RAPID"}, "node_pools": [pool, {"name": "gpu"}]}
    assert plan_cluster_drift(CLUSTER, SPEC, found) == (
        Drift(field="release_channel.channel", asked="REGULAR", found="RAPID"),
        Drift(field="node_pools.gpu", asked=None, found="a pool"),
        Drift(field="node_pools.default-pool.initial_node_count", asked=2, found=1),
        Drift(field="node_pools.default-pool.config.machine_type", asked="n1-standard-8", found="e2-small"),
        Drift(field="node_pools.default-pool.autoscaling.enabled", asked=False, found=True),
    )


def test_drift_if_only_one_of_the_two_is_autopilot():
    """Autopilot instead of pools is drift; the pools of an Autopilot cluster are not, because Google manages them."""
    found = {"name": "tfs-cluster", "autopilot": {"enabled": True}, "node_pools": [{"name": "default-pool"}]}
    assert Drift(field="autopilot.enabled", asked=False, found=True) in plan_cluster_drift(CLUSTER, SPEC, found)
    asked = replace(SPEC, node_pools=(), workload_identity=False, labels={})
    assert plan_cluster_drift(CLUSTER, asked, {**found, "release_channel": {"channel": "REGULAR"}}) == ()


def test_no_drift_if_the_autoscaler_changed_the_size():
    """The autoscaler sets the number of nodes."""
    scaling = replace(POOL, min_count=1, max_count=4)
    spec = replace(SPEC, node_pools=(scaling,))
    pool = {**plan_cluster_body(CLUSTER, spec)["node_pools"][0], "initial_node_count": 4}
    assert plan_cluster_drift(CLUSTER, spec, {**BODY, "node_pools": [pool]}) == ()


WHERE = "cluster tfs-cluster in shop, us-central1-a"
JUDGED = {
    "running": ({"status": "RUNNING"}, None, Verdict.passed(f"{WHERE}: RUNNING")),
    "being created": ({"status": "PROVISIONING"}, CREATION, Verdict.wait(f"{WHERE}: PROVISIONING")),
    "being changed": ({"status": "RECONCILING"}, None, Verdict.wait(f"{WHERE}: RECONCILING")),
    "being deleted": ({"status": "STOPPING"}, None, Verdict.failed(f"{WHERE}: STOPPING: somebody is deleting it")),
    "gone": (None, CREATION, Verdict.failed(f"{WHERE}: it is gone, or was never created")),
    "never created": (None, STOCKOUT, Verdict.failed(f"{WHERE}: it was not created: [GCE_STOCKOUT] no machines left")),
    "operation failed": (
        {"status": "PROVISIONING"}, STOCKOUT, Verdict.failed(f"{WHERE}: it was not created: [GCE_STOCKOUT] no machines left")
    ),
    "error with the operation's message": (
        {"status": "ERROR", "status_message": "creation failed"}, STOCKOUT,
        Verdict.failed(f"{WHERE}: ERROR: creation failed: [GCE_STOCKOUT] no machines left"),
    ),
    "degraded with conditions": (
        {"status": "DEGRADED", "conditions": [{"message": "no nodes"}]}, None, Verdict.failed(f"{WHERE}: DEGRADED: no nodes")
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "operation", "verdict"), JUDGED.values(), ids=JUDGED)
def test_cluster_is_judged_by_its_status_and_the_operations_error(found, operation, verdict):
    """Only RUNNING passes; an operation that is DONE may have failed, and its error is in the reason."""
    assert verdict == judge_cluster(CLUSTER, found, operation)


@pytest.mark.parametrize(
    ("found", "outcome"), [(None, "pass"), ({"status": "STOPPING"}, "wait"), ({"status": "RUNNING"}, "fail")]
)
def test_name_is_free_only_if_the_cluster_is_gone(found, outcome):
    """The run waits for a deletion; a cluster that exists again was created by somebody else."""
    assert outcome == judge_cluster_gone(CLUSTER, found).outcome


def test_newest_creation_is_found_among_other_operations():
    """The newest creation of this cluster, although its link names the project by its number."""
    older = {**CREATION, "start_time": "2026-11-20T01:00:00Z"}
    other = {
        **CREATION,
        "target_link": LINK.replace("tfs-cluster", "other-tfs-cluster"),
        "start_time": "2026-11-24T01:00:00Z",
    }
    deletion = {**CREATION, "operation_type": "DELETE_CLUSTER", "start_time": "2026-11-25T01:00:00Z"}
    assert newest_operation(CLUSTER, [older, CREATION, other, deletion], "CREATE_CLUSTER") == CREATION
    assert newest_operation(CLUSTER, [deletion], "CREATE_CLUSTER") is None
