"""Resolve: makes a Release, in which everything is pinned, from a model file and a form.

A run reads Airflow's Variables and connections here, once. Invalid input is refused here, before anything is built.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from slipway.connections import check_bucket_connection
from slipway.errors import InputRefused
from slipway.facts import from_dict
from slipway.image.append import check_repository, pin_base
from slipway.image.engine import check_base, check_registry, engine_at, log_in, resolve_base
from slipway.image.registry_login import Login, find_login, is_artifact_registry
from slipway.kubernetes.client import namespace_of_connection
from slipway.model.bake_settings import BakeSettings
from slipway.model.bucket import bucket_hash
from slipway.model.content import content_hash
from slipway.model.exporter import exporter_hash
from slipway.model.gate_settings import GateSettings, GoldenImage, QualitySettings
from slipway.model.hub import COMMIT, hub_commit
from slipway.model.model_file import ModelFile, is_previewed
from slipway.model.served import check_unshared, read_model_file, served_files
from slipway.model.source_settings import ArchiveSource, FolderSource, HubSource
from slipway.names import repository_of
from slipway.paths import served_folder, shown, shown_model_file
from slipway.records.store import Store
from slipway.release import (
    Bake,
    ExportLimits,
    ExportOptions,
    ExportPod,
    Gate,
    GoldenRequest,
    LoadBounds,
    QualityBounds,
    Release,
    Retention,
    Source,
)
from slipway.runtimes import RUNTIMES
from slipway.serving.labelled_set import pin_labelled_set
from slipway.serving.prometheus import find_prometheus
from slipway.steps.rendering import render_release
from slipway.steps.settings import (
    RefreshParams,
    Settings,
    allowed_in_overlays,
    allowed_without_sandbox,
    ensure_installation,
    find_installation,
    resolve_target,
)
from slipway.target import Target
from slipway.urls import plain_url

REPOSITORY = re.compile(  # as the engine parses it
    r"((\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:\d+)?/)?[a-z0-9]+((\.|_{1,2}|-+|/)[a-z0-9]+)*"
)


log = logging.getLogger(__name__)


def resolve(path: Path, params: RefreshParams, settings: Settings, *, run_id: str) -> Release:
    """The Release that this run is to deploy.

    Raises InputRefused, ResolveError, ManifestError, ImageError; each in one line that says how to fix it.
    """
    model, file = path.stem, read_model_file(path)
    check_unshared(readable_files(path, file))
    allowed, without_sandbox = allowed_in_overlays(settings), allowed_without_sandbox(settings)
    store = Store(settings.store)
    target = resolve_target(file.target, settings)
    runtime = RUNTIMES[file.serving.runtime]
    base_image, repository = resolve_serving_image(model, file, settings), resolve_repository(model, file, settings)
    registry_conn_id = resolve_registry_connection(file, repository, target, settings)
    login = find_login(registry_conn_id, repository, base_image)
    base_digest = _pin_base(file, base_image, repository, login)
    return render_release(
        Release(
            model=model,
            run_id=run_id,
            source=resolve_source(file, params.revision, is_kept=lambda source: store.exists(source.kept_key(model))),
            exporter=exporter_hash(runtime),
            runtime=runtime.name,
            precision=file.export.precision,
            calibration=file.export.calibration,
            base_image=base_image,
            base_digest=base_digest,
            repository=repository,
            engine_conn_id=file.image.engine_conn_id,
            builder=file.image.builder,
            registry_conn_id=registry_conn_id,
            target=target,
            deployment=file.target.deployment,
            overlay=params.overlay or file.target.overlay,
            address=file.target.address,
            golden=tuple(resolve_golden(path, case, params.min_confidence) for case in file.gate.golden),
            gate_passes=file.gate.passes,
            gate_timeout_s=file.gate.timeout_s,
            rollout_timeout_s=file.rollout_timeout_s,
            address_timeout_s=file.address_timeout_s,
            manifests_hash="",
            store=settings.store,
            store_uid=store.find_identity() if params.plan_only else store.identity(),
            force=params.force,
            keep_first=file.on_first_failure == "keep",
            retention=Retention(**file.retention.model_dump()),
            export=ExportOptions(
                **file.export.model_dump(exclude={"limits", "precision", "calibration", "run_in", "pod"})
            ),
            limits=ExportLimits(**file.export.limits.model_dump()),
            export_pod=resolve_export_pod(file, settings),
            without_sandbox=without_sandbox,
            cluster=file.target.gke.spec if file.target.gke else None,
            unschedulable_grace_s=file.target.unschedulable_grace_s,
            gate=resolve_gate(path, file.gate, store, keep=not params.plan_only),
            grpc_address=file.target.grpc_address,
            cpu_features=file.image.cpu_features,
            strategy="preview" if is_previewed(file) else "rolling",
            installation=_name_installation(params),
        ),
        allowed=allowed,
        keep=not params.plan_only,
    )


def resolve_export_pod(file: ModelFile, settings: Settings) -> ExportPod | None:
    """The pod that exports; None if the worker does. Raises InputRefused if it has no image, or its connection is invalid."""
    asked, runtime = file.export.pod, RUNTIMES[file.serving.runtime]
    if file.export.run_in == "worker":
        return None
    image = asked.image or settings.exporter_images.get(runtime.name)
    if image is None:
        folder = runtime.lock.rpartition("/")[0]
        raise InputRefused(
            f"export.pod.image: not set, nor the Variable {runtime.exporter_image_variable}. "
            f"Next: build an image with {folder}/Dockerfile, push it, and name it there"
        )
    namespace = namespace_of_connection(asked.conn_id)  # which also checks the connection
    return ExportPod(**{**asked.model_dump(), "namespace": asked.namespace or namespace, "image": image})


def _pin_base(file: ModelFile, base_image: str, repository: str, login: Login | None) -> str:
    """The base image's digest, as what builds the image finds it, which can also log in to the image's repository."""
    runtime = RUNTIMES[file.serving.runtime]
    if file.image.builder == "registry":
        base_digest = pin_base(base_image, login, runtime)
        check_repository(repository, login)
        return base_digest
    with engine_at(file.image.engine_conn_id) as client:
        log_in(client, login)
        base_digest = resolve_base(client, base_image, login)
        check_base(client, f"{repository_of(base_image)}@{base_digest}", runtime)
        check_registry(client, repository, login)
    return base_digest


def resolve_serving_image(model: str, file: ModelFile, settings: Settings) -> str:
    """The base image: the model file's; if that has the runtime's default, the Variable's.

    Raises InputRefused if the runtime has no published image, and neither names one.
    """
    runtime = RUNTIMES[file.serving.runtime]
    asked, named = file.image.base or runtime.serving_image, settings.serving_images.get(runtime.name)
    if named and asked == runtime.serving_image:
        log.info("resolve: the base image is that of the Variable %s: %s", runtime.image_variable, named)
        return named
    if asked is None:
        raise InputRefused(
            f"{shown_model_file(model)}: image.base: not given, and the Variable {runtime.image_variable} is not set. "
            f"Next: set one to an image for serving.runtime: {runtime.name}: {runtime.image_source}"
        )
    return asked


def resolve_repository(model: str, file: ModelFile, settings: Settings) -> str:
    """The image's repository. Raises InputRefused if neither the model file nor the Variable gives a valid one."""
    prefix = settings.registry.rstrip("/") if settings.registry else None
    repository = file.image.repository or (prefix and f"{prefix}/{model}")
    if not repository:
        raise InputRefused(
            f"{shown_model_file(model)}: image.repository: not given, and the Variable slipway_registry is not set. "
            "Next: set one, such as LOCATION-docker.pkg.dev/PROJECT/REPOSITORY"
        )
    if not REPOSITORY.fullmatch(repository):
        where = f"{shown_model_file(model)}: image.repository" if file.image.repository else "Variable slipway_registry"
        raise InputRefused(
            f"{where}: {repository.rpartition('@')[2]} is not an image repository. "
            "Next: write HOST[:PORT]/PATH, the path in lower case, without https://, without a login and without a tag"
        )
    return repository


def resolve_registry_connection(file: ModelFile, repository: str, target: Target, settings: Settings) -> str | None:
    """The connection that logs in to the registry: the model file's; the Variable's if the repository is the Variable's too.

    If neither names one, the connection that creates the cluster logs in to an Artifact Registry.
    """
    named = file.image.registry_conn_id or (None if file.image.repository else settings.registry_conn_id)
    if named is None and target.gke is not None and is_artifact_registry(repository):
        return target.conn_id
    return named


def resolve_source(
    file: ModelFile, revision: str | None, *, is_kept: Callable[[Source], bool] = lambda _: False
) -> Source:
    """The source, pinned to a revision. A commit that the store keeps is not looked up at the Hub.

    Raises InputRefused, ResolveError.
    """
    source = file.source
    if isinstance(source, HubSource):
        return _pin_hub(source, revision or source.revision, is_kept)
    if revision is not None:
        raise InputRefused(
            f"Param revision: {revision!r} was given, but the source is not a Hub model. Next: leave it empty"
        )
    if isinstance(source, FolderSource) and source.is_remote:
        check_bucket_connection(source.folder)
        return Source(kind="objects", location=source.folder, revision=bucket_hash(source.folder), allow=source.allow)
    if isinstance(source, FolderSource):
        served = served_folder()
        folder = served / source.folder
        if not folder.is_dir() or not folder.resolve().is_relative_to(served.resolve()):
            raise InputRefused(f"source.folder: {shown(folder)} is not a folder below {shown(served)}. Next: fix it")
        return Source(kind="folder", location=source.folder, revision=content_hash(folder), allow=source.allow)
    assert isinstance(source, ArchiveSource)  # noqa: S101 - tells mypy what is left
    return Source(kind="savedmodel", location=plain_url(source.savedmodel), revision=f"sha256:{source.sha256}")


def _pin_hub(source: HubSource, revision: str, is_kept: Callable[[Source], bool]) -> Source:
    given = Source(
        kind="hub", location=source.hub, revision=revision, token_conn_id=source.token_conn_id, allow=source.allow
    )
    if COMMIT.fullmatch(revision) and is_kept(given):
        log.info("resolve: %s at %s is kept in the store", source.hub, revision)
        return given
    return replace(given, revision=hub_commit(source.hub, revision, token_conn_id=source.token_conn_id))


def resolve_golden(path: Path, case: GoldenImage, min_confidence: float | None) -> GoldenRequest:
    """A golden case of the model file, with the hash of its image, after a check that it exists. Raises InputRefused."""
    image, digest = plain_url(case.image), case.sha256
    if not image.startswith(("http://", "https://")):
        place = (path.parent / image).resolve()
        if not place.is_file() or not place.is_relative_to(path.parent.resolve()):
            raise InputRefused(
                f"{shown(path)}: gate.golden {case.name}: image {image} is not a file next to the model file. Next: fix it"
            )
        digest = _hash_golden(case, place)
        served = served_folder().resolve()
        image = str(place.relative_to(served)) if place.is_relative_to(served) else str(place)
    return GoldenRequest(
        name=case.name,
        image=image,
        sha256=digest,
        label=case.label,
        min_confidence=case.min_confidence if min_confidence is None else min_confidence,
    )


def _hash_golden(case: GoldenImage, place: Path) -> str:
    """The hash of a golden image on this machine; the model file's must be the same. Raises InputRefused."""
    try:
        found = sha256(place.read_bytes()).hexdigest()
    except OSError as error:
        raise InputRefused(f"gate.golden {case.name}: image {case.image}: {error.strerror}. Next: fix it") from error
    if case.sha256 not in {None, found}:
        raise InputRefused(
            f"gate.golden {case.name}: image {case.image} has sha256 {found}, the model file has {case.sha256}. "
            "Next: fix the hash or the image"
        )
    return found


def _name_installation(params: RefreshParams) -> str | None:
    """The name of this Airflow. A run that only plans sets no Variable, and needs none: it creates no cluster."""
    return find_installation() if params.plan_only else ensure_installation()


def resolve_gate(path: Path, asked: GateSettings, store: Store, *, keep: bool = True) -> Gate:
    """The gate's rules; its labelled set is copied to the store if the run may `keep` it. Raises InputRefused, StoreError."""
    return Gate(
        failures=asked.failures,
        errors=asked.errors,
        latency_ms=asked.latency_ms,
        garbage=asked.garbage,
        quality=_pin_quality(path, asked.quality, store, keep=keep) if asked.quality else None,
        load=LoadBounds(**asked.load.model_dump()) if asked.load else None,
        bake=_resolve_bake(asked.bake) if asked.bake else None,
        approval=asked.approval,
        on_inconclusive=asked.on_inconclusive,
        ask_timeout_s=asked.ask_timeout_s,
    )


def _resolve_bake(asked: BakeSettings) -> Bake:
    """The bake's rules; the connection of its Prometheus exists. Raises InputRefused."""
    if asked.prometheus is not None:
        find_prometheus(asked.prometheus.conn_id)
    return from_dict(Bake, asked.model_dump())


def _pin_quality(path: Path, asked: QualitySettings, store: Store, *, keep: bool) -> QualityBounds:
    limits = {"min_top1": asked.min_top1, "max_drop": asked.max_drop}
    pinned = pin_labelled_set(path, asked.set, store, path.stem, **limits, keep=keep)
    return replace(pinned, int8_max_changed=asked.int8_max_changed, int8_max_drop=asked.int8_max_drop)


def readable_files(path: Path, file: ModelFile) -> dict[str, ModelFile]:
    """The model file at `path`, and every other that can be read; a broken one is refused in its own DAG."""
    files: dict[str, ModelFile] = {}
    for other in served_files(path.parent):
        try:
            files[other.stem] = read_model_file(other)
        except InputRefused as error:
            log.warning("resolve: not checked for shared objects: %s", error)
    return {**files, path.stem: file}
