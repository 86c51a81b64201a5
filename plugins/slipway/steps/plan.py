"""The plan: what a run has to do, from what changed since the live release and whether that release is well."""

from __future__ import annotations

import difflib
import logging
from dataclasses import replace
from typing import Any

import yaml

from slipway.facts import Export, Plan, Pushed, from_dict, to_dict
from slipway.gke.cluster import judge_cluster
from slipway.kubernetes.apply import Trial, plan_apply, try_plan
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import BLANK_IMAGE, Manifest
from slipway.kubernetes.rights import inspect_rights
from slipway.names import dag_id, short
from slipway.records.history import History, find_bad, read_records, recorded
from slipway.records.record import Record, plain
from slipway.records.store import Store
from slipway.release import Release
from slipway.serving.evaluation import evaluate_live
from slipway.steps.health import check_health, find_url
from slipway.steps.orphans import find_orphans
from slipway.target import Target
from slipway.verdict import Verdict, require

VOLATILE = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
REVISION_ANNOTATION = "deployment.kubernetes.io/revision"  # the Deployment controller's own

log = logging.getLogger(__name__)


def plan_refresh(
    release: Release,
    history: History,
    health: Verdict,
    differing: tuple[str, ...],
    *,
    bad: Record | None = None,
) -> Plan:
    """What to do for this release.

    `health` is what the live release is worth now, `differing` names live objects that a dry run would change. `bad` is the
    record of a run that found this very release bad, where nobody has said to try it again.
    """
    good = history.good
    if bad is not None:
        return _plan_without(bad, release, history, health)
    if release.temporary or release.force:
        why = "a temporary cluster: everything is proven anew" if release.temporary else "forced"
        return Plan(action="everything", reasons=(why,))
    if good is None:
        unread = f", and these cannot be read: {'; '.join(history.unread)}" if history.unread else ""
        return Plan(action="everything", reasons=(f"there is no release that was proven live{unread}",))
    changed = changes(release, good)
    if changed:
        return Plan(action="everything", reasons=changed)
    export, pushed = kept(release, good)
    reasons = list(differing and (f"differs from what is live: {', '.join(differing)}",))
    reasons += _ailments(history, health)
    if reasons:
        return Plan(action="manifests", reasons=tuple(reasons), export=export, pushed=pushed)
    return Plan(
        action="nothing", reasons=("nothing changed, and the live release is well",), export=export, pushed=pushed
    )


def _plan_without(bad: Record, release: Release, history: History, health: Verdict) -> Plan:
    """What to do instead of a release that was found bad: nothing, or bring the last good one back where it is not well.

    A target that was torn down, as a temporary one is after each run, gets nothing back.
    """
    told = _why_not(bad)
    good, ailments = history.good, _ailments(history, health)
    if good is None or history.torn_down or release.temporary or not ailments:
        return Plan(action="nothing", reasons=(told,))
    back, export, pushed = recorded(good, run_id=release.run_id, store=release.store)
    return Plan(
        action="restore",
        reasons=(told, *ailments),
        export=export,
        pushed=pushed,
        manifests_uri=good["manifests"]["uri"],
        release=back,
    )


def _why_not(bad: Record) -> str:
    what = (
        f"release {bad['release_id']}"
        if bad["release_id"]
        else f"revision {short(bad['release']['source']['revision'])}"
    )
    return (
        f"{what} was tried by run {bad['run_id']} at {bad['closed'] or bad['opened']} and is bad: {bad['bad']['task']}: "
        f"{bad['bad']['reason'].split('. Next: ')[0]}; the schedule does not try it again until it changes. "
        f"Next: mend what the model file names, or trigger {dag_id(bad['model'])} by hand"
    )


def _ailments(history: History, health: Verdict) -> list[str]:
    """Why what was applied last cannot be left as it is."""
    found = []
    if history.torn_down and history.newest:
        gone, run_id = history.newest["outcome"] == "gone", history.newest["run_id"]
        found.append(f"it was torn down by run {run_id}" if gone else f"the teardown by run {run_id} did not end well")
    elif not history.settled:
        found.append("an earlier run did not end well")
    if health.outcome != "pass":
        found.append(f"the live release is not well: {health.reason}")
    return found


def changes(release: Release, good: Record) -> tuple[str, ...]:
    """What has changed since a recorded release, of all that decides the image and the golden cases."""
    now, then = to_dict(release), good["release"]
    watched = {
        "source": "the source",
        "exporter": "the exporter",
        "export": "the export settings",
        "base_digest": "the base image",
        "golden": "the golden cases",
        "repository": "the image's repository",
    }
    found = []
    for field, words in watched.items():
        if plain(now[field]) != plain(then.get(field)):  # a record of an earlier Slipway lacks what is new
            was, is_ = (_shown(value.get(field)) for value in (then, now))
            found.append(f"{words} changed{f' from {was} to {is_}' if was else ''}")
    return tuple(found)


def kept(release: Release, good: Record) -> tuple[Export, Pushed]:
    """The recorded export and image, the image under the id that it has in the new release."""
    pushed = from_dict(Pushed, good["pushed"])
    renamed = {**to_dict(pushed), "release_id": release.release_id(pushed.digest)}
    return from_dict(Export, good["export"]), from_dict(Pushed, renamed)


def make_plan(release: Release, *, by_hand: bool, held: bool = False) -> tuple[Plan, list[Trial]]:
    """The plan for a release, and what the API server says its manifests would change. Writes nothing anywhere.

    A release that was found bad is tried again only in a run that was triggered `by_hand`, or is forced. A first look asks
    for the rights that the run needs; the live release is asked the gate's labelled set in the second, when the target is
    `held` and nobody replaces it.
    Raises StoreError, ManifestError, ApplyError.
    """
    records = read_records(Store(release.store), release.model)
    bad = None if by_hand or release.force else find_bad(records.records, release)
    all_places = records.history
    history, orphans = all_places.at(release.target, release.deployment), find_orphans(release, all_places)
    good = history.good
    if absent := missing_cluster(release.target):  # nothing to ask, and nothing to lose
        return replace(plan_refresh(release, history, Verdict.failed(absent), (), bad=bad), orphans=orphans), []
    if good is None:
        reference, version, release_id = BLANK_IMAGE, 0, "planned"
    else:
        pushed = kept(release, good)[1]
        reference, version, release_id = pushed.reference, pushed.version, pushed.release_id
    objects = render_manifests(release, reference=reference, version=version, release_id=release_id)
    if release.target.gke is None and not held:  # a GKE target's preflight has asked already
        check_rights(release, objects)
    trials = try_plan(release, plan_apply(objects, history.objects))
    differing = tuple(trial.name for trial in trials if differences(trial))
    health = check_health(release, good) if good else Verdict.failed("there is none")
    plan = plan_refresh(release, history, health, differing, bad=bad)
    if held and plan.action not in {"nothing", "restore"} and release.gate.quality is not None:
        plan = replace(plan, baseline=evaluate_live(release, good, health, find_url(release)[1]))
    return replace(plan, orphans=orphans), trials


def check_rights(release: Release, objects: list[Manifest]) -> None:
    """Every right in the namespace that the run uses, asked at once. Raises PreflightFailed with all that are missing."""
    findings = inspect_rights(release, objects)
    for one in findings:
        log.log(logging.INFO if one.outcome == "ok" else logging.WARNING, "plan: %s", one)
    require(f"connection {release.target.conn_id}", findings)


def missing_cluster(target: Target) -> str | None:
    """Why a target's cluster cannot be asked yet; None where it can be, or where it is not ours to make."""
    if target.gke is None:
        return None
    from slipway.gke.lookup import find_cluster

    verdict = judge_cluster(target.gke, find_cluster(target.conn_id, target.gke), None)
    return None if verdict.outcome == "pass" else verdict.reason


def differences(trial: Trial) -> list[str]:
    """A unified diff of what a dry run would change, without what changes by itself; no lines where nothing would."""
    before, after = (_lines(state) for state in (trial.before, trial.after))
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
    return short(value) if isinstance(value, str) else ""
