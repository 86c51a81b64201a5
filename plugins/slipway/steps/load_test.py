"""A load test of the live release, or of another server: what is asked of which address, and where the figures are kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slipway.errors import InputRefused, LoadTestFailed, ReleaseUnsettled, StoreError
from slipway.facts import Export, LoadTarget, LoadTest
from slipway.kubernetes.address import judge_address, service_grpc_address
from slipway.kubernetes.api import read_object
from slipway.load_plan import LoadPlan
from slipway.model.load_settings import LoadSettings
from slipway.model.served import read_model_file
from slipway.names import load_folder, load_run_folder, model_path
from slipway.paths import model_file, shown
from slipway.programs import Started
from slipway.records.history import History, read_current_history, release_of_record
from slipway.records.record import Record
from slipway.records.store import Store, fetch_from_store, read_bytes, read_json
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.serving.client import requests_with_images, send_grpc_request, send_request
from slipway.serving.golden import GrpcError, cases_from, largest_available
from slipway.serving.labelled_set import read_image_folder, read_labelled_set
from slipway.serving.load import Question, Server, judge_load, questions_of_cases, render_load_request
from slipway.serving.load_program import run_load_test
from slipway.steps.location import target_now, target_of_model_file
from slipway.steps.settings import LoadParams, Settings
from slipway.steps.waits import fixed_address

FIGURES = "load.json"

log = logging.getLogger(__name__)


def choose_load_target(model: str, settings: Settings, params: LoadParams, *, run_id: str) -> LoadTarget:
    """The live release and its address now, or the server that the form names, which is asked as the live release is.

    Raises InputRefused, StoreError, ClusterUnreachable, ReleaseUnsettled.
    """
    path = model_file(model)
    asked = read_model_file(path).load_test
    if asked is None:
        raise InputRefused(f"{shown(path)}: has no load_test. Next: add it, see docs/load.md")
    plan = plan_of(asked, params.changes)
    store = Store(settings.store)
    history = live_history(store, model)
    record = history.good
    assert record is not None  # noqa: S101 - a live release has a record
    target = target_now(record, target_of_model_file(model, settings))
    release, export, _ = release_of_record(
        record, run_id=run_id, store=store.uri, installation=record["release"].get("installation"), target=target
    )
    if params.elsewhere:
        rest, grpc = params.rest, params.grpc
        version = find_version(model, export, rest=rest, grpc=grpc)
        before = _newest_test(store, model, record["release_id"])
    else:
        rest, grpc = _addresses(release)
        version, before = record["version"], _test_before(store, history.proven(), record)
    return LoadTarget(
        model=model,
        run_id=run_id,
        release_id=record["release_id"],
        version=version,
        rest=rest,
        grpc=grpc,
        export=export,
        plan=plan,
        store=store.uri,
        before=before,
        elsewhere=params.elsewhere,
    )


def find_version(model: str, export: Export, *, rest: str | None, grpc: str | None) -> int:
    """The version that a server elsewhere answers with: the largest that is AVAILABLE; over gRPC alone, the one of an answer.

    Raises InputRefused, StoreError.
    """
    if rest is not None:
        answer = send_request(rest, model_path(model))
        if (version := largest_available(answer)) is None:
            raise InputRefused(
                f"Param rest: {rest}: no version of {model} is AVAILABLE (HTTP {answer.status}). "
                f"Next: look at {rest}{model_path(model)}, or enter another address"
            )
        return version
    assert grpc is not None  # noqa: S101 - the form has one of both
    descriptors, [case, *_] = read_bytes(export.descriptors_uri), cases_from(read_json(export.golden_uri))
    answered = send_grpc_request(grpc, descriptors, case, None)
    if isinstance(answered, GrpcError):
        raise InputRefused(
            f"Param grpc: {grpc}: {model}: {answered.code}: {answered.message}. "
            "Next: look at the server, or enter another address"
        )
    return answered.version


def live_history(store: Store, model: str) -> History:
    """The history at the target where a proven release of the model serves now.

    Raises InputRefused if none does, StoreError; ReleaseUnsettled if a run has not recorded its end yet: the Asset's event, which starts a
    load test, comes some seconds before that.
    """
    history = read_current_history(store, model)
    if history.newest is not None and history.newest["outcome"] == "open":
        raise ReleaseUnsettled(
            f"model {model}: run {history.newest['run_id']} has applied a release and not recorded its end. "
            "Next: wait until it has ended; if it was killed, trigger the model's refresh"
        )
    if history.good is None or not history.settled:
        raise InputRefused(f"model {model}: no release is live and proven. Next: trigger its refresh")
    return history


def plan_of(asked: LoadSettings, changes: Mapping[str, Any]) -> LoadPlan:
    """The plan of the model file, with what the form says instead. Raises InputRefused.

    The model file bounds the form's rates. Its `least_per_s` counts only if it is one of them.
    """
    least, most = asked.least_per_s, asked.form_most_per_s
    without = {"least_per_s": None, "most_per_s": None}
    try:
        asked = LoadSettings.model_validate({**asked.model_dump(), **changes, **without})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputRefused(
            f"Param {'.'.join(map(str, first['loc'])) or 'rates_per_s'}: {first['msg']}. Next: correct it"
        ) from error
    if (largest := max(asked.rates_per_s, default=0)) > most:
        raise InputRefused(
            f"Param rates_per_s: {largest:g}/s is more than the model file allows, {most:g}/s. "
            "Next: enter smaller rates, or set load_test.most_per_s"
        )
    names = LoadPlan.__dataclass_fields__.keys() & LoadSettings.model_fields.keys()
    plan = LoadPlan(**{name: getattr(asked, name) for name in names})
    return replace(plan, least_per_s=least) if least in asked.rates_per_s else replace(plan, left_out_per_s=least)


def _addresses(release: Release) -> tuple[str, str | None]:
    """The live release's REST URL and gRPC address. Raises InputRefused if it has no address yet."""
    if fixed := fixed_address(release):
        return str(fixed["url"]), fixed["grpc"]
    service = read_object(release.target, "Service", release.service)
    verdict, url = judge_address(service, name=release.service, namespace=release.target.namespace)
    if service is None or url is None:
        raise InputRefused(f"{verdict.reason}. Next: wait until it has one, and clear this task")
    return url, service_grpc_address(service)


def _test_before(store: Store, proven: tuple[Record, ...], live: Record) -> str | None:
    """The URI of the newest test of the release before the live one that has any, for the same picture."""
    for record in proven:
        if record["release_id"] != live["release_id"] and (
            found := _newest_test(store, live["model"], record["release_id"])
        ):
            return found
    return None


def _newest_test(store: Store, model: str, release_id: str) -> str | None:
    """The URI of the figures of a release's newest load test; not those of a gate in rounds, or of another server."""
    folder = load_folder(model, release_id)
    began: dict[str, str] = {}
    for run in store.names(folder):
        key = f"{folder}/{run}/{FIGURES}"
        try:
            figures = store.read_json(key)
        except StoreError as error:  # a picture without it is no reason to measure nothing
            log.warning("choose: not in the picture: %s", error)
            continue
        if not figures.get("elsewhere") and not any(step["round"] for step in figures["steps"]):
            began[store.uri_of(key)] = figures["began"]
    return max(began, key=began.__getitem__, default=None)


def run_test(target: LoadTarget, *, python: str, started: Started) -> LoadTest:
    """Load the release, or the other server, and keep the figures. Raises LoadTestFailed, LoadTestUnfinished, StoreError."""
    descriptors = read_bytes(target.export.descriptors_uri)
    with scratch_folder("load") as scratch:
        request = render_load_request(
            target.plan,
            _questions(target, descriptors),
            model=target.model,
            server=Server(version=target.version, rest=target.rest, grpc=target.grpc),
            descriptors=descriptors,
            elsewhere=target.elsewhere,
        )
        before = fetch_from_store(target.before, scratch / "before.json") if target.before else None
        out, figures = run_load_test(
            request, python=python, scratch=scratch, started=started, workers=target.plan.workers, before=before
        )
        uri = keep_load_test(target.store, load_run_folder(target.model, target.release_id, target.run_id), out)
    verdict = judge_load(target.plan, figures)
    log.info("%s; kept at %s", verdict.reason, uri)
    if verdict.outcome != "pass":
        raise LoadTestFailed(f"{verdict.reason}. Next: look at {uri}/load.png and report.html")
    return LoadTest(uri=uri, release_id=target.release_id, version=target.version, figures=figures, said=verdict.reason)


def _questions(target: LoadTarget, descriptors: bytes) -> tuple[Question, ...]:
    """The golden cases, or the images that the plan names instead, as requests like the first golden case's."""
    golden = questions_of_cases(cases_from(read_json(target.export.golden_uri)))
    if target.plan.images == "golden":
        return golden
    where = model_file(target.model)
    if target.plan.images == "labelled":
        quality = read_model_file(where).gate.quality
        if quality is None:
            raise InputRefused(
                f"{where.name}: load_test.images: labelled needs gate.quality. Next: give it, or use golden"
            )
        images = read_labelled_set(where, quality.set)
    else:
        images = read_image_folder(where, target.plan.images)
    requests = requests_with_images(descriptors, golden[0].grpc_request, [image.data for image in images])
    return tuple(
        Question(name=image.name, rest_body=image.rest_body, grpc_request=request)
        for image, request in zip(images, requests, strict=True)
    )


def keep_load_test(store_uri: str, folder: str, out: Path) -> str:
    """Store the test's files in a folder of the store; the figures last, which mark it as complete. Returns its URI."""
    store = Store(store_uri)
    files = sorted(out.iterdir(), key=lambda file: file.name == FIGURES)
    for file in files:
        store.put_file(file, f"{folder}/{file.name}")
    return store.uri_of(folder)
