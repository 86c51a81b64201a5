from types import SimpleNamespace

import pytest

from slipway.cluster import GkeCluster, NodePool
from slipway.errors import InputRefused
from slipway.gke import limited
from slipway.model_file import check_unshared, parse_model_file
from slipway.resolve import Settings, find_target
from slipway.target import Target

GATE = {"golden": [{"name": "three", "image": "three.png", "label": "3"}]}
SETTINGS = Settings(store="file:///store", registry="r", serving_image=None)
OTHER = GkeCluster(project="shop", location="europe-west4", name="big")


def file_with(target):
    """A model file with this target."""
    return parse_model_file({"source": {"folder": "x"}, "target": target, "gate": GATE}, where="x.yaml")


def test_target_gke_alone_is_the_seeds_cluster():
    """`target: gke` means tfs-cluster in us-central1-a with two n1-standard-8."""
    gke = file_with("gke").target.gke
    assert (gke.cluster, gke.location, gke.conn_id) == ("tfs-cluster", "us-central1-a", "google_cloud_default")
    assert gke.spec.node_pools == (NodePool(name="default-pool", machine_type="n1-standard-8", count=2),)


def test_autopilot_has_no_pools():
    """An Autopilot cluster's nodes are Google's."""
    assert file_with({"gke": {"autopilot": True}}).target.gke.spec.node_pools == ()


REFUSED = {
    "two clusters": ({"conn_id": "mine", "gke": {}}, "conn_id and gke name two clusters"),
    "pools of Autopilot": ({"gke": {"autopilot": True, "node_pools": [{}]}}, "autopilot has no node_pools"),
    "one limit": ({"gke": {"node_pools": [{"max_count": 3}]}}, "min_count and max_count go together"),
    "count out of limits": (
        {"gke": {"node_pools": [{"count": 5, "min_count": 1, "max_count": 3}]}},
        "count 5 is not between",
    ),
    "no place": ({"gke": {"location": "somewhere"}}, "target.gke.location"),
    "no pools": ({"gke": {"node_pools": []}}, "target.gke.node_pools"),
    "misspelt": ({"gke": {"zone": "us-central1-a"}}, "target.gke.zone"),
}


@pytest.mark.parametrize(("target", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line_if_it_cannot_be_meant(target, words):
    """A cluster that cannot be meant is refused, naming the field, before anything is asked of Google."""
    with pytest.raises(InputRefused, match=words) as refusal:
        file_with(target)
    assert "\n" not in str(refusal.value)


def test_two_files_may_share_a_cluster_but_no_deployment():
    """Whether two files write one object is told by Google's cluster as well."""
    one, same, elsewhere = (file_with({"gke": {"cluster": name}}) for name in ("a-cluster", "a-cluster", "other"))
    check_unshared({"one": one, "elsewhere": elsewhere})
    with pytest.raises(InputRefused, match="is written by"):
        check_unshared({"one": one, "same": same})


NAMESPACES = {
    "the file's": ({"namespace": "shop"}, "attic", "shop"),
    "the Variable's": ({}, "attic", "attic"),
    "none": ({}, None, "default"),
}


@pytest.mark.parametrize(("fields", "variable", "namespace"), NAMESPACES.values(), ids=NAMESPACES)
def test_namespace_is_the_files_the_variables_or_default(fields, variable, namespace):
    """A Google connection names no namespace: model file, Variable, `default`, in this order."""
    asked = {"gke": {"project": "shop", "location": "europe-west4", "cluster": "big"}, **fields}
    settings = Settings(store="file:///store", registry="r", serving_image=None, namespace=variable)
    target = find_target(file_with(asked).target, settings)
    assert target == Target(kind="gke", conn_id="google_cloud_default", namespace=namespace, gke=OTHER)


def test_refused_if_the_connection_is_missing():
    """Without a project in the file the connection has to name one, and one that is missing is named."""
    with pytest.raises(InputRefused, match=r"^connection nobody: there is none\. Next: create it"):
        find_target(file_with({"gke": {"conn_id": "nobody"}}).target, SETTINGS)


@pytest.mark.parametrize(("given", "limit"), [({}, 30), ({"_request_timeout": None}, 30), ({"_request_timeout": 5}, 5)])
def test_every_request_has_a_limit(given, limit):
    """The provider's client has none of its own: discovery would wait for ever."""
    client = SimpleNamespace(call_api=lambda *_, **options: options["_request_timeout"])
    assert limit == limited(client).call_api("GET", "/version", **given)


@pytest.mark.parametrize("calls", [1, 3])
def test_token_is_made_anew_if_it_has_expired(calls, monkeypatch):
    """A client that outlives its token of an hour asks for another before its next request."""
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEClusterConnection

    class Account:
        """Credentials whose token has always expired."""

        token, expired, made = "t0", True, 0

        def refresh(self, _request):
            self.made += 1
            self.token = f"t{self.made}"

    account = Account()
    client = GKEClusterConnection("https://127.0.0.1:1", "Y2E=", account).get_conn()
    for _ in range(calls):
        header = client.configuration.auth_settings()["BearerToken"]["value"]
    assert header == f"Bearer t{account.made}"
    assert account.made >= calls
