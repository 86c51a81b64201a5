"""Which Service gets which load-balancer address."""

from local.parts.loadbalancer import plan_addresses


def service(name, kind="LoadBalancer", address=None):
    """A Service as the API server returns it."""
    status = {"loadBalancer": {"ingress": [{"ip": address}]} if address else {}}
    return {"metadata": {"name": name}, "spec": {"type": kind}, "status": status}


def test_lowest_free_addresses_for_services_without_one():
    """Services that have an address keep it."""
    services = [service("b"), service("a"), service("kept", address="127.20.3.1"), service("inner", kind="ClusterIP")]
    assert plan_addresses(services, "127.20.3") == {"a": "127.20.3.2", "b": "127.20.3.3"}


def test_address_of_another_range_is_replaced():
    """An address outside this checkout's range is replaced."""
    assert plan_addresses([service("moved", address="127.20.9.1")], "127.20.3") == {"moved": "127.20.3.1"}


def test_nothing_is_planned_if_all_have_an_address():
    """A second pass changes nothing."""
    assert plan_addresses([service("a", address="127.20.3.7")], "127.20.3") == {}


def test_service_with_a_load_balancer_class_gets_no_address():
    """Its address comes from that class of load balancers, and no other Service gets the same one."""
    waiting, given = service("waiting"), service("given", address="127.20.3.1")
    for other in (waiting, given):
        other["spec"]["loadBalancerClass"] = "example.com/nobody"
    assert plan_addresses([waiting, given, service("ours")], "127.20.3") == {"ours": "127.20.3.2"}
