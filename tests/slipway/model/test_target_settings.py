import pytest

from slipway.errors import InputRefused
from slipway.model.served import check_unshared, parse_model_file
from slipway.target import NodePool

GATE = {"golden": [{"name": "three", "image": "three.png", "label": "3"}]}


def file_with(target):
    """A model file with this target."""
    return parse_model_file({"source": {"folder": "x"}, "target": target, "gate": GATE}, where="x.yaml")


def test_defaults_of_target_gke():
    """`target: gke` means tfs-cluster in us-central1-a with two n1-standard-8."""
    gke = file_with("gke").target.gke
    assert (gke.cluster, gke.location, gke.conn_id) == ("tfs-cluster", "us-central1-a", "google_cloud_default")
    assert gke.spec.node_pools == (NodePool(name="default-pool", machine_type="n1-standard-8", count=2),)


def test_no_node_pools_if_autopilot():
    """Google manages the nodes of an Autopilot cluster."""
    assert file_with({"gke": {"autopilot": True}}).target.gke.spec.node_pools == ()


REFUSED = {
    "two clusters": ({"conn_id": "mine", "gke": {}}, "conn_id and gke name two clusters"),
    "pools of Autopilot": ({"gke": {"autopilot": True, "node_pools": [{}]}}, "autopilot has no node_pools"),
    "one limit": ({"gke": {"node_pools": [{"max_count": 3}]}}, "min_count and max_count go together"),
    "count out of range": (
        {"gke": {"node_pools": [{"count": 5, "min_count": 1, "max_count": 3}]}},
        "count 5 is not between",
    ),
    "invalid location": ({"gke": {"location": "somewhere"}}, "target.gke.location"),
    "no pools": ({"gke": {"node_pools": []}}, "target.gke.node_pools"),
    "unknown field": ({"gke": {"zone": "us-central1-a"}}, "target.gke.zone"),
}


@pytest.mark.parametrize(("target", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line_if_invalid(target, words):
    """The error names the field, before any request to Google."""
    with pytest.raises(InputRefused, match=words) as refusal:
        file_with(target)
    assert "\n" not in str(refusal.value)


def test_refused_if_two_files_share_a_gke_deployment():
    """Two model files may share a GKE cluster, but not a Deployment in it."""
    one, same, elsewhere = (file_with({"gke": {"cluster": name}}) for name in ("a-cluster", "a-cluster", "other"))
    check_unshared({"one": one, "elsewhere": elsewhere})
    with pytest.raises(InputRefused, match="is also written by"):
        check_unshared({"one": one, "same": same})
