"""What the states and verdicts of a run's tasks mean: whether its release is proven, and what it left live. Pure."""

from __future__ import annotations

from slipway.facts import JsonObject
from slipway.release import Release


def is_run_proven(
    *,
    gate: JsonObject | None,
    approval: JsonObject | None,
    proof_state: str | None,
    bake: JsonObject | None = None,
    baked: bool = False,
) -> bool:
    """Whether the gate passed, or a person approved its inconclusive result; and whether the bake passed, if there is one.

    `proof_state` is the state of the last of these tasks. A state alone proves nothing: a person may have set it.
    """
    decisive = [approval if (gate or {}).get("outcome") == "inconclusive" else gate, *([bake] if baked else [])]
    return proof_state == "success" and all((one or {}).get("outcome") == "pass" for one in decisive)


def with_load_verdict(gate: JsonObject, load: JsonObject | None) -> JsonObject:
    """The verdict of a preview's gate, together with that of its load test: a person decides on both at once."""
    if load is None:
        return gate
    measured = {**(gate.get("measured") or {}), **(load.get("measured") or {})}
    outcome = "inconclusive" if "inconclusive" in {gate["outcome"], load["outcome"]} else gate["outcome"]
    return {**gate, "outcome": outcome, "reason": f"{gate['reason']}; {load['reason']}", "measured": measured}


def why_load_not_judged(release: Release, load: JsonObject | None) -> str | None:
    """Why a release must not be applied yet: the model file wants it loaded first, and this run has not; None if it may.

    `load` is the verdict of the preview's load test. The state of that task does not count: a person may have set it.
    """
    if release.gate.load is None or (load or {}).get("outcome") in {"pass", "inconclusive"}:
        return None
    return f"model {release.model}: gate.load is set, and this run has no result of it. Next: clear preview_load"


def does_verdict_count(verdict: JsonObject, *, release_id: str | None, made: int | None) -> bool:
    """Whether a verdict is about the release that the run has made, and not older than it.

    `made` is the clearing of the run in which that was made; None if an earlier Slipway made it, whose verdicts name neither
    release nor clearing.
    """
    if made is None:
        return bool(verdict.get("release", release_id) == release_id)
    return bool(verdict.get("release") == release_id and verdict.get("clearing", -1) >= made)


def why_run_must_not_write(announce_state: str | None, dag_id: str) -> str | None:
    """Why `apply` must not write any more; None if it may.

    Airflow skips `announce` when a person ends the run. It stops a running task some seconds later, and the rollback may
    have looked before that.
    """
    if announce_state != "skipped":
        return None
    return f"apply: somebody ended the run; nothing was written. Next: trigger {dag_id} again"


def was_run_ended_by_hand(*, proven: bool, announce_state: str | None) -> bool:
    """Whether a person ended the run, or set the state of one of its tasks, before its release was proven."""
    return not proven and announce_state in {"skipped", "success"}


def describe_ended_run(
    *, rollback: JsonObject | None, rollback_state: str | None, apply_state: str | None, release: Release, dag_id: str
) -> str:
    """What a run that was ended by hand left live, and what to do next."""
    action = (rollback or {}).get("action") if rollback_state == "success" else None
    again = f"Next: trigger {dag_id} again"
    if action == "restore":
        return f"the release before it serves again. {again}"
    if action == "remove":
        return f"it was deleted again. {again}"
    if apply_state not in {"success", "failed"}:
        return f"what serves was not touched. {again}"
    look = release.target.kubectl(f"describe deployment {release.deployment}")
    return f"what it applied was not rolled back. Next: {look}; then trigger {dag_id} again"
