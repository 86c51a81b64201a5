from dataclasses import replace

import pytest

from slipway.gke.quota import Need, cpu_quota_metric, judge_quota, plan_quota_everywhere, plan_quota_needs
from slipway.google_rest import GoogleAnswer
from slipway.model.target_settings import GkeSettings
from slipway.target import NodePool

POOL = NodePool(name="default-pool", machine_type="n1-standard-8", count=2)
SPEC = GkeSettings().spec
CPUS = {"n1-standard-8": 8, "n2-highmem-4": 4}


def test_needs_of_the_default_cluster():
    """Two n1-standard-8: 16 CPUs, two nodes, each with an address and a boot disk."""
    needs = {need.metric: need.amount for need in plan_quota_needs(SPEC, CPUS, regional=False)}
    assert needs == {"INSTANCES": 2, "SSD_TOTAL_GB": 200, "IN_USE_ADDRESSES": 2, "CPUS": 16}


def test_needs_of_a_regional_cluster_with_private_nodes():
    """Nodes count in each of three zones, private nodes need no address, and families have separate quotas."""
    pools = (POOL, replace(POOL, name="mem", machine_type="n2-highmem-4", count=1))
    needs = plan_quota_needs(replace(SPEC, node_pools=pools, private_nodes=True), CPUS, regional=True)
    assert {need.metric: need.amount for need in needs} == {
        "INSTANCES": 9, "SSD_TOTAL_GB": 900, "CPUS": 48, "N2_CPUS": 12,
    }  # fmt: skip
    assert needs[0].what == "6 n1-standard-8, 3 n2-highmem-4"
    assert plan_quota_everywhere(needs)[0].amount == 60


@pytest.mark.parametrize(("machine_type", "metric"), [("e2-standard-4", "CPUS"), ("c3-standard-4", "C3_CPUS")])
def test_cpu_quota_of_a_machine_type(machine_type, metric):
    """E2 and N1 share the quota CPUS; every other family has its own."""
    assert cpu_quota_metric(replace(POOL, machine_type=machine_type)) == metric


QUOTA = {"quotas": [{"metric": "CPUS", "limit": 24.0, "usage": 16.0}]}


@pytest.mark.parametrize(("amount", "outcome"), [(8, "ok"), (9, "missing")])
def test_quota_is_ok_or_missing(amount, outcome):
    """Only what is free counts; exactly what is free is enough."""
    [found] = judge_quota(
        "region r", "shop", [Need(metric="CPUS", amount=amount, what="nodes")], GoogleAnswer(status=200, body=QUOTA)
    )
    assert (found.outcome, found.said) == (outcome, f"quota CPUS of region r: {amount} for nodes: 8 of 24 are free")


def test_quota_that_is_not_listed_is_a_warning():
    """A region does not list the quotas of newer families."""
    [found] = judge_quota(
        "r", "shop", [Need(metric="C4_CPUS", amount=1, what="x")], GoogleAnswer(status=200, body=QUOTA)
    )
    assert found.outcome == "warned"
