import json

import pytest

from slipway.facts import Balancer, ObjectRef, Teardown
from slipway.gke.leftovers import Leftover, balancer_name, plan_leftovers
from slipway.target import GkeCluster, Target

CLUSTER = GkeCluster(project="shop", location="us-central1-a", name="tfs")
UID = "0f9b6c1e-7c44-4b3b-9d5a-3f1d2c4b5a69"
BALANCER = Balancer(service="vision/tfs-server", uid=UID, address="203.0.113.7")
NAME = "a0f9b6c1e7c444b3b9d5a3f1d2c4b5a6"
TEARDOWN = Teardown(
    model="digits-vit",
    run_id="manual__down",
    store="file:///store",
    target=Target(kind="gke", conn_id="google_cloud_default", namespace="vision", gke=CLUSTER),
    deployment="tfs-server",
    objects=(ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="vision"),),
    balancers=(BALANCER,),
    claim=None,
    address_timeout_s=600,
    cluster_timeout_s=1800,
)
OF_SERVICE = json.dumps({"kubernetes.io/service-name": "vision/tfs-server"})
OF_CLAIM = json.dumps(
    {"kubernetes.io/created-for/pvc/name": "cache", "kubernetes.io/created-for/pvc/namespace": "vision"}
)

CASES = {
    "by the Service's uid": ("forwarding-rules", {"name": NAME}, True),
    "by its address": ("forwarding-rules", {"name": "k8s2-tcp-x", "description": OF_SERVICE, "IPAddress": "203.0.113.7"}, True),
    "by its name alone": ("forwarding-rules", {"name": "k8s2-tcp-x", "description": OF_SERVICE}, False),
    "by another Service's name": (
        "forwarding-rules",
        {"name": "k8s2-tcp-x", "description": json.dumps({"networking.gke.io/service-name": "vision/other"})},
        None,
    ),
    "a plain text description": ("forwarding-rules", {"name": "web", "description": "the shop's front door"}, None),
    "no description": ("forwarding-rules", {"name": "web"}, None),
    "a target pool": ("target-pools", {"name": NAME}, True),
    "an address": ("addresses", {"name": "k8s-x", "description": OF_SERVICE, "address": "203.0.113.7"}, True),
    "a labelled disk": ("disks", {"name": "pvc-1", "labels": {"goog-k8s-cluster-name": "tfs"}}, True),
    "another location's disk": (
        "disks",
        {"name": "pvc-1", "labels": {"goog-k8s-cluster-name": "tfs", "goog-k8s-cluster-location": "europe-west4"}},
        None,
    ),
    "another cluster's disk": ("disks", {"name": "gke-tfs-two-1", "labels": {"goog-k8s-cluster-name": "tfs-two"}}, None),
    "a node's disk": ("disks", {"name": "gke-tfs-default-pool-1a2b"}, False),
    "a volume's disk": ("disks", {"name": "pvc-2", "description": OF_CLAIM}, False),
    "a disk in use": ("disks", {"name": "gke-tfs-default-pool-1a2b", "users": ["…/instances/gke-tfs-1"]}, None),
    "an unrelated disk": ("disks", {"name": "backup"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "item", "sure"), CASES.values(), ids=CASES)
def test_leftovers_are_identified_by_what_gke_writes_on_them(kind, item, sure):
    """Sure by uid, address or label; not sure by name only; otherwise not a leftover of this cluster."""
    resource = {"forwarding-rules": "forwardingRules", "target-pools": "targetPools"}.get(kind, kind)
    found = plan_leftovers({kind: {"regions/us-central1": {resource: [item]}}}, TEARDOWN)
    assert [one.sure for one in found] == ([] if sure is None else [sure])


def leftover(**changes):
    """A forwarding rule that Google still has."""
    return Leftover(
        **{
            "kind": "forwarding-rules", "name": NAME, "place": "--region us-central1", "project": "shop", "why": "w", "sure": True,
            **changes,
        }
    )  # fmt: skip


def test_command_deletes_only_if_sure():
    """The command only shows what may belong to another cluster."""
    assert leftover().command == f"gcloud compute forwarding-rules delete {NAME} --region us-central1 --project shop"
    assert leftover(sure=False).command.startswith("gcloud compute forwarding-rules describe ")


@pytest.mark.parametrize(
    ("scope", "place"),
    [
        ("global", "--global"),
        ("regions/us-central1", "--region us-central1"),
        ("zones/us-central1-a", "--zone us-central1-a"),
    ],
)
def test_place_is_a_gcloud_flag(scope, place):
    """The scope of a resource becomes a flag of the command."""
    [found] = plan_leftovers({"forwarding-rules": {scope: {"forwardingRules": [{"name": NAME}]}}}, TEARDOWN)
    assert found.place == place


def test_empty_scopes_are_skipped():
    """Compute Engine lists every region and zone, most of them with a warning that they are empty."""
    assert plan_leftovers({"disks": {"zones/x": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}}, TEARDOWN) == ()


def test_name_of_a_load_balancer():
    """`a` and the Service's uid without dashes, cut to 32 characters."""
    assert balancer_name(BALANCER) == NAME
    assert len(NAME) == 32
