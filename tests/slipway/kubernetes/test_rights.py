import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import slipway
from slipway.facts import ObjectRef
from slipway.kubernetes.rights import (
    APPLY_VERBS,
    Right,
    inspect_rights,
    judge_rights,
    kinds_of_objects,
    kinds_of_refs,
    plan_rights,
)
from slipway.release import Bake, Gate, LoadBounds, PrometheusQueries
from slipway.verdict import Finding

KINDS = (("", "Service"), ("apps", "Deployment"))


def said(findings):
    """Outcome and message of each finding."""
    return [(one.outcome, one.said) for one in findings]


def test_kinds_are_listed_once_in_order():
    """Each kind of manifest with its group, in the order of the manifests."""
    objects = [{"apiVersion": "apps/v1", "kind": "Deployment"}, {"apiVersion": "v1", "kind": "Service"}] * 2
    assert kinds_of_objects(objects) == (("apps", "Deployment"), ("", "Service"))


def test_lacking_rights_are_missing_or_a_warning():
    """Apply needs `patch`; without logs the run only reports less."""
    allowed = dict.fromkeys(plan_rights(KINDS), True)
    assert judge_rights("shop", allowed, grant="g") == [
        Finding(outcome="ok", said="rights in namespace shop: all 16 that the run uses")
    ]
    allowed[Right(group="apps", resource="deployments", verb="patch")] = False
    allowed[Right(group="", resource="pods/log", verb="get", needed=False)] = False
    assert said(judge_rights("shop", allowed, grant="g")) == [
        ("missing", "no right in namespace shop to patch deployments.apps"),
        ("warned", "no right in namespace shop to get pods/log: a failed run's diagnosis may be incomplete"),
    ]


def test_previews_need_the_services_proxy():
    """A preview is reached through the Services' proxy; without previews that right is not needed."""
    more = set(plan_rights(KINDS, preview=True)) - set(plan_rights(KINDS))
    assert {str(right) for right in more if right.needed} == {"create services/proxy"}


def test_a_bake_needs_the_pods_proxy():
    """The servers' metrics are read through it; without a bake, or with a Prometheus, that right is not needed."""
    more = set(plan_rights(KINDS, metrics=True)) - set(plan_rights(KINDS))
    assert {str(right) for right in more if right.needed} == {"get pods/proxy"}
    queries = PrometheusQueries(conn_id="p", errors="e")
    assert [Gate(bake=bake).reads_pods for bake in (Bake(), Bake(prometheus=queries), None)] == [True, False, False]


def test_a_load_over_grpc_forwards_ports_of_pods():
    """Only then: an API server asks for the verb of the websocket's GET, and a newer one also for `create`."""
    more = set(plan_rights(KINDS, forwards=True)) - set(plan_rights(KINDS))
    assert {str(right) for right in more if right.needed} == {"get pods/portforward", "create pods/portforward"}
    loads = (LoadBounds(rate_per_s=1, grpc_share=0.5), LoadBounds(rate_per_s=1), None)
    assert [Gate(load=load).forwards_grpc for load in loads] == [True, False, False]


def test_a_preview_that_is_the_smoke_test_forwards_ports_too(release):
    """It is asked over gRPC; the releases of an engine, and of a temporary cluster without a preview, are not."""
    kinds = (("engine", "preview"), ("registry", "preview"), ("registry", "rolling"))
    found = [replace(release, builder=builder, strategy=strategy).forwards_grpc for builder, strategy in kinds]
    assert found == [False, True, False]


def test_the_connection_is_asked_about_port_forwards_if_the_model_file_needs_them(release, http_server, connected):
    """One access review for each verb, and none without a share of gRPC."""
    server = http_server((200, json.dumps({"metadata": {"uid": "u"}, "spec": {}, "status": {"allowed": True}})))
    connected(server)
    for share, verbs in ((0, []), (0.5, ["get", "create"])):
        del server.seen[:]
        inspect_rights(replace(release, gate=Gate(load=LoadBounds(rate_per_s=1, grpc_share=share))), [])
        reviews = [json.loads(seen.body)["spec"]["resourceAttributes"] for seen in server.seen if seen.method == "POST"]
        assert [one["verb"] for one in reviews if one.get("subresource") == "portforward"] == verbs


@pytest.mark.parametrize("preview", [False, True])
def test_deleting_is_needed_for_every_kind(preview):
    """The `batching` overlay's ConfigMap is in the preview, and is pruned when its content changes: both need the right."""
    rights = plan_rights((*KINDS, ("", "ConfigMap")), preview=preview)
    assert Right(group="", resource="configmaps", verb="delete") in rights


def test_an_object_that_is_only_pruned_is_read_and_deleted():
    """An overlay that drops its PodDisruptionBudget still has to delete the one of the last release."""
    refs = (
        ObjectRef(api_version="policy/v1", kind="PodDisruptionBudget", name="a", namespace="shop"),
        ObjectRef(api_version="v1", kind="Service", name="a", namespace="shop"),
    )
    more = set(plan_rights(KINDS, dropped=kinds_of_refs(refs))) - set(plan_rights(KINDS))
    assert {str(right) for right in more if right.needed} == {
        "get poddisruptionbudgets.policy",
        "delete poddisruptionbudgets.policy",
    }


VERBS = {"read": "get", "replace": "update"}  # the client's word, where it is not Kubernetes' verb
GROUPS = {"deployment": "apps", "replica_set": "apps", "lease": "coordination.k8s.io"}
CALL = re.compile(r"\.(read|list|create|patch|replace|delete)_namespaced_(\w+)")


def used_rights():
    """The rights of all calls in the code that name a namespaced resource. What a manifest or record names, `apply` handles.

    An export in a pod has a connection and rights of its own.
    """
    found = set()
    for path in Path(slipway.__file__).parent.rglob("*.py"):
        if path.name == "export_pod.py":
            continue
        for verb, name in CALL.findall(path.read_text()):
            resource, group = name.replace("pod_log", "pods/log"), GROUPS.get(name)
            plural = resource if "/" in resource else f"{resource.replace('_', '')}s"
            found.add(f"{VERBS.get(verb, verb)} {plural}{f'.{group}' if group else ''}")
    return found


def test_plan_checks_exactly_the_rights_that_the_code_uses():
    """Each call of the Kubernetes client needs a right that `plan` asks for, and it asks for no other.

    Only a sweep reads PodMetrics, the one custom object, and it can do without.
    """
    applied = {str(right) for right in plan_rights(KINDS) if right.resource in {"deployments", "services"}}
    others = {str(right) for right in plan_rights(KINDS)} - applied
    assert used_rights() - applied - {"list customobjects"} == others
    assert {"get deployments.apps", "get services"} <= used_rights() & applied


def test_applying_uses_these_verbs():
    """`apply` reads, applies and deletes whatever the manifests have: server-side apply is create and patch."""
    text = (Path(slipway.__file__).parent / "kubernetes/apply.py").read_text()
    calls = set(re.findall(r"_resource\(client, ref\)\.(\w+)\(|client\.(server_side_apply)\(", text))
    assert {a or b for a, b in calls} == {"get", "create", "delete", "server_side_apply"}
    assert list(APPLY_VERBS) == ["get", "create", "patch", "delete"]
