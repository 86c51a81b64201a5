from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from slipway.facts import to_dict
from slipway.sensors import AddressSensor, PredictionSensor, RolloutSensor

ADDRESS = "http://203.0.113.9:8501"
PASS = {"outcome": "pass", "reason": "there", "found": None}
FAIL = {"outcome": "fail", "reason": "time is up: not yet", "found": None}


@pytest.fixture
def sensors(release, export):
    """The three waits of a run."""
    fact, export = to_dict(release), to_dict(export)
    return {
        "rollout": RolloutSensor(
            task_id="wait_for_rollout", release=fact, applied={"generation": 4, "release_id": "abcdefabcdef"}
        ),
        "address": AddressSensor(task_id="wait_for_address", release=fact),
        "gate": PredictionSensor(task_id="gate", release=fact, export=export, address=ADDRESS),
    }


DEFERRED = {
    "rollout": ("slipway.triggers.RolloutTrigger", 900, {"generation": 4}),
    "address": ("slipway.triggers.AddressTrigger", 600, {}),
    "gate": (
        "slipway.triggers.PredictionTrigger",
        300,
        {"url": ADDRESS, "version": 7, "golden_uri": "file:///store/exports/digits-vit/7/golden.json"},
    ),
}


@pytest.mark.parametrize("name", DEFERRED)
def test_deferred_at_once(sensors, release, name):
    """A wait holds no worker: it defers to its trigger with the model file's limit, Airflow's own limit behind it."""
    trigger, limit_s, own = DEFERRED[name]
    with pytest.raises(TaskDeferred) as deferral:
        sensors[name].execute({})
    path, kept = deferral.value.trigger.serialize()
    assert trigger == path
    assert {"release": to_dict(release), "poll_s": sensors[name].poll_s, **own}.items() <= kept.items()
    assert deferral.value.method_name == "decide"
    assert timedelta(seconds=limit_s) < deferral.value.timeout <= timedelta(seconds=limit_s + 120)


@pytest.mark.parametrize("name", ["rollout", "gate"])
def test_verdict_if_it_passed(sensors, name):
    """A wait that passed leaves its verdict."""
    assert sensors[name].decide({}, PASS) == {"outcome": "pass", "reason": "there"}


def test_url_if_the_address_was_found(sensors):
    """The address's wait leaves the URL."""
    url = sensors["address"].decide({}, {**PASS, "found": ADDRESS})
    assert url == ADDRESS


def test_fixed_url_needs_no_wait(sensors, release):
    """The model file's URL is taken as it is, without a slash at its end."""
    sensor = AddressSensor(
        task_id="wait_for_address", release={**to_dict(release), "address": "https://models.example.com/"}
    )
    assert sensor.execute({}) == "https://models.example.com"


FAILURES = {
    "address": "AddressMissing: time is up: not yet. Next: kubectl -n shop describe service tfs-server",
    "gate": f"GateFailed: {ADDRESS}/v1/models/digits-vit/versions/7: time is up: not yet. "
    f"Next: curl {ADDRESS}/v1/models/digits-vit/versions/7",
}


@pytest.mark.parametrize(("name", "message"), FAILURES.items())
def test_failed_in_one_line_with_the_next_command(sensors, name, message):
    """A wait that failed is red at once, without a retry, and says what to do next."""
    with pytest.raises(AirflowFailException) as failure:
        sensors[name].decide({}, FAIL)
    assert message == str(failure.value)


def test_failed_with_the_reason_if_the_cluster_cannot_be_asked(sensors):
    """A rollout that failed is explained even where pods cannot be read: here there is no connection."""
    with pytest.raises(AirflowFailException) as failure:
        sensors["rollout"].decide({}, FAIL)
    message = str(failure.value)
    assert "\n" not in message
    assert message.startswith("RolloutFailed: time is up: not yet (no diagnosis: ")
    assert message.endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef")
