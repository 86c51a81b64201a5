from slipway.steps.teardown import judge_services_removed
from slipway.target import Target
from slipway.verdict import Verdict

TARGET = Target(conn_id="kubernetes_default", namespace="shop")


def test_waits_while_a_service_remains():
    """A Service remains until its finalizer has deleted the load balancer."""
    service = {"metadata": {"name": "tfs-server", "finalizers": ["service.kubernetes.io/load-balancer-cleanup"]}}
    verdict = judge_services_removed([None, service], TARGET)
    assert verdict.outcome == "wait"
    assert verdict.reason == (
        "service/tfs-server in shop: still there, kept by service.kubernetes.io/load-balancer-cleanup"
    )
    assert judge_services_removed([None], TARGET) == Verdict.passed("no Service of the model is left in shop")
