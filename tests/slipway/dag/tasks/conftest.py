"""The facts of a teardown's tasks."""

from types import SimpleNamespace

import pytest
from teardowns import BALANCER, SERVICE, TARGET

from slipway.facts import Teardown
from slipway.steps import teardown_plan
from slipway.steps.teardown_plan import TeardownPlan


@pytest.fixture
def teardown(release):
    """A teardown of digits-vit's cluster, triggered by hand."""
    return Teardown(
        model=release.model,
        run_id="manual__down",
        store=release.store,
        target=TARGET,
        deployment=release.deployment,
        objects=(SERVICE,),
        balancers=(BALANCER,),
        claim=None,
        address_timeout_s=600,
        cluster_timeout_s=1800,
    )


@pytest.fixture
def planned(context_of, teardown):
    """Makes the context of a task after `look` and `approve`: `planned("delete_cluster")`."""

    def make(task_id, *, others=(), answer="Approve"):
        plan = TeardownPlan(
            teardown=teardown, status="RUNNING", cost=None, others=others, blind=None, sharing=(), body="Delete it?"
        )
        context = {**context_of(task_id, look=plan), "task": None}
        if answer:
            context["ti"].facts["approve", "return_value"] = {"chosen_options": [answer]}
        return context

    return make


@pytest.fixture
def workloads(monkeypatch, leases):
    """What runs in the cluster, `items`, or the `error` of its API server: the emulator's clusters have none."""
    found = SimpleNamespace(items=[], error=None, leases=leases)

    def list_workloads(_target):
        if found.error:
            raise found.error
        return found.items, None

    monkeypatch.setattr(teardown_plan, "list_workloads", list_workloads)
    return found
