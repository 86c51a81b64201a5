from dataclasses import replace

import pytest

from slipway.errors import InputRefused
from slipway.gke.prices import (
    Shape,
    cluster_shape_of_found,
    cluster_shape_of_spec,
    machine_price,
    read_prices,
    standing_cost,
)
from slipway.model.target_settings import GkeSettings


@pytest.fixture(scope="module")
def prices():
    """The table that ships."""
    return read_prices()


def test_cost_of_the_default_cluster(prices):
    """Two n1-standard-8, their disks and addresses, and the fee; the text names the table's region and date."""
    cost = standing_cost(prices, cluster_shape_of_spec(GkeSettings().spec, "us-central1-a"))
    assert cost.per_hour == pytest.approx(0.10 + 2 * 0.38 + 2 * 100 * 0.10 / 730 + 2 * 0.005, abs=0.001)
    assert cost.unknown == ()
    assert str(cost) == (
        "about $0.90 per hour (the cluster $0.10, 2 n1-standard-8 $0.76, 2 boot disks of 100 GB $0.03, "
        f"2 addresses of nodes $0.01; each load balancer $0.025 more; list prices of us-central1 of {prices.date})"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "No such file"), ("cluster_per_hour: much", "date: Field required"), ("{", "while parsing")],
)
def test_refused_if_the_table_is_invalid(tmp_path, text, words):
    """The error names the file and the invalid field, in one line."""
    path = tmp_path / "prices.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputRefused, match=rf"^{path}: .*{words}") as refusal:
        read_prices(path)
    assert "\n" not in str(refusal.value)


MACHINES = {"n1-standard-8": 0.38, "e2-standard-8": 0.268, "n2-standard-8": 0.3885, "n2d-standard-2": 0.0845}


@pytest.mark.parametrize(("machine_type", "price"), MACHINES.items())
def test_price_of_a_machine_by_cpus_and_memory(prices, machine_type, price):
    """The price of a predefined type is the sum of its parts, as on Google's page."""
    assert machine_price(prices, machine_type) == pytest.approx(price, abs=0.0001)


@pytest.mark.parametrize("machine_type", ["c3-standard-8", "n1-megamem-96", "e2-medium"])
def test_machine_types_that_the_table_lacks_are_named(prices, machine_type):
    """The sum excludes them, and the text names them."""
    cost = standing_cost(prices, Shape(location="us-central1-a", nodes=((machine_type, 3),), public_nodes=False))
    assert machine_price(prices, machine_type) is None
    assert str(cost).endswith(f"; plus what the table does not list: 3 {machine_type}")


def test_other_regions_are_named(prices):
    """The table is for one region, so the text names the difference."""
    cost = standing_cost(prices, cluster_shape_of_spec(GkeSettings().spec, "europe-west4-b"))
    assert cost.unknown == ("the difference between prices in europe-west4 and us-central1",)


def test_cost_of_autopilot(prices):
    """The fee; the text adds the two prices for what pods request."""
    cost = standing_cost(prices, cluster_shape_of_spec(GkeSettings(autopilot=True).spec, "us-central1"))
    assert cost.per_hour == prices.cluster_per_hour
    assert cost.unknown == ("what its pods request, at $0.0445 per vCPU and $0.0049 per GB, each per hour",)
    assert "boot disks" not in str(cost)


def test_a_regional_cluster_has_nodes_in_three_zones(prices):
    """A spec and the cluster that is created from it have the same shape."""
    spec = GkeSettings(location="us-central1").spec
    found = {
        "location": "us-central1",
        "locations": ["us-central1-a", "us-central1-b", "us-central1-c"],
        "node_pools": [{"initial_node_count": 2, "config": {"machine_type": "n1-standard-8"}}],
    }
    assert cluster_shape_of_found(found) == cluster_shape_of_spec(spec, "us-central1")
    assert cluster_shape_of_found(found).nodes == (("n1-standard-8", 6),)
    private = cluster_shape_of_found({**found, "private_cluster_config": {"enable_private_nodes": True}})
    assert private == replace(cluster_shape_of_found(found), public_nodes=False)
