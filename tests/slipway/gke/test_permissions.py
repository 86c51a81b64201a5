"""Verdicts on Google's answers, which are given as in Google's REST reference."""

from slipway.gke.permissions import (
    iam_resource,
    judge_google_apis,
    judge_google_project,
    judge_permissions,
    plan_permissions,
)
from slipway.google_rest import GoogleAnswer

DENIED = GoogleAnswer(status=403, body={"error": {"message": "The caller does not have\npermission."}})
KINDS = (("", "Service"), ("apps", "Deployment"))


def said(findings):
    """Outcome and message of each finding."""
    return [(one.outcome, one.said) for one in findings]


def test_project_exists_or_not():
    """ACTIVE is ok; being deleted or not found is missing; a refusal is a warning."""
    assert judge_google_project("shop", GoogleAnswer(status=200, body={"state": "ACTIVE"})).outcome == "ok"
    deleted = judge_google_project("shop", GoogleAnswer(status=200, body={"state": "DELETE_REQUESTED"}))
    assert (deleted.outcome, deleted.then) == ("missing", "gcloud projects undelete shop")
    assert judge_google_project("shop", GoogleAnswer(status=404, body={})).outcome == "missing"
    assert said([judge_google_project("shop", DENIED)]) == [
        ("warned", "project shop: could not be asked: HTTP 403: The caller does not have permission")
    ]


def test_disabled_apis_are_named_with_the_command_that_enables_them():
    """An API that the run needs is missing; an API that it may do without is a warning."""
    states = {
        "container.googleapis.com": "ENABLED",
        "compute.googleapis.com": "DISABLED",
        "iam.googleapis.com": "DISABLED",
    }
    body = {"services": [{"name": f"projects/42/services/{api}", "state": state} for api, state in states.items()]}
    found = judge_google_apis("shop", list(states), GoogleAnswer(status=200, body=body))
    assert said(found) == [
        ("missing", "API compute.googleapis.com is not enabled in shop"),
        ("warned", "API iam.googleapis.com is not enabled in shop"),
        ("ok", "APIs enabled in shop: container"),
    ]
    assert found[0].then == "gcloud services enable compute.googleapis.com --project shop"


def test_missing_permissions_are_grouped_by_role():
    """One finding per role. `actAs` is only a warning, because it may be granted on the nodes' account alone."""
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


def test_permissions_depend_on_what_the_run_does():
    """Permissions on objects are needed only if there is no cluster to ask, `create` only if the run creates one."""
    new = plan_permissions(KINDS, create=True, ready=False)
    assert {"container.clusters.create", "container.deployments.update", "container.services.create"} <= set(new)
    assert {"container.replicaSets.list", "container.services.delete"} <= set(new)
    assert set(plan_permissions(KINDS, create=False, ready=True)) == {
        "container.clusters.get",
        "container.operations.list",
    }
    assert "container.clusters.delete" not in new
    assert "container.clusters.delete" in plan_permissions(KINDS, create=True, ready=False, delete=True)


def test_a_namespace_is_created_and_never_deleted():
    """The run creates the namespace of a new cluster, and asks for no more than that."""
    kinds = plan_permissions([("", "Namespace")], create=True, ready=False)
    assert {one for one in kinds if "namespaces" in one} == {"container.namespaces.get", "container.namespaces.create"}


def test_iam_resource_of_a_kind():
    """The plural of the kind; IAM has one name for all kinds that GKE does not know."""
    assert iam_resource("autoscaling", "HorizontalPodAutoscaler") == "horizontalPodAutoscalers"
    assert iam_resource("networking.k8s.io", "NetworkPolicy") == "networkPolicies"
    assert iam_resource("networking.k8s.io", "Ingress") == "ingresses"
    assert iam_resource("monitoring.coreos.com", "PodMonitor") == "thirdPartyObjects"


def test_previews_need_the_services_proxy_permission():
    """With a preview the run reaches Services through the API server's proxy; without one it does not."""
    assert "container.services.proxy" in plan_permissions(KINDS, create=True, ready=False, preview=True)
    assert "container.services.proxy" not in plan_permissions(KINDS, create=True, ready=False)


def test_a_bake_needs_the_pods_proxy():
    """IAM's name for it, without a cluster that could be asked."""
    assert "container.pods.proxy" in plan_permissions(KINDS, create=True, ready=False, metrics=True)
    assert "container.pods.proxy" not in plan_permissions(KINDS, create=True, ready=False)


def test_a_load_over_grpc_needs_the_port_forward():
    """IAM's name for it."""
    assert "container.pods.portForward" in plan_permissions(KINDS, create=True, ready=False, forwards=True)
    assert "container.pods.portForward" not in plan_permissions(KINDS, create=True, ready=False)
