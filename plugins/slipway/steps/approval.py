"""The approval: whether a person is asked, what they are shown, and whether a release may be applied without one. Pure."""

from __future__ import annotations

from slipway.facts import Accuracy, Baseline, JsonObject, from_dict
from slipway.names import dag_id
from slipway.release import Gate, Release
from slipway.serving.accuracy import compare_accuracy

RESULT = {
    "pass": "The gate passed. The model file asks a person to approve every release (`gate.approval: always`). What was measured:",
    "inconclusive": "No answer was wrong beyond what the model file tolerates, but the result is inconclusive:",
}


def does_person_decide(gate: Gate, verdict: JsonObject | None) -> bool:
    """Whether a person decides on a release whose first gate left this verdict; None if it left none."""
    outcome = (verdict or {}).get("outcome")
    return outcome == "inconclusive" or (outcome == "pass" and gate.approval == "always")


def list_findings(gate: Gate, verdict: JsonObject, live: JsonObject | None) -> list[str]:
    """What the gate found: its reasons, and what it measured without judging it. `live` is the plan's baseline."""
    found, measured = str(verdict["reason"]).split("; "), verdict.get("measured") or {}
    latency_ms, quality = measured.get("latency_ms"), measured.get("quality")
    if gate.latency_ms is None and latency_ms is not None:
        found.append(f"95 of 100 answers within {latency_ms} ms, no limit")
    if gate.quality is not None and gate.quality.max_drop is None and quality:
        baseline = from_dict(Baseline, live) if live else None
        found.append(compare_accuracy(from_dict(Accuracy, quality), baseline))
    if load := measured.get("load"):
        found.append(f"load: each round is in {load['uri']}")
    return found


def explain_refusal(release: Release, verdict: JsonObject | None, refused: str, *, answered: bool) -> str:
    """The line of a release that nobody approved after the gate's verdict: `refused` is what happened.

    `answered`: a person said no, or was asked and said nothing. Otherwise the question was not put.
    """
    passed = (verdict or {}).get("outcome") == "pass"
    result = "the gate passed, but" if passed else "the gate's result was inconclusive, and"
    again = f"trigger {dag_id(release.model)} to be asked again"
    then = f"fix the model, or {again if passed else 'its gate in the model file'}" if answered else "trigger again"
    return f"{result} {refused}. Next: {then}"


def why_not_approved(release: Release, approval: JsonObject | None) -> str | None:
    """Why a release must not be applied yet; None if it may.

    The state of the task `approve` does not count: a person may have set it.
    """
    if release.gate.approval != "always" or (approval or {}).get("outcome") == "pass":
        return None
    return (
        f"model {release.model}: gate.approval is always, and nobody has approved this release in this run. "
        f"Next: clear preview, or trigger {dag_id(release.model)} again"
    )
