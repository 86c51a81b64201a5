from contextlib import nullcontext
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag import run_lease
from slipway.dag.run import VERDICT, Run
from slipway.dag.run_lease import acquire_run_lease
from slipway.dag.tasks.record import PruneOperator, RecordOperator
from slipway.errors import ClusterUnreachable, GoogleUnreachable
from slipway.facts import Plan, to_dict
from slipway.names import rendered_key
from slipway.records.history import read_records
from slipway.verdict import Verdict

PASSED, INCONCLUSIVE = {"outcome": "pass"}, {"outcome": "inconclusive"}
ENDINGS = {
    "live": ({"gate": "success", "announce": "success"}, {"gate": PASSED}, "live"),
    "red": ({"gate": "failed", "announce": "upstream_failed"}, {"gate": {"outcome": "fail"}}, "failed"),
    "approved": ({"gate": "success", "announce": "success"}, {"gate": INCONCLUSIVE, "approve": PASSED}, "live"),
}


def run_of(context_of, release, states, verdicts):
    """The context of `record` in a run whose tasks ended in these states and left these verdicts."""
    context = context_of("record", resolve=release)
    context["ti"].states = {"apply": "success", **states}
    for task_id, verdict in verdicts.items():
        context["ti"].facts[task_id, VERDICT] = {"reason": "", "at": "2026-11-24T12:00:00+00:00", **verdict}
    return context


@pytest.mark.parametrize(("states", "verdicts", "outcome"), ENDINGS.values(), ids=ENDINGS)
def test_record_is_closed_with_the_runs_outcome(context_of, release, store, states, verdicts, outcome):  # noqa: PLR0917
    """`announce` decides the run's colour; the `record` task passes."""
    context = run_of(context_of, release, states, verdicts)
    assert RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    assert [record["outcome"] for record in read_records(store, release.model).records] == [outcome]


def test_record_says_why_a_bake_failed(context_of, release, store):
    """The gate had passed. The release is not live; its record has what was measured, and that it is bad."""
    slow = {"outcome": "fail", "reason": "BakeFailed: too slow", "bad": True, "measured": {"rounds": 9}}
    states = {"gate": "success", "bake": "failed", "announce": "upstream_failed"}
    context = run_of(context_of, release, states, {"gate": PASSED, "bake": slow})
    assert RecordOperator(task_id="record", proof_task_id="bake").execute(context)
    [record] = read_records(store, release.model).records
    assert (record["outcome"], record["bad"]) == ("failed", {"task": "bake", "reason": "BakeFailed: too slow"})
    assert record["verdicts"]["bake"]["measured"] == {"rounds": 9}


ENDED = {
    "during the rollout": ({"gate": "skipped", "announce": "skipped"}, {}),
    "during the gate": ({"gate": "success", "announce": "skipped"}, {}),
    "by marking the gate a success": ({"gate": "success", "announce": "success"}, {}),
    "during the bake": ({"gate": "success", "bake": "skipped", "announce": "skipped"}, {"gate": PASSED}),
    "by marking the bake a success": ({"gate": "success", "bake": "success", "announce": "success"}, {"gate": PASSED}),
    "during the approval": ({"gate": "success", "approve": "success", "announce": "skipped"}, {"gate": INCONCLUSIVE}),
}


@pytest.mark.parametrize(("states", "verdicts"), ENDED.values(), ids=ENDED)
def test_run_is_red_if_a_person_ended_it(context_of, release, store, states, verdicts):
    """A task that a person marked a success left no verdict: the release is not proven."""
    context = run_of(context_of, release, {"rollback": "success", **states}, verdicts)
    context["ti"].facts["rollback", "return_value"] = {"action": "restore"}
    proof = next(task for task in ("bake", "approve", "gate") if task in states)
    with pytest.raises(AirflowFailException, match="before its release was proven; the release before it serves again"):
        RecordOperator(task_id="record", proof_task_id=proof).execute(context)
    assert [record["outcome"] for record in read_records(store, release.model).records] == ["failed"]


LEFT = {
    "deleted": ({"rollback": "success"}, {"action": "remove"}, "it was deleted again"),
    "kept": ({"rollback": "success"}, {"action": "keep"}, "what it applied was not rolled back. Next: kubectl"),
    "not rolled back": ({"rollback": "failed"}, None, "what it applied was not rolled back. Next: kubectl"),
    "never applied": ({"rollback": "skipped", "apply": "skipped"}, None, "what serves was not touched. Next: trigger"),
}


@pytest.mark.parametrize(("states", "rollback", "words"), LEFT.values(), ids=LEFT)
def test_error_says_what_is_live_if_a_person_ended_the_run(context_of, release, store, states, rollback, words):  # noqa: PLR0917
    """The rollback may have deleted a first release, kept it, failed, or had nothing to do."""
    context = run_of(context_of, release, {"gate": "skipped", "announce": "skipped", **states}, {})
    context["ti"].facts["rollback", "return_value"] = rollback
    with pytest.raises(AirflowFailException, match=words):
        RecordOperator(task_id="record", proof_task_id="gate").execute(context)


@pytest.mark.parametrize("facts", [{"plan": {"action": "nothing"}}, {}], ids=["nothing to do", "plan only"])
def test_nothing_is_recorded_if_there_was_nothing_to_do(context_of, release, store, facts):
    """The same holds if a person clears tasks that the plan skipped."""
    context = context_of("record", resolve=release)
    context["ti"].states = {"announce": "skipped"}
    for task_id, fact in facts.items():
        context["ti"].facts[task_id, "return_value"] = fact
    context["params"] = {} if facts else {"plan_only": True}
    assert RecordOperator(task_id="record", proof_task_id="gate").execute(context) is None
    assert read_records(store, release.model).records == ()


def test_verdict_of_an_earlier_try_does_not_count(context_of, release, store):
    """A cleared run may resolve to a newer release: a verdict that its tasks left before is about the old one."""
    verdicts = {"smoke_test": {"outcome": "fail", "bad": True}}
    context = run_of(context_of, release, {"smoke_test": "upstream_failed", "announce": "upstream_failed"}, verdicts)
    RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    [record] = read_records(store, release.model).records
    assert (record["bad"], record["verdicts"]) == (None, {})


def test_pass_of_an_earlier_try_does_not_make_a_release_live(context_of, release, applied, store):
    """The run was cleared, resolved again and applied; a person marked the gate a success before it started."""
    context = run_of(context_of, release, {"gate": "success", "announce": "success", "rollback": "success"}, {})
    context["ti"].facts["rollback", "return_value"] = {"action": "restore"}
    context["ti"].facts["apply", "return_value"] = to_dict(applied)
    context["ti"].task_id = "gate"
    Run(context).report(Verdict.passed("3 of 3 rounds in a row passed"))
    context["dag_run"].clear_number = 1
    context["ti"].facts.update({("resolve", "clearing"): 1, ("apply", "clearing"): 1})
    context["ti"].task_id = "record"
    with pytest.raises(AirflowFailException, match="before its release was proven; the release before it serves again"):
        RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    [record] = read_records(store, release.model).records
    assert (record["outcome"], record["verdicts"]) == ("failed", {})


@pytest.mark.parametrize(("try_number", "fails"), [(1, True), (4, False)])
@pytest.mark.parametrize("error", [ClusterUnreachable, GoogleUnreachable])
def test_run_is_not_red_if_its_lease_cannot_be_returned(  # noqa: PLR0917
    context_of, release, store, leases, monkeypatch, error, try_number, fails
):
    """The task returns it again on each retry; after the last one the Lease expires."""

    def fail(*_arguments):
        raise error("away")

    monkeypatch.setattr(run_lease, "return_lease", fail)
    context = run_of(context_of, release, *ENDINGS["live"][:2])
    context["ti"].task_id = "plan"
    acquire_run_lease(Run(context), 60)
    context["ti"].task_id, context["ti"].try_number = "record", try_number
    with pytest.raises(error) if fails else nullcontext():
        RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    assert [record["outcome"] for record in read_records(store, release.model).records] == ["live"]


def test_prune_keeps_what_the_run_resolved(context_of, release, store):
    """A run that restores an earlier release may be cleared: it then needs the manifests of its own release again."""
    own, earlier, old = (f"sha256:{digit * 64}" for digit in "123")
    for digest in (own, earlier, old):
        store.put_json({}, rendered_key(release.model, digest))
    resolved = replace(release, rendered_hash=own, engine_conn_id="none")
    restored = replace(resolved, rendered_hash=earlier)
    plan = Plan(action="restore", reasons=(), release=restored)
    with pytest.raises(AirflowFailException, match="connection none"):  # the engine's part; the store's part is done
        PruneOperator(task_id="prune").execute(context_of("prune", resolve=resolved, plan=plan))
    kept = [rendered_key(release.model, digest) for digest in (own, earlier)]
    assert [f"rendered/{release.model}/{name}" for name in store.names(f"rendered/{release.model}")] == kept
