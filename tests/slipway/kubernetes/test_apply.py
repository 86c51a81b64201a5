import json

import pytest

from slipway.errors import ApplyRefused, ClusterUnreachable, FieldOwnedElsewhere, NamespaceMissing
from slipway.facts import ObjectRef
from slipway.kubernetes.api import api_refusal
from slipway.kubernetes.apply import apply_plan, dry_run_plan, object_ref_of, plan_apply
from slipway.kubernetes.manifests import KIND_ORDER, apply_rank
from slipway.names import LABEL_MODEL
from slipway.target import Target

TARGET = Target(conn_id="kubernetes_default", namespace="shop")


def manifest(kind, name="tfs-server", namespace="shop", api_version="v1"):
    """A minimal manifest."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def ref(kind, name="tfs-server", namespace="shop", api_version="v1"):
    """The object as a record lists it."""
    return ObjectRef(api_version=api_version, kind=kind, name=name, namespace=namespace)


def test_applied_in_the_order_given():
    """The plan keeps the order of the rendered manifests."""
    objects = [manifest("Service"), manifest("Deployment"), manifest("HorizontalPodAutoscaler")]
    assert tuple(objects) == plan_apply(objects, ()).apply


def test_nothing_pruned_if_nothing_was_removed():
    """An object that is rendered again is kept, whatever API version the record names."""
    objects = [manifest("Service"), manifest("Deployment", api_version="apps/v1")]
    before = (ref("Service"), ref("Deployment", api_version="apps/v1beta1"))
    assert plan_apply(objects, before).prune == ()
    assert plan_apply(objects, ()).prune == ()


GONE = {
    "dropped": ref("ConfigMap"),
    "renamed": ref("Service", name="tfs-old"),
    "in another namespace": ref("Service", namespace="old"),
}


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
def test_pruned_if_the_record_lists_it_and_the_manifests_do_not(gone):
    """Kind, name and namespace identify an object."""
    assert (gone,) == plan_apply([manifest("Service")], (ref("Service"), gone)).prune


def test_pruned_in_reverse_order():
    """The last applied object is deleted first; so are unknown kinds."""
    kinds = ["ServiceMonitor", "Alert", *KIND_ORDER]
    applied = sorted((manifest(kind, name) for kind in kinds for name in ("a", "b")), key=apply_rank)
    before = [object_ref_of(each) for each in applied]
    assert tuple(reversed(before)) == plan_apply([], tuple(sorted(before, key=str))).prune


def test_object_that_a_manifest_describes():
    """A manifest's reference has kubectl's name for the object."""
    found = object_ref_of(manifest("Deployment", api_version="apps/v1"))
    assert found == ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")
    assert str(found) == "deployment/tfs-server"
    assert object_ref_of({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}).namespace == ""


def status_body(message, **details):
    """A Status object as the API server sends it."""
    return json.dumps({"kind": "Status", "message": message, "details": details})


CONFLICT = status_body(
    'Apply failed with 1 conflict: conflict with "kubectl-edit"',
    causes=[
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using apps/v1',
            "field": '.spec.template.spec.containers[name="tfs-k8s"].image',
        }
    ],
)
WHERE = "deployment/tfs-server in shop"
REFUSALS = {
    "field owned elsewhere": (409, CONFLICT, FieldOwnedElsewhere, '.spec.template.spec.containers[name="tfs-k8s"].image: conflict with "kubectl-edit"'),
    "conflict without owners": (409, status_body("the object has been modified"), ApplyRefused, "HTTP 409: the object has been modified"),
    "forbidden": (403, status_body('deployments.apps "tfs-server" is forbidden'), ApplyRefused, 'HTTP 403: deployments.apps "tfs-server" is forbidden'),
    "invalid": (422, status_body('Deployment.apps "tfs-server" is invalid:\n spec: Required value'), ApplyRefused, 'HTTP 422: Deployment.apps "tfs-server" is invalid: spec: Required value'),
    "no namespace": (404, status_body('namespaces "shop" not found'), NamespaceMissing, 'HTTP 404: namespaces "shop" not found'),
    "no such object": (404, status_body('services "a" not found'), ApplyRefused, 'HTTP 404: services "a" not found'),
    "unauthorized": (401, status_body("Unauthorized"), ApplyRefused, "HTTP 401: Unauthorized"),
    "server error": (500, status_body("etcdserver: request timed out"), ClusterUnreachable, "HTTP 500: etcdserver: request timed out"),
    "unavailable": (503, b"upstream\n gone", ClusterUnreachable, "HTTP 503: upstream gone"),
    "too many requests": (429, status_body("slow down"), ClusterUnreachable, "HTTP 429: slow down"),
    "no answer": (0, None, ClusterUnreachable, "HTTP 0: no reason given"),
    "no status": (None, None, ClusterUnreachable, "HTTP None: no reason given"),
    "not JSON": (403, "<html>\nno</html>", ApplyRefused, "HTTP 403: <html> no</html>"),
    "JSON, but not a Status": (403, "[1]", ApplyRefused, "HTTP 403: [1]"),
    "no details": (409, '{"message": "busy", "details": null}', ApplyRefused, "HTTP 409: busy"),
    "bytes": (403, status_body("no").encode(), ApplyRefused, "HTTP 403: no"),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "words"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_of_an_api_server(status, body, kind, words):
    """A refusal becomes one line: where, the server's message, what next; a temporary one can be retried."""
    error = api_refusal(TARGET, "deployment/tfs-server", status, body)
    message = str(error)
    assert type(error) is kind
    assert "\n" not in message
    assert message.startswith(f"{WHERE}: {words}")
    assert ". Next: " in message
    assert error.worth_retrying is (kind is ClusterUnreachable)


def test_conflict_names_the_command_that_shows_field_owners():
    """The next command of a conflict shows who owns which field."""
    message = str(api_refusal(TARGET, "deployment/tfs-server", 409, CONFLICT))
    assert message.endswith("kubectl -n shop get deployment/tfs-server -o yaml --show-managed-fields")


ELSEWHERE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "other", "labels": {LABEL_MODEL: "digits-vit"}},
}


@pytest.mark.parametrize(
    "apply", [lambda *given: apply_plan(*given, check=lambda: None), dry_run_plan], ids=["apply", "plan"]
)
def test_a_cluster_scoped_object_is_refused(api_server, release, apply):
    """The API server knows which kinds are: a Variable may have added one to overlays. Nothing is written."""
    with pytest.raises(ApplyRefused, match=r"^namespace/other: Namespace is cluster-scoped, .*\. Next: remove it"):
        apply(release, plan_apply([ELSEWHERE], ()))
    assert api_server.writes == []


def test_a_cluster_scoped_object_that_exists_does_not_stop_a_rollback(api_server, release):
    """An earlier Slipway applied it with a release, and that release may be the one to go back to."""
    live = {**ELSEWHERE, "metadata": {**ELSEWHERE["metadata"], "uid": "u", "generation": 1}}
    api_server.objects["/api/v1/namespaces/other"] = live
    apply_plan(release, plan_apply([ELSEWHERE], ()), check=lambda: None)
    assert api_server.writes == ["PATCH /api/v1/namespaces/other"]
