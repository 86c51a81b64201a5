"""Load-balancer addresses: who gets which."""

from local.parts.loadbalancer import plan_addresses


def service(name, kind="LoadBalancer", address=None):
    """A Service as the API server tells it."""
    status = {"loadBalancer": {"ingress": [{"ip": address}]} if address else {}}
    return {"metadata": {"name": name}, "spec": {"type": kind}, "status": status}


def test_lowest_free_addresses_for_services_without_one():
    """Those that have an address keep it."""
    services = [service("b"), service("a"), service("kept", address="127.20.3.1"), service("inner", kind="ClusterIP")]
    assert plan_addresses(services, "127.20.3") == {"a": "127.20.3.2", "b": "127.20.3.3"}


def test_new_address_if_the_old_is_of_another_range():
    """An address that is not this checkout's is replaced."""
    assert plan_addresses([service("moved", address="127.20.9.1")], "127.20.3") == {"moved": "127.20.3.1"}


def test_nothing_to_do_if_all_have_one():
    """A second look changes nothing."""
    assert plan_addresses([service("a", address="127.20.3.7")], "127.20.3") == {}


def test_nothing_for_a_class_of_its_own():
    """A Service that names a class of load balancers waits for that class; what address it has is nobody else's."""
    waiting, given = service("waiting"), service("given", address="127.20.3.1")
    for other in (waiting, given):
        other["spec"]["loadBalancerClass"] = "example.com/nobody"
    assert plan_addresses([waiting, given, service("ours")], "127.20.3") == {"ours": "127.20.3.2"}
