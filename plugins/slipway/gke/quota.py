"""What a new cluster needs of Compute Engine's quotas and machine types, and whether it is available. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slipway.facts import JsonObject
from slipway.gke.permissions import permissions_not_asked
from slipway.google_rest import NOT_FOUND, GoogleAnswer
from slipway.target import ClusterSpec, NodePool
from slipway.verdict import Finding

ZONES_OF_A_REGION = 3  # GKE's default for the nodes of a regional cluster
BOOT_DISK_GB = 100  # GKE's default, a balanced persistent disk, which counts as SSD
SHARED_CPUS = frozenset({"n1", "e2", "f1", "g1"})  # families that share the quota CPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An amount of a quota that a cluster needs."""

    metric: str  # as Compute Engine names it
    amount: int
    what: str


def plan_quota_needs(spec: ClusterSpec, cpus: Mapping[str, int], *, regional: bool) -> list[Need]:
    """What a new cluster needs of the regional quotas; `cpus` has the CPUs of the machine types that are known."""
    times = ZONES_OF_A_REGION if regional else 1
    needs: dict[str, Need] = {}
    for pool in spec.node_pools:
        nodes = pool.count * times
        what = f"{nodes} {pool.machine_type}"
        takes = {"INSTANCES": nodes, "SSD_TOTAL_GB": nodes * BOOT_DISK_GB}
        if not spec.private_nodes:
            takes["IN_USE_ADDRESSES"] = nodes
        if pool.machine_type in cpus:
            takes[cpu_quota_metric(pool)] = nodes * cpus[pool.machine_type]
        for metric, amount in takes.items():
            so_far = needs.get(metric)
            needs[metric] = Need(
                metric=metric,
                amount=amount + (so_far.amount if so_far else 0),
                what=f"{so_far.what}, {what}" if so_far else what,
            )
    return list(needs.values())


def cpu_quota_metric(pool: NodePool) -> str:
    """The quota that counts the CPUs of a pool's machine type."""
    family = pool.machine_type.partition("-")[0]
    return "CPUS" if family in SHARED_CPUS else f"{family.upper()}_CPUS"


def plan_quota_everywhere(needs: Iterable[Need]) -> list[Need]:
    """What the same cluster needs of the project's CPU quota for all regions."""
    counted = [need for need in needs if re.fullmatch(r"(\w+_)?CPUS", need.metric)]
    amount, what = sum(need.amount for need in counted), ", ".join(need.what for need in counted)
    return [Need(metric="CPUS_ALL_REGIONS", amount=amount, what=what)] if counted else []


def judge_quota(where: str, project: str, needs: Iterable[Need], answer: GoogleAnswer) -> list[Finding]:
    """Whether each quota has enough left; a quota that the answer does not list is a warning."""
    if answer.refusal is not None:
        return [permissions_not_asked(f"quota of {where}", answer)]
    quotas = {str(one["metric"]): one for one in answer.body.get("quotas") or ()}
    return [_judge_need(where, project, need, quotas.get(need.metric)) for need in needs]


def _judge_need(where: str, project: str, need: Need, quota: JsonObject | None) -> Finding:
    asked = f"quota {need.metric} of {where}: {need.amount} for {need.what}"
    if quota is None:
        return Finding(outcome="warned", said=f"{asked}: could not be asked: it is not listed")
    free = quota["limit"] - quota.get("usage", 0)
    left = f"{free:g} of {quota['limit']:g} are free"
    if need.amount <= free:
        return Finding(outcome="ok", said=f"{asked}: {left}")
    more = f"request more at https://console.cloud.google.com/iam-admin/quotas?project={project}, or ask for less in target.gke"
    return Finding(outcome="missing", said=f"{asked}: {left}", then=more)


def judge_machine_type(name: str, zone: str, answer: GoogleAnswer) -> list[Finding]:
    """A finding if the zone lacks a machine type, or if its CPUs could not be asked."""
    if answer.status == NOT_FOUND:
        then = f"gcloud compute machine-types list --zones {zone}; fix target.gke.node_pools"
        return [Finding(outcome="missing", said=f"machine type {name}: there is none in {zone}", then=then)]
    return [] if answer.refusal is None else [permissions_not_asked(f"CPUs of machine type {name}", answer)]
