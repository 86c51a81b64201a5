"""The plan of a teardown: what it would delete, what else runs in the cluster, and whether the cluster may be deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from slipway.errors import ClusterInUse
from slipway.facts import Balancer, JsonObject, Teardown, from_dict
from slipway.gke.preflight import inspect_cluster_deletion
from slipway.gke.prices import cluster_shape_of_found, read_prices, standing_cost
from slipway.kubernetes.manifests import kind_rank
from slipway.kubernetes.workloads import list_workloads
from slipway.model.served import read_model_file, sharing_cluster
from slipway.names import LABEL_MODEL, dag_id, teardown_dag_id
from slipway.paths import shown_model_file
from slipway.records.history import preview_objects_of_record, read_records, records_with_previews
from slipway.records.store import Store
from slipway.steps.resolve import readable_files
from slipway.steps.settings import Settings, resolve_target
from slipway.steps.teardown import check_teardown_claim
from slipway.verdict import require_nothing_missing

REACHABLE = frozenset({"RUNNING", "RECONCILING", "DEGRADED"})  # states of a cluster whose API server may answer
SYSTEM_NAMESPACES = ("kube-", "gke-", "gmp-")  # prefixes of Kubernetes' and Google's own namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class TeardownPlan:
    """What a teardown finds before a person approves it."""

    teardown: Teardown
    status: str | None  # of the cluster; None if there is none
    cost: str | None  # what the cluster costs while it is kept
    others: tuple[str, ...]  # what else runs in the cluster, one a line
    blind: str | None  # why there may be more than `others`
    sharing: tuple[str, ...]  # other model files that name the cluster
    body: str = ""  # what the approval shows, Markdown
    own: tuple[str, ...] = ()  # the model's recorded Deployments and Services that exist, one a line

    @property
    def answers(self) -> bool:
        """Whether the cluster's API server may answer."""
        return self.status in REACHABLE


def plan_teardown_others(items: Sequence[JsonObject], teardown: Teardown) -> tuple[str, ...]:
    """What runs in the cluster other than the model's recorded objects and the system's own, one a line."""
    found = []
    for item in items:
        kind, metadata = item["kind"], item["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        labels = metadata.get("labels") or {}
        if not (
            _is_recorded(item, teardown)
            or namespace.startswith(SYSTEM_NAMESPACES)
            or (kind, namespace, name) == ("Service", "default", "kubernetes")
        ):
            whose = f", of model {labels[LABEL_MODEL]}" if LABEL_MODEL in labels else ""
            found.append(f"{_place_of(item)}{whose}")
    return tuple(sorted(found))


def plan_teardown_own(items: Sequence[JsonObject], teardown: Teardown) -> tuple[str, ...]:
    """The model's recorded Deployments and Services that exist, one a line: they serve users."""
    serving = [item for item in items if item["kind"] in {"Deployment", "Service"} and _is_recorded(item, teardown)]
    return tuple(sorted(map(_place_of, serving)))


def _is_recorded(item: JsonObject, teardown: Teardown) -> bool:
    metadata = item["metadata"]
    recorded = {(ref.kind, ref.namespace, ref.name) for ref in teardown.objects}
    ours = (metadata.get("labels") or {}).get(LABEL_MODEL) == teardown.model
    return ours and (item["kind"], metadata["namespace"], metadata["name"]) in recorded


def _place_of(item: JsonObject) -> str:
    return f"{item['kind'].lower()}/{item['metadata']['name']} in {item['metadata']['namespace']}"


def plan_teardown_balancers(items: Sequence[JsonObject]) -> tuple[Balancer, ...]:
    """The load balancers of the Services."""
    return tuple(
        Balancer(
            service=f"{item['metadata']['namespace']}/{item['metadata']['name']}",
            uid=item["metadata"]["uid"],
            address=_address(item),
        )
        for item in items
        if item["kind"] == "Service" and item["spec"].get("type") == "LoadBalancer"
    )


def _address(service: JsonObject) -> str | None:
    given: list[dict[str, str]] = (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or [{}]
    return given[0].get("ip")


def check_teardown_alone(plan: TeardownPlan, *, with_others: bool) -> None:
    """Refuse a cluster that is not only the model's, unless the form allows it. Raises ClusterInUse."""
    reasons = [f"{other} runs there" for other in plan.others]
    reasons += [f"{shown_model_file(name)} names it too" for name in plan.sharing]
    if plan.blind:
        reasons.append(f"what else runs there cannot be listed: {plan.blind}")
    if reasons and not with_others:
        raise ClusterInUse(
            f"{plan.teardown.cluster}: {'; '.join(reasons)}. Next: remove or move what is not {plan.teardown.model}'s, "
            "or trigger with the Param with_others, which deletes the cluster with everything in it"
        )


def replan_teardown(teardown: Teardown, *, approved: JsonObject | None) -> TeardownPlan:
    """The plan made again, just before the deletion; refused if it would delete more than a person approved.

    Raises ClusterInUse, ClusterUnfit and what `plan_teardown` raises.
    """
    from slipway.gke.lookup import find_cluster

    found = find_cluster(teardown.target.conn_id, teardown.cluster)
    check_teardown_claim(teardown, found)
    now = plan_cluster_teardown(teardown, found, sharing=())
    if approved:
        check_teardown_unchanged(from_dict(TeardownPlan, approved), now)
    return now


def check_teardown_unchanged(approved: TeardownPlan, now: TeardownPlan) -> None:
    """Refuse a cluster in which more runs than a person approved to delete. Raises ClusterInUse."""
    if new := sorted(set(now.others) - set(approved.others)):
        raise ClusterInUse(f"{now.teardown.cluster}: added after the approval: {'; '.join(new)}. Next: trigger again")


def check_objects_removed(plan: TeardownPlan) -> None:
    """Refuse a cluster in which the model serves: a run may have deployed it again after its objects were deleted.

    Raises ClusterInUse.
    """
    if plan.own:
        raise ClusterInUse(
            f"{plan.teardown.cluster}: {'; '.join(plan.own)} of model {plan.teardown.model} is there. "
            f"Next: clear remove_objects and what follows it, or trigger {teardown_dag_id(plan.teardown.model)} again"
        )


def render_teardown_plan(plan: TeardownPlan) -> str:
    """What a person reads before they approve, as Markdown."""
    teardown, cluster = plan.teardown, plan.teardown.cluster
    if plan.status is None:
        lines = [f"There is no {cluster}. Approve to search for leftovers."]
    else:
        objects = sorted(teardown.objects, key=lambda ref: (kind_rank(ref.kind), ref.kind, ref.name), reverse=True)
        lines = ["**Deleted, in this order:**", ""]
        lines += [f"- `{ref}` in {ref.namespace}" for ref in objects]
        lines += [f"- the load balancer of {one.service}, {one.address or 'no address'}" for one in teardown.balancers]
        lines += [f"- **{cluster}**, {plan.status}; {plan.cost}"]
    if plan.others or plan.blind or plan.sharing:
        lines += ["", f"**NOT {teardown.model}'s, AND DELETED WITH THE CLUSTER:**", ""]
        lines += [f"- {other}" for other in plan.others]
        lines += [f"- perhaps more, which cannot be listed: {plan.blind}"] if plan.blind else []
        lines += [f"- what the model file {name} deploys there" for name in plan.sharing]
    lines += [
        "",
        "Images, exports and records are kept. Forwarding rules, addresses and disks that Google leaves are listed afterwards.",
        f"The next run of `{dag_id(teardown.model)}` creates all of it again: pause the DAG if it has a schedule.",
    ]
    return "\n".join(lines)


def plan_cluster_teardown(
    teardown: Teardown, found: Mapping[str, Any] | None, *, sharing: tuple[str, ...]
) -> TeardownPlan:
    """What a teardown would delete; `found` is the cluster as Google describes it. Reads only."""
    items: list[JsonObject] = []
    blind: str | None = None
    status = str(found["status"]) if found else None
    if status in REACHABLE:
        items, blind = list_workloads(teardown.target)
    elif found:
        blind = f"the cluster is {status}"
    full = replace(teardown, balancers=plan_teardown_balancers(items))
    plan = TeardownPlan(
        teardown=full,
        status=status,
        cost=str(standing_cost(read_prices(), cluster_shape_of_found(found))) if found else None,
        others=plan_teardown_others(items, full),
        own=plan_teardown_own(items, full),
        blind=blind,
        sharing=sharing if found else (),
    )
    return replace(plan, body=render_teardown_plan(plan))


def plan_teardown(path: Path, settings: Settings, *, run_id: str) -> TeardownPlan:
    """What tearing down a model's cluster would delete. Reads only.

    Raises InputRefused, ClusterError, ApplyError, StoreError.
    """
    from slipway.gke.lookup import find_cluster

    model, file = path.stem, read_model_file(path)
    target, store = resolve_target(file.target, settings), Store(settings.store)
    records = read_records(store, model)
    live = records.history.at(target, file.target.deployment).objects
    previews = chain.from_iterable(map(preview_objects_of_record, records_with_previews(records.records, target)))
    teardown = Teardown(
        model=model,
        run_id=run_id,
        store=settings.store,
        target=target,
        deployment=file.target.deployment,
        objects=(*live, *previews),
        balancers=(),
        claim=None,
        address_timeout_s=file.address_timeout_s,
        cluster_timeout_s=file.target.gke.timeout_s if file.target.gke else 0,
    )
    found = find_cluster(target.conn_id, teardown.cluster)
    if found:
        require_nothing_missing(str(teardown.cluster), inspect_cluster_deletion(target, teardown.cluster))
    return plan_cluster_teardown(teardown, found, sharing=sharing_cluster(readable_files(path, file), model))
