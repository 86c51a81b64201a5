"""A sweep: variants of the live release run next to it, one at a time, where no user reaches them, are loaded, and are deleted.

A variant is rendered, applied, recorded and deleted as a preview is, under a name of its own. Nothing that serves is changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import replace

from slipway.errors import InputRefused, LoadTestUnfinished
from slipway.facts import Previewed, Recommendation, SweepTarget, Turn
from slipway.kubernetes.api import list_pods_async
from slipway.kubernetes.apply import Check
from slipway.kubernetes.forward import forwarded
from slipway.kubernetes.identity import identify_cluster
from slipway.kubernetes.kustomize import build_manifests
from slipway.kubernetes.manifests import (
    BASE_NAME,
    BLANK_IMAGE,
    BLANK_RELEASE_ID,
    BLANK_VERSION,
    Manifest,
    check_manifests,
)
from slipway.kubernetes.policy import check_policy
from slipway.kubernetes.usage import watched_usage
from slipway.kubernetes.variant_overlay import render_variant
from slipway.model.served import read_model_file
from slipway.model.sweep_settings import sweep_plan
from slipway.names import record_key, sweep_run_folder, sweep_suffix
from slipway.paths import model_file, shown
from slipway.programs import Started
from slipway.records.history import read_records, release_of_record
from slipway.records.record import read_record
from slipway.records.store import Store, read_json
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.serving.golden import cases_from
from slipway.serving.load import Server, questions_of_cases, render_load_request
from slipway.serving.load_program import draw_sweep, run_load_test
from slipway.serving.sweep import describe_sweep, judge_sweep, load_plan_of_turn, measured_turn, render_table
from slipway.steps.deploy import read_manifests
from slipway.steps.load_gate import predict_route
from slipway.steps.load_test import keep_load_test, live_history
from slipway.steps.location import target_now, target_of_model_file
from slipway.steps.preview import apply_beside, check_preview_apart, plan_preview, remove_previews
from slipway.steps.settings import Settings, allowed_in_overlays, ensure_installation
from slipway.variants import SweepPlan, Variant

FIGURES, TABLE, PICTURE, OVERLAY = "sweep.json", "sweep.txt", "sweep.png", "kustomization.yaml"
STEP = re.compile(r"step \d+ of \d+: ")  # what the load test's program prints when a step begins
GONE_S, GONE_POLL_S = 180, 1  # how long deleted pods may take to leave room for the next variant's

log = logging.getLogger(__name__)


def choose_sweep(model: str, settings: Settings, *, run_id: str) -> SweepTarget:
    """The live release, and what is compared. Raises InputRefused, StoreError, ClusterUnreachable, ReleaseUnsettled."""
    path = model_file(model)
    file = read_model_file(path)
    if file.sweep is None:
        raise InputRefused(f"{shown(path)}: has no sweep. Next: add it, see docs/load.md")
    store = Store(settings.store)
    record = live_history(store, model).good
    assert record is not None  # noqa: S101 - a live release has a record
    release, export, pushed = release_of_record(
        record,
        run_id=run_id,
        store=store.uri,
        installation=ensure_installation(),
        target=target_now(record, target_of_model_file(model, settings)),
    )
    return SweepTarget(
        release=release,
        export=export,
        pushed=pushed,
        manifests_uri=record["manifests"]["uri"],
        manifests_hash=record["manifests"]["hash"],
        plan=sweep_plan(file.sweep, file.target.overlay),
    )


def variant_of_turn(plan: SweepPlan, number: int, name: str) -> Variant:
    """The variant of a turn; `name` is what the DAG says. Raises InputRefused if the model file has changed since."""
    turns = plan.turns
    if number >= len(turns) or turns[number].name != name:
        raise InputRefused(
            f"turn {number}: the model file no longer has the variant {name}. Next: trigger the sweep again"
        )
    return turns[number]


def render_overlay(release: Release, variant: Variant) -> str:
    """The text of a variant's kustomization. Raises ManifestError."""
    release = replace(release, overlay=variant.overlay)
    objects = build_manifests(release, reference=BLANK_IMAGE, version=BLANK_VERSION, release_id=BLANK_RELEASE_ID)
    return render_variant(variant, release, objects)


def start_variant(target: SweepTarget, variant: Variant, number: int, settings: Settings, *, check: Check) -> Previewed:
    """Run a variant next to the live release; `check` is called before the first write. Raises ManifestError, ApplyError, StoreError."""
    release, suffix = replace(target.release, overlay=variant.overlay), sweep_suffix(number)
    release = replace(release, target=identify_cluster(release.target))
    objects = variant_manifests(target, variant, number, settings)
    remove_left_variants(release)  # else the record would forget what an earlier turn could not delete
    return apply_beside(
        release, suffix, objects, export=target.export, pushed=target.pushed, cause="sweep", check=check
    )


def variant_manifests(target: SweepTarget, variant: Variant, number: int, settings: Settings) -> list[Manifest]:
    """The checked objects of a variant: those that its pods need, a Service inside the cluster, and as many pods as it starts with.

    Raises ManifestError, StoreError.
    """
    release, suffix, pushed = replace(target.release, overlay=variant.overlay), sweep_suffix(number), target.pushed
    beside = release.beside(suffix)
    rendered = build_manifests(
        release,
        reference=pushed.reference,
        version=pushed.version,
        release_id=f"{pushed.release_id}{suffix}",
        suffix=suffix,
        variant=render_overlay(release, variant),
    )
    check_policy(rendered, allowed_in_overlays(settings))
    objects = plan_preview(rendered, beside)
    check_manifests(objects, beside, reference=pushed.reference)
    live = read_manifests(target.manifests_uri, target.manifests_hash)
    check_preview_apart(objects, list(live.objects), release)
    return with_replicas(objects, rendered, beside.deployment)


def with_replicas(objects: list[Manifest], rendered: list[Manifest], name: str) -> list[Manifest]:
    """The objects, with as many pods as the autoscaler that was rendered with them starts with: it is not applied itself."""
    autoscalers = [
        one for one in rendered if one["kind"] == "HorizontalPodAutoscaler" and one["metadata"]["name"] == name
    ]
    replicas = autoscalers[0]["spec"].get("minReplicas", 1) if autoscalers else 1
    return [
        {**one, "spec": {**one["spec"], "replicas": replicas}} if one["kind"] == "Deployment" else one
        for one in objects
    ]


def labels_of_turn(release: Release, number: int) -> dict[str, str]:
    """The labels of a turn's pods, which no other pods have."""
    return {**release.selector_labels, "app": f"{BASE_NAME}{sweep_suffix(number)}"}


def load_variant(target: SweepTarget, variant: Variant, number: int, *, python: str, started: Started) -> Turn:
    """Load a variant that runs, read its CPU meanwhile, and keep the figures. Raises LoadTestUnfinished, StoreError."""
    release, plan = target.release, target.plan
    cases = cases_from(read_json(target.export.golden_uri))
    service, labels = release.beside(sweep_suffix(number)).proxy_path, labels_of_turn(release, number)
    route = predict_route(release, service, target.pushed.version)
    began_s: list[float] = []

    def heard(line: str) -> None:
        if STEP.match(line):
            began_s.append(time.time())

    with (
        scratch_folder("sweep") as scratch,
        forwarded(release.target, (route,)) as forwarding,
        watched_usage(release.target, labels) as watch,
    ):
        request = render_load_request(
            load_plan_of_turn(plan),
            questions_of_cases(cases),
            model=release.model,
            server=Server(version=target.pushed.version, rest=forwarding.addresses[0]),
            descriptors=b"",
        )
        out, figures = run_load_test(request, python=python, scratch=scratch, started=started, heard=heard)
        uri = keep_load_test(release.store, f"{_folder(target)}/{number}", out)
    return measured_turn(
        plan, variant.name, number, figures, uri=uri, began_s=began_s, usages=watch.found, why_no_cpu=watch.why_not
    )


def remove_variant(target: SweepTarget, number: int) -> None:
    """Delete what the run's record lists, and wait until the turn's pods are gone: the next variant needs their room.

    Raises ApplyError, StoreError.
    """
    release = target.release
    record = read_record(Store(release.store), release.model, release.run_id)
    remove_previews(release, [record] if record else [])
    end_s = time.monotonic() + GONE_S
    while left := _pods_of_turn(release, number):
        if time.monotonic() > end_s:
            log.warning("sweep: still there after %d s: %s", GONE_S, ", ".join(left))
            return
        time.sleep(GONE_POLL_S)


def _pods_of_turn(release: Release, number: int) -> list[str]:
    """The names of a turn's pods; an unknown one if they cannot be listed now."""
    try:
        pods = asyncio.run(list_pods_async(release.target, labels_of_turn(release, number)))
    except Exception as error:  # the client's own kinds; it is tried again
        return [f"pods that cannot be listed ({type(error).__name__})"]
    return [pod["metadata"]["name"] for pod in pods]


def remove_left_variants(release: Release) -> None:
    """Delete what this sweep and killed runs left next to the live release. Raises ApplyError, StoreError."""
    remove_previews(release, read_records(Store(release.store), release.model).records)


def forget_sweep(release: Release) -> None:
    """Delete the run's record, which only listed what had to be deleted. Raises StoreError."""
    store = Store(release.store)
    record = read_record(store, release.model, release.run_id)
    if record and record["cause"] == "sweep" and not record["preview"]:
        store.remove(record_key(release.model, release.run_id))


def recommend(target: SweepTarget, turns: list[Turn], *, python: str, started: Started) -> Recommendation:
    """Judge the turns, and keep table, picture and the recommended overlay.

    Raises LoadTestUnfinished if nothing was measured, ManifestError, StoreError.
    """
    release, plan = target.release, target.plan
    found = judge_sweep(plan, turns)
    table = render_table(found)
    for line in table.splitlines():
        log.info("sweep: %s", line)
    if not any(turn.why_not is None for turn in turns):
        reason = next((turn.why_not for turn in turns), "no turn has ended")
        raise LoadTestUnfinished(f"sweep: no variant was measured: {reason}")
    with scratch_folder("sweep") as scratch:
        out = scratch / "out"
        out.mkdir()
        figures = {
            "model": release.model,
            "release_id": target.pushed.release_id,
            "version": target.pushed.version,
            **found,
        }
        (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (out / TABLE).write_text(f"{table}\n\n{describe_sweep(found)}\n", encoding="utf-8")
        draw_sweep(out / FIGURES, out / PICTURE, python=python, scratch=scratch, started=started)
        chosen = next((one for one in plan.variants if one.name == found["recommended"]), None)
        if chosen is not None:
            (out / OVERLAY).write_text(render_overlay(release, chosen), encoding="utf-8")
        uri = keep_load_test(release.store, _folder(target), out)
    log.info("%s; kept at %s", describe_sweep(found), uri)
    return Recommendation(uri=uri, variant=found["recommended"], figures=figures)


def _folder(target: SweepTarget) -> str:
    return sweep_run_folder(target.release.model, target.pushed.release_id, target.release.run_id)
