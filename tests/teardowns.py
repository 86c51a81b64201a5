"""A teardown of a cluster in the stand's emulator of Google: what it is about, and how a test runs its tasks."""

import json

from google_clock import run_task

from slipway.dag.tasks.teardown import DeleteClusterOperator
from slipway.facts import Balancer, ObjectRef
from slipway.target import GkeCluster, Target

CLUSTER = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
PATH = CLUSTER.path
TARGET = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
BALANCER = Balancer(service="shop/tfs-server", uid="0f9b-11", address="203.0.113.7")


def put(google, status, **fields):
    """Make a cluster with this status exist."""
    from google.cloud.container_v1.types import Cluster

    google.put(PATH, Cluster.from_json(json.dumps({"status": status, **fields})))


def delete(google, context, **options):
    """Run the task that deletes the cluster from start to end; its result."""
    return run_task(google, DeleteClusterOperator(task_id="delete_cluster"), context, **options)


def running(kind, name, model="digits-vit"):
    """An object in the cluster."""
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "labels": {"slipway/model": model}},
        "spec": {},
    }
