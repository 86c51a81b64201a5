"""What a preflight makes of the answers, given as Google's REST reference has them."""

from dataclasses import replace

import pytest

from slipway.errors import PreflightFailed
from slipway.gke.permissions import iam_resource, judge_apis, judge_permissions, judge_project, plan_permissions
from slipway.google_rest import GoogleAnswer
from slipway.kubernetes.rights import Right, judge_rights, kinds_of, plan_rights
from slipway.target import ClusterSpec, NodePool
from slipway.verdict import Finding, require

POOL = NodePool(name="default-pool", machine_type="n1-standard-8", count=2)
SPEC = ClusterSpec(
    node_pools=(POOL,), release_channel="REGULAR", workload_identity=True, private_nodes=False, labels={}, timeout_s=60
)
CPUS = {"n1-standard-8": 8, "n2-highmem-4": 4}
DENIED = GoogleAnswer(status=403, body={"error": {"message": "The caller does not have\npermission."}})
KINDS = (("", "Service"), ("apps", "Deployment"))


def said(findings):
    """Outcome and words of each."""
    return [(one.outcome, one.said) for one in findings]


def test_project_is_there_or_not():
    """ACTIVE is there; one that is being deleted, or that Google does not know, is not; one that may not be seen is unknown."""
    assert judge_project("shop", GoogleAnswer(status=200, body={"state": "ACTIVE"})).outcome == "ok"
    leaving = judge_project("shop", GoogleAnswer(status=200, body={"state": "DELETE_REQUESTED"}))
    assert (leaving.outcome, leaving.then) == ("missing", "gcloud projects undelete shop")
    assert judge_project("shop", GoogleAnswer(status=404, body={})).outcome == "missing"
    assert said([judge_project("shop", DENIED)]) == [
        ("warned", "project shop: could not be asked: HTTP 403: The caller does not have permission")
    ]


def test_apis_that_are_off_are_named_with_the_command_that_enables_them():
    """One that the run calls is missing; one that it may do without is a warning."""
    states = {
        "container.googleapis.com": "ENABLED",
        "compute.googleapis.com": "DISABLED",
        "iam.googleapis.com": "DISABLED",
    }
    body = {"services": [{"name": f"projects/42/services/{api}", "state": state} for api, state in states.items()]}
    found = judge_apis("shop", list(states), GoogleAnswer(status=200, body=body))
    assert said(found) == [
        ("missing", "API compute.googleapis.com is not enabled in shop"),
        ("warned", "API iam.googleapis.com is not enabled in shop"),
        ("ok", "APIs enabled in shop: container"),
    ]
    assert found[0].then == "gcloud services enable compute.googleapis.com --project shop"


def test_permissions_that_are_not_there_by_the_role_that_has_them():
    """One finding a role; to act as the nodes' account may be granted on that account alone."""
    needed = plan_permissions((), create=True, ready=True)
    had = {"permissions": [one for one in needed if "create" not in one and "actAs" not in one]}
    found = judge_permissions("project shop", needed, GoogleAnswer(status=200, body=had), grant="grant")
    assert [(one.outcome, one.then) for one in found] == [
        ("missing", "grant --role=roles/container.admin"),
        ("warned", "grant --role=roles/iam.serviceAccountUser"),
    ]
    assert found[0].said == "no permission container.clusters.create on project shop"
    assert judge_permissions("it", {"a": "r"}, GoogleAnswer(status=200, body={}), grant="g")[0].outcome == "missing"
    assert judge_permissions("it", {"a": "r"}, DENIED, grant="g")[0].outcome == "warned"


def test_permissions_follow_what_the_run_does():
    """Objects are IAM's to allow while there is no cluster to ask; a cluster that is there need not be made."""
    new = plan_permissions(KINDS, create=True, ready=False)
    assert {"container.clusters.create", "container.deployments.update", "container.services.create"} <= set(new)
    assert set(plan_permissions(KINDS, create=False, ready=True)) == {
        "container.clusters.get",
        "container.operations.list",
    }
    assert "container.clusters.delete" not in new
    assert "container.clusters.delete" in plan_permissions(KINDS, create=True, ready=False, delete=True)


def test_kinds_as_kubernetes_and_as_iam_name_them():
    """Resources are the kinds' plurals; GKE's IAM has one name for kinds that it does not know."""
    assert iam_resource("autoscaling", "HorizontalPodAutoscaler") == "horizontalPodAutoscalers"
    assert iam_resource("networking.k8s.io", "NetworkPolicy") == "networkPolicies"
    assert iam_resource("networking.k8s.io", "Ingress") == "ingresses"
    assert iam_resource("monitoring.coreos.com", "PodMonitor") == "thirdPartyObjects"
    objects = [{"apiVersion": "apps/v1", "kind": "Deployment"}, {"apiVersion": "v1", "kind": "Service"}] * 2
    assert kinds_of(objects) == (("apps", "Deployment"), ("", "Service"))


def test_rights_that_apply_needs_are_missing_and_others_a_warning():
    """Without patch nothing can be served; without delete or logs only less can be pruned or told."""
    allowed = dict.fromkeys(plan_rights(KINDS), True)
    assert judge_rights("shop", allowed, grant="g") == [
        Finding(outcome="ok", said="rights in namespace shop: all 15 that the run uses")
    ]
    allowed[Right(group="apps", resource="deployments", verb="patch")] = False
    allowed[Right(group="", resource="pods/log", verb="get", needed=False)] = False
    assert said(judge_rights("shop", allowed, grant="g")) == [
        ("missing", "no right in namespace shop to patch deployments.apps"),
        (
            "warned",
            "no right in namespace shop to get pods/log: pruning, or a failed run's diagnosis, may be incomplete",
        ),
    ]


def test_a_preview_is_asked_through_the_api_server_and_removed():
    """With a preview the proxy of Services is needed, and so is to delete what ran; without it neither is."""
    more = set(plan_rights(KINDS, preview=True)) - set(plan_rights(KINDS))
    assert {str(right) for right in more if right.needed} == {
        "create services/proxy",
        "delete deployments.apps",
        "delete services",
    }
    assert {str(right) for right in more if not right.needed} == {"get services/proxy"}
    assert "container.services.proxy" in plan_permissions(KINDS, create=True, ready=False, preview=True)
    assert "container.services.proxy" not in plan_permissions(KINDS, create=True, ready=False)


def test_one_line_names_all_that_is_missing():
    """The error holds every missing thing and the first one's command; warnings fail nothing."""
    warned, missing = Finding(outcome="warned", said="w"), Finding(outcome="missing", said="no a", then="do a")
    require("here", [warned])
    with pytest.raises(PreflightFailed, match=r"^here: no a\. Next: do a$"):
        require("here", [warned, missing])
    with pytest.raises(PreflightFailed, match=r"^here: no a; no b\. Next: do a; the log has the next step for each of "):
        require("here", [missing, replace(missing, said="no b", then="do b")])
