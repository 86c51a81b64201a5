import json
from dataclasses import replace
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from slipway.dag.run import Run
from slipway.dag.tasks import waits
from slipway.dag.tasks.gate import PredictionSensor
from slipway.dag.tasks.waits import AddressSensor, RolloutSensor
from slipway.errors import ClusterUnreachable, LeaseLost
from slipway.facts import Previewed, from_dict, to_dict
from slipway.release import Gate, QualityBounds, Release
from slipway.steps.waits import NO_GRPC_TO_PREVIEW, why_no_grpc

ADDRESS = "http://203.0.113.9:8501"
FOUND = {"url": ADDRESS, "grpc": "203.0.113.9:8500"}
PASS = {"outcome": "pass", "reason": "there", "found": FOUND}
FAIL = {"outcome": "fail", "reason": "time is up: not yet", "found": None}
SENSORS = {"wait_for_rollout": RolloutSensor, "wait_for_address": AddressSensor, "gate": PredictionSensor}


pytestmark = pytest.mark.usefixtures("leases")


@pytest.fixture
def context(context_of, release, export, applied):
    """Makes the context of a wait, all earlier tasks done."""

    def make(task_id, *, of=release):
        beside = Previewed(
            release_id="abcdefabcdef-preview",
            reference=applied.reference,
            version=7,
            objects=(),
            uid="u-2",
            generation=1,
        )
        facts = {"export": export, "apply": applied, "wait_for_address": ADDRESS, "preview": beside}
        return context_of(task_id, resolve=of, **facts)

    return make


def sensor(task_id):
    """The wait of this name."""
    return SENSORS[task_id](task_id=task_id)


DEFERRED = {
    "wait_for_rollout": ("slipway.dag.triggers.rollout.RolloutTrigger", 900, {"uid": "u-1", "generation": 4}),
    "wait_for_address": ("slipway.dag.triggers.rollout.AddressTrigger", 600, {}),
    "gate": (
        "slipway.dag.triggers.gate.PredictionTrigger",
        300,
        {
            "url": ADDRESS,
            "version": 7,
            "golden_uri": "file:///store/exports/digits-vit/7/golden.json",
            "descriptors_uri": "file:///store/exports/digits-vit/7/descriptors.bin",
            "grpc": None,
            "no_grpc": "service/tfs-server has no port tf-serving-grpc",
        },
    ),
}


@pytest.mark.parametrize("task_id", DEFERRED)
def test_deferred_at_once(context, release, task_id):
    """A wait holds no worker: it defers to its trigger with the model file's limit, Airflow's own limit behind it."""
    trigger, limit_s, own = DEFERRED[task_id]
    with pytest.raises(TaskDeferred) as deferral:
        sensor(task_id).execute(context(task_id))
    path, kept = deferral.value.trigger.serialize()
    assert trigger == path
    assert {"release": to_dict(release), **own}.items() <= kept.items()
    assert kept["poll_s"] > 0
    assert deferral.value.method_name == "decide"
    assert timedelta(seconds=limit_s) < deferral.value.timeout <= timedelta(seconds=limit_s + 120)


PROXY = "/api/v1/namespaces/shop/services/tfs-server-preview:8501/proxy"
LOOKS_AT_PREVIEW = {
    RolloutSensor: {"release_id": "abcdefabcdef-preview", "uid": "u-2", "generation": 1},
    PredictionSensor: {"url": PROXY, "version": 7},
}


@pytest.mark.parametrize("kind", LOOKS_AT_PREVIEW)
def test_preview_is_waited_for_and_asked_by_the_same_triggers(context, release, kind):
    """What looks at a preview is what looks at the live release, under the preview's name."""
    with pytest.raises(TaskDeferred) as deferral:
        kind(task_id="it", preview=True).execute(context("it"))
    path, kept = deferral.value.trigger.serialize()
    assert path in {"slipway.dag.triggers.rollout.RolloutTrigger", "slipway.dag.triggers.gate.PredictionTrigger"}
    assert {
        "release": to_dict(replace(release, deployment="tfs-server-preview")),
        **LOOKS_AT_PREVIEW[kind],
    }.items() <= kept.items()


def test_preview_gate_that_failed_names_where_it_asked(context):
    """The next command asks the same through the API server, as a person's kubectl does."""
    with pytest.raises(AirflowFailException) as failure:
        PredictionSensor(task_id="preview_gate", preview=True).decide(context("preview_gate"), FAIL)
    asked = f"{PROXY}/v1/models/digits-vit/versions/7"
    assert str(failure.value) == f"GateFailed: {asked}: time is up: not yet. Next: kubectl -n shop get --raw {asked}"


def test_preview_gate_that_was_not_let_through_says_what_is_missing(context):
    """The trigger's next step takes the place of the gate's own, in one line, and the release is not to blame."""
    run, reason = context("preview_gate"), "the API server: HTTP 403: no. Next: give connection c a Role"
    with pytest.raises(AirflowFailException) as failure:
        PredictionSensor(task_id="preview_gate", preview=True).decide(
            run, {**FAIL, "reason": reason, "late": False, "unanswered": True}
        )
    assert str(failure.value) == f"GateFailed: {PROXY}/v1/models/digits-vit/versions/7: {reason}"
    assert "bad" not in Run(run).verdict_of("preview_gate")


def test_preview_that_does_not_come_is_explained_by_its_own_pods(context):
    """The pods that a failed preview is described by are not the live ones."""
    with pytest.raises(AirflowFailException) as failure:
        RolloutSensor(task_id="wait_for_preview", preview=True).decide(context("wait_for_preview"), FAIL)
    assert str(failure.value).endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef-preview")


@pytest.mark.parametrize("task_id", SENSORS)
def test_verdict_is_left_if_it_passed(context, task_id):
    """A wait that passed leaves its verdict for the record."""
    run = context(task_id)
    sensor(task_id).decide(run, PASS)
    said = Run(run).verdict_of(task_id)
    assert (said["outcome"], said["reason"]) == ("pass", "there")


BLAMES = {
    "wait_for_rollout": [({"found": True, "late": False}, True), ({"found": False, "late": False}, False)],
    "wait_for_address": [({"found": None, "late": True}, False)],
    "gate": [
        ({"found": None, "late": False}, True),
        ({"found": None, "late": True}, False),
        ({"found": None, "late": False, "outcome": "inconclusive"}, True),
    ],
}


@pytest.mark.parametrize(
    ("task_id", "event", "bad"), [(task, event, bad) for task, cases in BLAMES.items() for event, bad in cases]
)
def test_release_is_blamed_only_for_what_it_did(context, task_id, event, bad):
    """A crash, a wrong answer and a doubt are the release's own; an image, a node or an answer that did not come may come."""
    run = context(task_id)
    with pytest.raises(AirflowFailException):
        sensor(task_id).decide(run, {**FAIL, **event})
    assert Run(run).verdict_of(task_id).get("bad", False) is bad


def test_lease_is_renewed_for_the_wait(context, monkeypatch):
    """A wait holds the target for as long as it may take, Airflow's own limit included."""
    asked = []
    monkeypatch.setattr(waits, "renew_lease", lambda _run, limit_s: asked.append(limit_s))
    with pytest.raises(TaskDeferred):
        sensor("gate").execute(context("gate"))
    assert asked == [360]


@pytest.mark.parametrize("outcome", [PASS, FAIL])
@pytest.mark.parametrize("task_id", SENSORS)
def test_what_was_seen_counts_only_while_the_target_is_the_runs(context, leases, task_id, outcome):
    """A run whose Lease a person has broken meanwhile neither passes nor blames its release, whatever its wait has found."""
    run = context(task_id)
    leases.answers.append(LeaseLost("this run's no more"))
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: "):
        sensor(task_id).decide(run, {**outcome, "late": False})
    said = Run(run).verdict_of(task_id)
    assert (said["outcome"], said["reason"], "bad" in said) == ("fail", "LeaseLost: this run's no more", False)


def test_a_wait_that_ended_goes_on_if_its_lease_cannot_be_looked_at(context, leases):
    """An API server that does not answer is no other run: what was found stands."""
    leases.answers.append(ClusterUnreachable("no answer"))
    assert sensor("gate").decide(context("gate"), PASS) == "there"


def test_url_if_the_address_was_found(context):
    """The address's wait leaves the URL, and beside it where gRPC is asked."""
    run = context("wait_for_address")
    assert sensor("wait_for_address").decide(run, PASS) == ADDRESS
    assert Run(run).grpc_address == "203.0.113.9:8500"


def test_fixed_url_needs_no_wait(context, release):
    """The model file's URL is taken as it is, without a slash at its end."""
    fixed = replace(release, address="https://models.example.com/", grpc_address="models.example.com:8500")
    run = context("wait_for_address", of=fixed)
    assert sensor("wait_for_address").execute(run) == "https://models.example.com"
    assert Run(run).grpc_address == "models.example.com:8500"


def test_gate_says_why_it_cannot_ask_over_grpc(release):
    """A fixed URL says nothing of gRPC's address, and the gate says so."""
    fixed = replace(release, address="https://models.example.com/")
    assert why_no_grpc(fixed) == "the model file gives target.address without target.grpc_address"


DOUBT = {**PASS, "outcome": "inconclusive", "found": {"latency_ms": 900, "quality": None}}


def test_doubt_is_left_to_a_person(context):
    """A gate that is followed by the question passes with its doubt, and with what it measured, for the record."""
    run = context("gate")
    PredictionSensor(task_id="gate", asks=True).decide(run, DOUBT)
    said = Run(run).verdict_of("gate")
    assert (said["outcome"], said["measured"]["latency_ms"]) == ("inconclusive", 900)


def test_doubt_is_left_where_a_person_has_said_yes_before(context, release):
    """Who let a release pass beside the live one has let it pass: the public gate does not ask again, nor say no."""
    run = context("gate", of=replace(release, strategy="preview"))
    run["ti"].facts["approve", "verdict"] = {"outcome": "pass", "reason": "ada said yes"}
    PredictionSensor(task_id="gate").decide(run, DOUBT)
    assert Run(run).verdict_of("gate")["outcome"] == "inconclusive"


FLOOR = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
RULES = Gate(latency_ms=5, quality=FLOOR, failures=2)
JUDGED = {
    "beside the live one": ("preview", True, True, RULES),
    "after a preview": ("preview", False, True, Gate(latency_ms=5, failures=2)),
    "what only comes back": ("preview", False, False, Gate(failures=2)),
    "rolling": ("rolling", False, False, RULES),
}


@pytest.mark.parametrize("kind", JUDGED)
def test_each_gate_judges_what_has_not_been_judged(context, release, kind):
    """The labelled set is told once by one image; what was proven before is asked its promises alone."""
    strategy, preview, previewed, rules = JUDGED[kind]
    run = context("gate", of=replace(release, strategy=strategy, gate=RULES))
    if not previewed:
        del run["ti"].facts["preview", "return_value"]
    with pytest.raises(TaskDeferred) as deferral:
        PredictionSensor(task_id="gate", preview=preview).execute(run)
    _, kept = deferral.value.trigger.serialize()
    assert from_dict(Release, kept["release"]).gate == rules
    assert (kept["no_grpc"] == NO_GRPC_TO_PREVIEW) is preview


NO_DOUBT = {"nobody is asked": (False, "ask"), "the model file says fail": (True, "fail")}


@pytest.mark.parametrize(("asks", "then"), NO_DOUBT.values(), ids=NO_DOUBT)
def test_doubt_means_no_where_nobody_is_asked(context, release, asks, then):
    """Without a person's word, a gate in doubt fails and says what it doubts."""
    run = context("gate", of=replace(release, gate=Gate(on_inconclusive=then)))
    with pytest.raises(AirflowFailException, match=r"GateFailed: .*: there, which is not enough\. Next: "):
        PredictionSensor(task_id="gate", asks=asks).decide(run, DOUBT)
    assert Run(run).verdict_of("gate")["outcome"] == "fail"


FAILURES = {
    "wait_for_address": "AddressMissing: time is up: not yet. Next: kubectl -n shop describe service tfs-server",
    "gate": f"GateFailed: {ADDRESS}/v1/models/digits-vit/versions/7: time is up: not yet. "
    f"Next: curl {ADDRESS}/v1/models/digits-vit/versions/7",
}


@pytest.mark.parametrize(("task_id", "message"), FAILURES.items())
def test_failed_in_one_line_with_the_next_command(context, task_id, message):
    """A wait that failed is red at once, without a retry, says what to do next, and leaves that for the record."""
    run = context(task_id)
    with pytest.raises(AirflowFailException) as failure:
        sensor(task_id).decide(run, FAIL)
    assert message == str(failure.value)
    said = Run(run).verdict_of(task_id)
    assert (said["outcome"], said["reason"]) == ("fail", message)


def test_failed_with_the_reason_if_the_cluster_cannot_be_asked(context):
    """A rollout that failed is explained even where pods cannot be read: here there is no connection."""
    with pytest.raises(AirflowFailException) as failure:
        sensor("wait_for_rollout").decide(context("wait_for_rollout"), FAIL)
    message = str(failure.value)
    assert "\n" not in message
    assert message.startswith("RolloutFailed: time is up: not yet (no diagnosis: ")
    assert message.endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef")


def items(*found):
    """A list as an API server gives it."""
    return 200, json.dumps({"items": list(found)})


OWN_WORDS = "deployment/tfs-server in shop: 0 of 1 updated replicas are available; pod/a: CrashLoopBackOff: Error: exit code 255, 1 restarts, for 12 s"
LOGGED = [
    items({"metadata": {"name": "a", "namespace": "shop"}, "status": {}}),
    items(),
    (200, "loading\nDATA_LOSS: truncated\n"),
]
ONE_LINE = {
    "with the server's last words": (OWN_WORDS, LOGGED, f"{OWN_WORDS} (pod/a log: DATA_LOSS: truncated). Next: kubectl -n shop describe pods -l "),
    "with nothing more": (OWN_WORDS, [items()], f"{OWN_WORDS}. Next: kubectl -n shop describe pods -l "),
    "with the ReplicaSet, where there are no pods": (
        "replicaset/x: FailedCreate: pods is forbidden", [items()],
        "replicaset/x: FailedCreate: pods is forbidden. Next: kubectl -n shop describe replicasets -l ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_LINE)
def test_what_a_pod_said_is_not_said_twice(context, connected, http_server, case):
    """A reason that has the pods' own words gets only what they do not say: the server's last line."""
    reason, answers, message = ONE_LINE[case]
    connected(http_server(*answers))
    with pytest.raises(AirflowFailException) as failure:
        sensor("wait_for_rollout").decide(context("wait_for_rollout"), {**FAIL, "reason": reason})
    assert f"RolloutFailed: {message}slipway/release=abcdefabcdef" == str(failure.value)


@pytest.fixture
def forbidding(http_server, connected):
    """A connection to an API server that forbids everything, in the client's many lines."""
    connected(http_server((403, json.dumps({"kind": "Status", "message": "pods is forbidden"}))))


@pytest.mark.usefixtures("forbidding")
def test_failed_in_one_line_if_the_cluster_forbids_the_diagnosis(context):
    """A Kubernetes client's error has many lines; the task's message stays one."""
    with pytest.raises(AirflowFailException) as failure:
        sensor("wait_for_rollout").decide(context("wait_for_rollout"), FAIL)
    message = str(failure.value)
    assert "\n" not in message
    assert "forbidden" in message.lower()
    assert message.endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef")
