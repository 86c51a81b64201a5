"""A Secret of a recorded release: from the hashes in the store to the API server of the stand."""

import base64
import json
from dataclasses import replace

import pytest
from leases import kubectl, place_on

from slipway.kubernetes.apply import apply_plan, object_ref_of, plan_apply
from slipway.kubernetes.secrets import has_hashes, hash_secrets
from slipway.names import LABEL_MODEL
from slipway.steps.deploy import find_secrets

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


@pytest.fixture
def placed(stand, monkeypatch, release):
    """The release at a place in the stand's namespace that only the test uses."""
    with place_on(stand, monkeypatch) as place:
        yield replace(release, target=place.target, deployment=place.deployment)
        kubectl(stand, "delete", "secret", place.deployment, "--ignore-not-found")


def test_a_recorded_secret_is_applied_as_it_is_live_or_left_alone(stand, placed, pushed, caplog):
    """If the cluster has the hashed values, they are applied again. If they have changed, the Secret is left as it is."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": placed.deployment,
            "namespace": placed.target.namespace,
            "labels": {LABEL_MODEL: placed.model},
        },
        "data": {"token": base64.b64encode(b"hunter2").decode()},
    }
    apply_plan(placed, plan_apply([secret], ()), check=lambda: None)
    stored = hash_secrets([secret])
    found = find_secrets(placed, pushed, stored)
    assert found == [secret]
    apply_plan(placed, plan_apply(found, ()), check=lambda: None)
    changed = {"stringData": {"token": "swordfish"}}
    kubectl(stand, "patch", "secret", placed.deployment, "-p", json.dumps(changed))
    (left,) = find_secrets(placed, pushed, stored)
    assert has_hashes(left)
    assert f"secret/{placed.deployment}: release {pushed.release_id} had other values" in caplog.text
    plan = plan_apply([left], (object_ref_of(left),))
    assert (plan.apply, plan.prune) == ((), ())
    assert "swordfish" not in caplog.text
