"""The plan: what a run has to do, given what changed since the live release and whether that is healthy.

`observe` reads, `plan_refresh` decides.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from slipway.facts import Action, Baseline, Export, ObjectRef, Plan, Pushed, from_dict, to_dict
from slipway.gke.lookup import missing_cluster
from slipway.kubernetes.address import find_service_url
from slipway.kubernetes.apply import Trial, dry_run_plan, plan_apply
from slipway.kubernetes.cpu_features import inspect_cpu_features
from slipway.kubernetes.identity import identify_cluster
from slipway.kubernetes.manifests import BLANK_IMAGE, BLANK_VERSION, Manifest
from slipway.kubernetes.rendered import live_manifests
from slipway.kubernetes.rights import inspect_rights
from slipway.kubernetes.secrets import mask_secret
from slipway.names import dag_id, short
from slipway.records.history import History, find_bad_record, read_records, release_of_record
from slipway.records.record import Record, plain_json
from slipway.records.store import Store
from slipway.release import FIRST_RUNTIME, Gate, GoldenRequest, QualityBounds, Release
from slipway.serving.accuracy import recorded_baseline
from slipway.serving.evaluation import evaluate_live
from slipway.steps.health import check_live_release
from slipway.steps.orphans import find_orphans
from slipway.verdict import Verdict, require_nothing_missing

VOLATILE = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
REVISION_ANNOTATION = "deployment.kubernetes.io/revision"  # the Deployment controller's own

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a run finds before it decides."""

    history: History  # of the release's target and Deployment
    health: Verdict  # of the live release now
    trials: tuple[Trial, ...] = ()  # what the API server's dry run would change
    bad: Record | None = None  # of a run that found this release bad, unless a person asks to try it again
    orphans: tuple[str, ...] = ()  # what is live and in no model file, one a line
    answers: bool = True  # whether the target's cluster exists and runs


def make_plan(release: Release, *, by_hand: bool, held: bool = False) -> tuple[Plan, list[Trial]]:
    """The plan for a release, and what its manifests would change according to the API server. Writes nothing.

    `by_hand`: a person triggered the run. A bad release is tried again only then, or if the run is forced. `held`: the run
    holds the Lease, so that no other run replaces the live release. The labelled set is sent to that one only then.
    Raises StoreError, ManifestError, ApplyError, PreflightFailed.
    """
    seen = observe(release, by_hand=by_hand, held=held)
    plan = plan_refresh(release, seen)
    bounds = release.gate.quality
    if bounds is not None and release.gate.compares and plan.action not in {"nothing", "restore"}:
        plan = replace(plan, baseline=find_baseline(release, bounds, seen, asks=held and seen.answers))
    return plan, list(seen.trials)


def find_baseline(release: Release, bounds: QualityBounds, seen: Observation, *, asks: bool) -> Baseline | None:
    """How the live release classifies the gate's labelled set: from a record, else measured now if the run `asks` it.

    None if there is no live release. If a release was proven live but cannot be measured, the gate is inconclusive.
    """
    good = seen.history.good
    if good is None:
        unread = "; ".join(seen.history.unread)
        return Baseline(measured=None, source=f"these records cannot be read: {unread}") if unread else None
    if found := recorded_baseline(seen.history.records, good["digest"], bounds.digest):
        return found
    if seen.history.torn_down:
        return None
    return evaluate_live(release, good, seen.health, find_service_url(release)[1] if asks else None)


def plan_again(first: Plan, second: Plan) -> Plan:
    """The plan of a run whose cluster could be reached only later: the second plan, as far as it can still be followed.

    Tasks that the first plan skipped stay skipped, and an image that it began to build is deployed. If another version has
    become live in the meantime, the golden cases that the run exports stay with the image of the first plan. If another run
    has found the release bad, nothing is deployed; the next run restores the good release if necessary.
    """
    if second.action == "nothing" or (second.action == first.action and not _mixes_exports(first, second)):
        return second
    if second.action == "restore":
        return Plan(action="nothing", reasons=second.reasons)
    return replace(first, reasons=second.reasons, baseline=second.baseline)


def _mixes_exports(first: Plan, second: Plan) -> bool:
    """Whether the second plan's image is not the one that the run exports golden cases for; other plans export for none."""
    return first.action == "cases" and (first.export, first.pushed) != (second.export, second.pushed)


def observe(release: Release, *, by_hand: bool, held: bool) -> Observation:
    """Read the records, what runs in the cluster, and what an apply would change.

    Without `held` it also checks the rights that the run needs. Raises as `make_plan` does.
    """
    records = read_records(Store(release.store), release.model)
    bad = None if by_hand or release.force else find_bad_record(records.records, release)
    absent = missing_cluster(release.target)
    if not absent:
        release = replace(release, target=identify_cluster(release.target))
    history = records.history.at(release.target, release.deployment)
    orphans = find_orphans(release, records.history)
    if absent:
        return Observation(history=history, health=Verdict.failed(absent), bad=bad, orphans=orphans, answers=False)
    good = history.good
    objects = _planned_manifests(release, good)
    if release.target.gke is None and not held:  # a GKE target's preflight has asked already
        check_rights(release, objects, history.objects)
    if not held:
        check_nodes(release, objects)
    trials = dry_run_plan(release, plan_apply(objects, history.objects))
    health = check_live_release(release, good) if good else Verdict.failed("there is none")
    return Observation(history=history, health=health, trials=tuple(trials), bad=bad, orphans=orphans)


def _planned_manifests(release: Release, good: Record | None) -> list[Manifest]:
    """The release's manifests with the image of the last good release, or a blank one if there is none."""
    if good is None:
        return live_manifests(release, reference=BLANK_IMAGE, version=BLANK_VERSION, release_id="planned")
    pushed = plan_reuse(release, good)[1]
    return live_manifests(release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id)


def plan_refresh(release: Release, seen: Observation) -> Plan:
    """What to do for this release, from what was observed."""
    return replace(_decide(release, seen), orphans=seen.orphans)


def _decide(release: Release, seen: Observation) -> Plan:
    good = seen.history.good
    if seen.bad is not None:
        return _plan_without(seen.bad, release, seen)
    if release.temporary or release.force:
        why = "a temporary cluster: everything is proven again" if release.temporary else "forced"
        return Plan(action="everything", reasons=(why,))
    if good is None:
        unread = seen.history.unread
        also = f", and these cannot be read: {'; '.join(unread)}" if unread else ""
        return Plan(action="everything", reasons=(f"there is no release that was proven live{also}",))
    if changed := changed_inputs(release, good):
        return Plan(action="everything", reasons=(*changed, *changed_promises(release, good).values()))
    export, pushed = plan_reuse(release, good)
    promises = changed_promises(release, good)
    differing = [trial.name for trial in seen.trials if diff_trial(trial)]
    reasons = [
        *promises.values(),
        *(differing and [f"differs from what is live: {', '.join(differing)}"]),
        *_problems(seen),
    ]
    if reasons:
        # `export` makes golden cases, and checks the labels of a set.
        action: Action = "cases" if {"golden", "set"} & promises.keys() else "gate" if promises else "manifests"
        return Plan(action=action, reasons=tuple(reasons), export=export, pushed=pushed)
    return Plan(
        action="nothing", reasons=("nothing changed, and the live release is healthy",), export=export, pushed=pushed
    )


def _plan_without(bad: Record, release: Release, seen: Observation) -> Plan:
    """What to do instead of deploying a bad release: nothing, or restore the last good one if that is not healthy.

    Nothing is restored to a target that was torn down, as a temporary one is after each run. If nothing serves then, the plan
    says so: the run is red.
    """
    why = _explain_bad(bad)
    good, problems = seen.history.good, _problems(seen)
    if release.temporary:
        return Plan(action="nothing", reasons=(why,))
    if good is None or seen.history.torn_down:
        return Plan(action="nothing", reasons=(why,), unserved=_explain_unserved(why, release, seen))
    if not problems:
        return Plan(action="nothing", reasons=(why,))
    restored, export, pushed = release_of_record(
        good, run_id=release.run_id, store=release.store, installation=release.installation, target=release.target
    )
    return Plan(
        action="restore",
        reasons=(why, *problems),
        export=export,
        pushed=pushed,
        manifests_uri=good["manifests"]["uri"],
        manifests_hash=good["manifests"]["hash"],
        release=restored,
    )


def _explain_unserved(why: str, release: Release, seen: Observation) -> str | None:
    """A line that no proven release serves, and why none is deployed; None if another store's release may serve there."""
    name = f"deployment/{release.deployment}"
    lives = any(trial.name == name and trial.before is not None for trial in seen.trials)
    if lives and seen.history.newest is None:
        return None
    return f"{name} in {release.target.namespace}: no release that was proven live serves there, and {why}"


def _explain_bad(bad: Record) -> str:
    """Which run found the release bad and why, and what a person can do."""
    what = (
        f"release {bad['release_id']}"
        if bad["release_id"]
        else f"revision {short(bad['release']['source']['revision'])}"
    )
    return (
        f"{what} was tried by run {bad['run_id']} at {bad['closed'] or bad['opened']} and is bad: {bad['bad']['task']}: "
        f"{bad['bad']['reason'].split('. Next: ')[0]}; the schedule does not try it again until it changes. "
        f"Next: fix what the model file names, or trigger {dag_id(bad['model'])} by hand"
    )


def _problems(seen: Observation) -> list[str]:
    """What is wrong with what was applied last."""
    found, newest = [], seen.history.newest
    if seen.history.torn_down and newest:
        gone, run_id = newest["outcome"] == "gone", newest["run_id"]
        found.append(f"it was torn down by run {run_id}" if gone else f"the teardown by run {run_id} did not end well")
    elif not seen.history.settled:
        found.append("an earlier run did not end well")
    if seen.health.outcome != "pass":
        found.append(f"the live release is not healthy: {seen.health.reason}")
    return found


def changed_inputs(release: Release, good: Record) -> tuple[str, ...]:
    """What has changed since a recorded release, among everything that determines the image."""
    now, then = to_dict(release), {**FIRST_RUNTIME, **good["release"]}
    watched = {
        "runtime": "the runtime",
        "precision": "the precision",
        "calibration": "the calibration",
        "source": "the source",
        "exporter": "the exporter",
        "export": "the export settings",
        "base_digest": "the base image",
        "repository": "the image's repository",
    }
    found = []
    for field, words in watched.items():
        if plain_json(now[field]) != plain_json(then.get(field)):  # a record of an earlier Slipway lacks newer fields
            was, is_ = (_shown(value.get(field)) for value in (then, now))
            found.append(f"{words} changed{f' from {was} to {is_}' if was else ''}")
    if release.precision == then["precision"] == "int8" and release.gate.limits["set"] != _gate_of(good).limits["set"]:
        found.append("the labelled set changed, on which int8 is measured")
    return tuple(found)


def changed_promises(release: Release, good: Record) -> dict[str, str]:
    """What has changed since a recorded release, among its gate's rules: the change in words, by the rule's name."""
    then, found = good["release"], {}
    if plain_json(_as_recorded(release.golden, then.get("golden", ()))) != plain_json(then.get("golden", ())):
        found["golden"] = "the golden cases changed"
    was = {"passes": then["gate_passes"], **_gate_of(good).limits}
    for name, value in {"passes": release.gate_passes, **release.gate.limits}.items():
        if value != was[name]:
            shown = "" if name in {"set", "load", "bake"} else f" from {was[name]} to {value}"
            found[name] = f"the gate changed: {'quality.set' if name == 'set' else name}{shown}"
    return found


def _gate_of(record: Record) -> Gate:
    """The gate of a record's release; one of an earlier Slipway has none."""
    return from_dict(Gate, record["release"].get("gate") or {})


def _as_recorded(golden: Sequence[GoldenRequest], then: Sequence[Any]) -> list[Any]:
    """Golden cases without the hashes that a record of an earlier Slipway lacks: whether those images changed is unknown."""
    unhashed = {case["name"] for case in then if case.get("sha256") is None}
    return [{**to_dict(case), **({"sha256": None} if case.name in unhashed else {})} for case in golden]


def plan_reuse(release: Release, good: Record) -> tuple[Export, Pushed]:
    """The recorded export and image; the image has the id of the new release."""
    pushed = from_dict(Pushed, good["pushed"])
    renamed = {**to_dict(pushed), "release_id": release.release_id(pushed.digest)}
    return from_dict(Export, good["export"]), from_dict(Pushed, renamed)


def check_rights(release: Release, objects: list[Manifest], before: tuple[ObjectRef, ...]) -> None:
    """Check every right in the namespace that the run needs. Raises PreflightFailed with all that are missing."""
    findings = inspect_rights(release, objects, before)
    for finding in findings:
        log.log(logging.INFO if finding.outcome == "ok" else logging.WARNING, "plan: %s", finding)
    require_nothing_missing(f"connection {release.target.conn_id}", findings)


def check_nodes(release: Release, objects: list[Manifest]) -> None:
    """Check that the nodes' CPUs have what the base image needs, as far as is known. Raises PreflightFailed."""
    findings = inspect_cpu_features(release, objects)
    for finding in findings:
        log.log(logging.INFO if finding.outcome == "ok" else logging.WARNING, "plan: %s", finding)
    require_nothing_missing(f"connection {release.target.conn_id}", findings)


def describe_plan(plan: Plan, trials: Sequence[Trial]) -> Iterator[tuple[int, str]]:
    """The plan for the log, one line each with its level: orphans, what the dry run would change, and the decision."""
    yield from ((logging.WARNING, line) for line in plan.orphans)
    yield from ((logging.INFO, line) for trial in trials for line in diff_trial(trial))
    yield logging.INFO, f"{plan.action}: {'; '.join(plan.reasons)}"


def diff_trial(trial: Trial) -> list[str]:
    """A unified diff of what a dry run would change, without what the cluster changes itself; empty if nothing would.

    The values of Secrets are masked.
    """
    before, after = (_lines(state) for state in mask_secret(trial.before, trial.after))
    return list(difflib.unified_diff(before, after, f"live {trial.name}", f"planned {trial.name}", lineterm="", n=2))


def _lines(state: dict[str, Any] | None) -> list[str]:
    if state is None:
        return []
    metadata = {key: value for key, value in state["metadata"].items() if key not in VOLATILE}
    if "annotations" in metadata:
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != REVISION_ANNOTATION}
    shown = {**{key: value for key, value in state.items() if key != "status"}, "metadata": metadata}
    return yaml.safe_dump(shown, sort_keys=True, allow_unicode=True).splitlines()


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return short(str(value.get("revision", "")))
    if not isinstance(value, str):
        return ""
    return short(value) if value.startswith("sha256:") else value
