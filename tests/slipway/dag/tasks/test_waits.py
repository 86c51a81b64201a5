import json
from dataclasses import replace
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from slipway.dag.run import CLEARING, Run
from slipway.dag.tasks import waits
from slipway.dag.tasks.gate import PredictionSensor
from slipway.dag.tasks.waits import AddressSensor, RolloutSensor
from slipway.errors import ClusterUnreachable, LeaseLost
from slipway.facts import Previewed, from_dict, to_dict
from slipway.records.record import write_record
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
        preview = Previewed(
            release_id="abcdefabcdef-preview",
            reference=applied.reference,
            version=7,
            objects=(),
            uid="u-2",
            generation=1,
        )
        facts = {"export": export, "apply": applied, "wait_for_address": ADDRESS, "preview": preview}
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
def test_deferred_to_its_trigger(context, release, task_id):
    """A wait occupies no worker: it defers with the model file's limit; Airflow's own limit comes later."""
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
OF_PREVIEW = {
    RolloutSensor: {"release_id": "abcdefabcdef-preview", "uid": "u-2", "generation": 1},
    PredictionSensor: {"url": PROXY, "version": 7},
}


@pytest.mark.parametrize("kind", OF_PREVIEW)
def test_preview_has_the_same_triggers(context, release, kind):
    """The triggers of the live release poll the preview, under the preview's name."""
    with pytest.raises(TaskDeferred) as deferral:
        kind(task_id="it", preview=True).execute(context("it"))
    path, kept = deferral.value.trigger.serialize()
    assert path in {"slipway.dag.triggers.rollout.RolloutTrigger", "slipway.dag.triggers.gate.PredictionTrigger"}
    assert {
        "release": to_dict(replace(release, deployment="tfs-server-preview")),
        **OF_PREVIEW[kind],
    }.items() <= kept.items()


def test_failed_preview_gate_names_the_url(context):
    """The next command sends the same request through the API server with kubectl."""
    with pytest.raises(AirflowFailException) as failure:
        PredictionSensor(task_id="preview_gate", preview=True).decide(context("preview_gate"), FAIL)
    asked = f"{PROXY}/v1/models/digits-vit/versions/7"
    assert str(failure.value) == f"GateFailed: {asked}: time is up: not yet. Next: kubectl -n shop get --raw {asked}"


def test_preview_gate_names_the_missing_right(context):
    """The trigger's next step replaces the gate's own, and the release is not at fault."""
    run, reason = context("preview_gate"), "the API server: HTTP 403: no. Next: give connection c a Role"
    with pytest.raises(AirflowFailException) as failure:
        PredictionSensor(task_id="preview_gate", preview=True).decide(
            run, {**FAIL, "reason": reason, "late": False, "unanswered": True}
        )
    assert str(failure.value) == f"GateFailed: {PROXY}/v1/models/digits-vit/versions/7: {reason}"
    assert "bad" not in Run(run).verdict_of("preview_gate")


def test_failed_preview_is_explained_by_its_own_pods(context):
    """The next command describes the preview's pods, not the live ones."""
    with pytest.raises(AirflowFailException) as failure:
        RolloutSensor(task_id="wait_for_preview", preview=True).decide(context("wait_for_preview"), FAIL)
    assert str(failure.value).endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef-preview")


def test_rollout_of_a_preview_passes_before_apply(context):
    """Nothing is deleted for a preview: `apply` has left nothing yet."""
    run = context("wait_for_preview")
    del run["ti"].facts["apply", "return_value"]
    assert RolloutSensor(task_id="wait_for_preview", preview=True).decide(run, PASS) == "there"


@pytest.mark.parametrize("task_id", SENSORS)
def test_verdict_is_kept_if_the_wait_passed(context, task_id):
    """A wait that passed leaves its verdict for the record."""
    run = context(task_id)
    sensor(task_id).decide(run, PASS)
    found = Run(run).verdict_of(task_id)
    assert (found["outcome"], found["reason"]) == ("pass", "there")


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
def test_release_is_blamed_only_for_its_own_failure(context, task_id, event, bad):
    """A crash and a wrong or inconclusive answer are the release's fault; a missing image, node or answer is not."""
    run = context(task_id)
    with pytest.raises(AirflowFailException):
        sensor(task_id).decide(run, {**FAIL, **event})
    assert Run(run).verdict_of(task_id).get("bad", False) is bad


def test_lease_is_renewed_for_the_wait(context, monkeypatch):
    """It is renewed for as long as the wait may take, Airflow's own limit included."""
    renewed = []
    monkeypatch.setattr(waits, "renew_run_lease", lambda _run, limit_s: renewed.append(limit_s))
    with pytest.raises(TaskDeferred):
        sensor("gate").execute(context("gate"))
    assert renewed == [360]


@pytest.mark.parametrize("outcome", [PASS, FAIL])
@pytest.mark.parametrize("task_id", ["wait_for_rollout", "gate"])
def test_result_does_not_count_if_the_lease_was_lost(context, leases, task_id, outcome):
    """If a person broke the run's Lease during the wait, the run neither passes nor blames its release."""
    run = context(task_id)
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: "):
        sensor(task_id).decide(run, {**outcome, "late": False})
    found = Run(run).verdict_of(task_id)
    assert (found["outcome"], found["reason"], "bad" in found) == (
        "fail",
        "LeaseLost: this run no longer holds the lease",
        False,
    )


def test_the_wait_for_the_address_leaves_the_lease_alone(context, leases):
    """It runs beside the wait for the rollout, which keeps the Lease for both: two tasks would shorten it for each other."""
    leases.answers.append(LeaseLost("never asked"))
    assert sensor("wait_for_address").decide(context("wait_for_address"), PASS) == ADDRESS
    assert leases.answers


def test_wait_goes_on_if_the_lease_cannot_be_read(context, leases):
    """An API server that does not answer does not mean that another run holds the Lease: the result counts."""
    leases.answers.append(ClusterUnreachable("no answer"))
    assert sensor("gate").decide(context("gate"), PASS) == "there"


def test_url_is_returned_if_the_address_was_found(context):
    """The wait leaves the URL and, next to it, the address for gRPC."""
    run = context("wait_for_address")
    assert sensor("wait_for_address").decide(run, PASS) == ADDRESS
    assert Run(run).grpc_address == "203.0.113.9:8500"


def test_fixed_url_is_returned_at_once(context, release):
    """The model file's URL loses the slash at its end."""
    fixed = replace(release, address="https://models.example.com/", grpc_address="models.example.com:8500")
    run = context("wait_for_address", of=fixed)
    assert sensor("wait_for_address").execute(run) == "https://models.example.com"
    assert Run(run).grpc_address == "models.example.com:8500"


def test_reason_for_no_grpc_if_the_url_is_fixed(release):
    """A fixed URL gives no address for gRPC, and the gate says so."""
    fixed = replace(release, address="https://models.example.com/")
    assert why_no_grpc(fixed) == "the model file gives target.address without target.grpc_address"


UNSURE = {**PASS, "outcome": "inconclusive", "found": {"latency_ms": 900, "quality": None}}


def test_inconclusive_gate_passes_if_a_person_is_asked_next(context):
    """Its verdict stays inconclusive and has the measurements, for the record."""
    run = context("gate")
    PredictionSensor(task_id="gate", asks=True).decide(run, UNSURE)
    found = Run(run).verdict_of("gate")
    assert (found["outcome"], found["measured"]["latency_ms"]) == ("inconclusive", 900)


def test_inconclusive_gate_passes_if_a_person_approved_before(context, release):
    """A person who approved the preview approved the release: the public gate neither asks again nor fails."""
    run = context("gate", of=replace(release, strategy="preview"))
    run["ti"].facts["approve", "verdict"] = {"outcome": "pass", "reason": "ada approved it"}
    PredictionSensor(task_id="gate").decide(run, UNSURE)
    assert Run(run).verdict_of("gate")["outcome"] == "inconclusive"


def test_approval_of_a_pass_does_not_waive_on_inconclusive_fail(context, release):
    """Every release is approved, and none whose public gate is inconclusive stays."""
    gate = Gate(approval="always", on_inconclusive="fail")
    run = context("gate", of=replace(release, strategy="preview", gate=gate))
    run["ti"].facts["approve", "verdict"] = {"outcome": "pass", "reason": "ada approved it"}
    with pytest.raises(AirflowFailException, match="which is not enough"):
        PredictionSensor(task_id="gate").decide(run, UNSURE)


QUALITY = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
RULES = Gate(latency_ms=5, quality=QUALITY, failures=2)
RULES_OF = {
    "preview": ("preview", True, True, RULES),
    "after a preview": ("preview", False, True, Gate(latency_ms=5, failures=2)),
    "restored without a preview": ("preview", False, False, Gate(failures=2)),
    "rolling": ("rolling", False, False, RULES),
}


@pytest.mark.parametrize("kind", RULES_OF)
def test_gate_repeats_nothing_that_was_proven(context, release, kind):
    """The labelled set is classified once per image; a release proven before has only to keep its promises."""
    strategy, preview, previewed, rules = RULES_OF[kind]
    run = context("gate", of=replace(release, strategy=strategy, gate=RULES))
    run["ti"].facts["preview_gate", "verdict"] = PASS
    if not previewed:
        del run["ti"].facts["preview", "return_value"]
    with pytest.raises(TaskDeferred) as deferral:
        PredictionSensor(task_id="gate", preview=preview).execute(run)
    _, kept = deferral.value.trigger.serialize()
    assert from_dict(Release, kept["release"]).gate == rules
    assert (kept["no_grpc"] == NO_GRPC_TO_PREVIEW) is preview


SET_BY_HAND = {
    "it left no verdict": None,
    "it failed": {**FAIL, "release": "abcdefabcdef-preview", "clearing": 1},
    "it passed before the run was cleared": {**PASS, "release": "abcdefabcdef-preview", "clearing": 0},
}


@pytest.mark.parametrize("verdict", SET_BY_HAND.values(), ids=SET_BY_HAND)
def test_public_gate_sends_the_labelled_set_if_a_person_set_the_previews_gate(context, release, verdict):
    """Nothing says how this release classifies it: the state that a person set is no measurement."""
    run = context("gate", of=replace(release, strategy="preview", gate=RULES))
    run["ti"].facts["preview", CLEARING] = run["ti"].facts["apply", CLEARING] = 1
    run["ti"].facts["preview_gate", "verdict"] = verdict
    with pytest.raises(TaskDeferred) as deferral:
        PredictionSensor(task_id="gate").execute(run)
    _, kept = deferral.value.trigger.serialize()
    assert from_dict(Release, kept["release"]).gate == RULES


NOT_ASKED = {"nobody is asked": (False, "ask"), "the model file says fail": (True, "fail")}


@pytest.mark.parametrize(("asks", "then"), NOT_ASKED.values(), ids=NOT_ASKED)
def test_inconclusive_gate_fails_if_nobody_is_asked(context, release, asks, then):
    """The message says what is inconclusive."""
    run = context("gate", of=replace(release, gate=Gate(on_inconclusive=then)))
    with pytest.raises(AirflowFailException, match=r"GateFailed: .*: there, which is not enough\. Next: "):
        PredictionSensor(task_id="gate", asks=asks).decide(run, UNSURE)
    assert Run(run).verdict_of("gate")["outcome"] == "fail"


FAILURES = {
    "wait_for_address": "AddressMissing: time is up: not yet. Next: kubectl -n shop describe service tfs-server",
    "gate": f"GateFailed: {ADDRESS}/v1/models/digits-vit/versions/7: time is up: not yet. "
    f"Next: curl {ADDRESS}/v1/models/digits-vit/versions/7",
}


@pytest.mark.parametrize(("task_id", "message"), FAILURES.items())
def test_failure_names_the_next_command(context, task_id, message):
    """A failed wait is red without a retry; its one line says what to do next and is kept for the record."""
    run = context(task_id)
    with pytest.raises(AirflowFailException) as failure:
        sensor(task_id).decide(run, FAIL)
    assert message == str(failure.value)
    found = Run(run).verdict_of(task_id)
    assert (found["outcome"], found["reason"]) == ("fail", message)


def test_failure_names_the_reason_if_the_cluster_cannot_be_read(context):
    """A failed rollout has its reason even if there is no connection for the diagnosis."""
    with pytest.raises(AirflowFailException) as failure:
        sensor("wait_for_rollout").decide(context("wait_for_rollout"), FAIL)
    message = str(failure.value)
    assert "\n" not in message
    assert message.startswith("RolloutFailed: time is up: not yet (no diagnosis: ")
    assert message.endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef")


def items(*found):
    """A list as an API server gives it."""
    return 200, json.dumps({"items": list(found)})


POD_WORDS = "deployment/tfs-server in shop: 0 of 1 updated replicas are available; pod/a: CrashLoopBackOff: Error: exit code 255, 1 restarts, for 12 s"
LOGGED = [
    items({"metadata": {"name": "a", "namespace": "shop"}, "status": {}}),
    items(),
    (200, "loading\nDATA_LOSS: truncated\n"),
]
MESSAGES = {
    "with the server's last log line": (POD_WORDS, LOGGED, f"{POD_WORDS} (pod/a log: DATA_LOSS: truncated). Next: kubectl -n shop describe pods -l "),
    "without a log": (POD_WORDS, [items()], f"{POD_WORDS}. Next: kubectl -n shop describe pods -l "),
    "about the ReplicaSet if there are no pods": (
        "replicaset/x: FailedCreate: pods is forbidden", [items()],
        "replicaset/x: FailedCreate: pods is forbidden. Next: kubectl -n shop describe replicasets -l ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MESSAGES)
def test_failure_repeats_no_words_of_a_pod(context, connected, http_server, case):
    """If the reason has the pods' words already, only the server's last log line is added."""
    reason, answers, message = MESSAGES[case]
    connected(http_server(*answers))
    with pytest.raises(AirflowFailException) as failure:
        sensor("wait_for_rollout").decide(context("wait_for_rollout"), {**FAIL, "reason": reason})
    assert f"RolloutFailed: {message}slipway/release=abcdefabcdef" == str(failure.value)


@pytest.fixture
def forbidden(http_server, connected):
    """A connection to an API server that forbids everything; the client's error has many lines."""
    connected(http_server((403, json.dumps({"kind": "Status", "message": "pods is forbidden"}))))


@pytest.mark.usefixtures("forbidden")
def test_failure_is_one_line_if_the_diagnosis_is_forbidden(context):
    """A Kubernetes client's error has many lines; the task's message has one."""
    with pytest.raises(AirflowFailException) as failure:
        sensor("wait_for_rollout").decide(context("wait_for_rollout"), FAIL)
    message = str(failure.value)
    assert "\n" not in message
    assert "forbidden" in message.lower()
    assert message.endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef")


@pytest.mark.parametrize("task_id", SENSORS)
def test_cleared_wait_refuses_what_another_run_has_replaced(context, release, store, record_of, task_id):
    """A rollback has replaced what the run applied: a gate that is cleared alone would prove the other release."""
    write_record(store, record_of("later.undo", "live", 5))
    run = context(task_id, of=replace(release, store=store.uri))
    run["dag_run"].clear_number = 1
    with pytest.raises(
        AirflowFailException, match=r"run later\.undo has replaced what this run applied\. Next: clear apply"
    ):
        sensor(task_id).execute(run)


def test_cleared_wait_goes_on_if_apply_was_cleared_too(context, release, store, record_of):
    """What this run applied is there again."""
    write_record(store, record_of("later.undo", "live", 5))
    run = context("wait_for_rollout", of=replace(release, store=store.uri))
    run["dag_run"].clear_number = 1
    run["ti"].facts["apply", "clearing"] = 1
    with pytest.raises(TaskDeferred):
        sensor("wait_for_rollout").execute(run)
