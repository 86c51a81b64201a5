"""Server-side apply with Slipway's field manager: the only module that changes what serves.

KubernetesHook's own `apply_from_yaml_file` only creates (a second run gets 409), so the official dynamic client applies,
on the hook's `api_client`. A dry run of everything comes first: if the API server refuses it, nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import Any

from slipway.errors import ApplyRefused
from slipway.facts import JsonObject, ObjectRef
from slipway.kubernetes.api import NOT_FOUND, api_errors
from slipway.kubernetes.client import cluster_client
from slipway.kubernetes.manifests import Manifest, kind_rank, manifest_name
from slipway.kubernetes.secrets import has_hashes
from slipway.names import FIELD_MANAGER, LABEL_MODEL, LABEL_RELEASE
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.target import EVERY_CLUSTERS_NAMESPACE, REQUEST_TIMEOUT_S, Target

Check = Callable[[], None]  # raises if another run may write by now

# Kinds by which the API server refuses or changes new pods: the pods of an apply must not meet those of an earlier release.
ADMISSION_KINDS = frozenset({"ResourceQuota", "LimitRange"})
# Kinds that can block a release's requests or pods, or answer in its place. A Job can too, but would run again if a rollback
# created it again.
RESTRICTING_KINDS = ADMISSION_KINDS | {"NetworkPolicy"}
COMPETING_KINDS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPlan:
    """What an apply writes, in this order; and what is deleted, in this order: most of it later."""

    apply: tuple[Manifest, ...]
    prune: tuple[ObjectRef, ...]

    @property
    def prune_first(self) -> tuple[ObjectRef, ...]:
        """What is deleted before the first manifest is applied: the API server would refuse or change new pods because of it."""
        return tuple(ref for ref in self.prune if ref.kind in ADMISSION_KINDS)


def plan_apply(objects: list[Manifest], before: tuple[ObjectRef, ...]) -> ApplyPlan:
    """Apply these manifests in their order; later delete, in reverse order, what only the last record lists.

    A Secret that is known only by its hashes is neither applied nor deleted.
    """
    known = tuple(one for one in objects if not has_hashes(one))
    return ApplyPlan(apply=known, prune=plan_outdated(before, map(object_ref_of, objects)))


def plan_outdated(before: Iterable[ObjectRef], now: Iterable[ObjectRef]) -> tuple[ObjectRef, ...]:
    """The objects that only the earlier list has, the last applied first. The API version does not matter."""
    kept = {(ref.kind, ref.name, ref.namespace) for ref in now}
    gone = [ref for ref in before if (ref.kind, ref.name, ref.namespace) not in kept]
    return tuple(sorted(gone, key=lambda ref: (kind_rank(ref.kind), ref.kind, ref.name), reverse=True))


def split_outdated(outdated: Iterable[ObjectRef]) -> tuple[tuple[ObjectRef, ...], tuple[ObjectRef, ...]]:
    """The objects that could fail the gate of a release that no longer has them, and the rest, each in their order."""
    refs, kinds = tuple(outdated), RESTRICTING_KINDS | COMPETING_KINDS
    return tuple(ref for ref in refs if ref.kind in kinds), tuple(ref for ref in refs if ref.kind not in kinds)


def object_ref_of(manifest: Manifest) -> ObjectRef:
    """The reference of a manifest's object."""
    metadata = manifest["metadata"]
    return ObjectRef(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        name=metadata["name"],
        namespace=metadata.get("namespace", ""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An object before and after an apply, by the API server's dry run; None if it does not exist then."""

    name: str  # kind/name
    before: JsonObject | None
    after: JsonObject | None


def dry_run_plan(release: Release, plan: ApplyPlan) -> list[Trial]:
    """What a plan would change, by the API server's dry run. Writes nothing. Raises as `apply_plan` does."""
    trials = []
    with cluster_client(release.target) as api_client, _dynamic(api_client, release.target) as client:
        for manifest in plan.apply:
            live = _check_ours(client, release, manifest)
            after = _apply(client, release, manifest, dry_run=True)
            name = manifest_name(manifest)
            trials.append(Trial(name=name, before=live.to_dict() if live else None, after=after.to_dict()))
        for ref in plan.prune:
            live = _read(client, release.target, ref)
            if live is not None and _is_of(live, release.model):
                trials.append(Trial(name=str(ref), before=live.to_dict(), after=None))
    return trials


def read_objects(target: Target, refs: tuple[ObjectRef, ...]) -> list[JsonObject]:
    """Those of the objects that exist in the cluster. Raises ApplyError."""
    with cluster_client(target) as api_client, _dynamic(api_client, target) as client:
        found = [_read(client, target, ref) for ref in refs]
    return [live.to_dict() for live in found if live is not None]


def object_exists(target: Target, ref: ObjectRef) -> bool:
    """Whether the object exists in the cluster, whoever created it."""
    with cluster_client(target) as api_client, _dynamic(api_client, target) as client:
        return _read(client, target, ref) is not None


def remove_objects(
    target: Target, model: str, refs: tuple[ObjectRef, ...], *, releases: frozenset[str] | None = None
) -> tuple[ObjectRef, ...]:
    """Delete objects of a model that a record lists, the last applied first; with `releases` only those of these releases.

    Objects that do not have the model's label, or a label of these releases, are kept. Returns the kept objects.
    """
    with cluster_client(target) as api_client, _dynamic(api_client, target) as client:
        return _remove(client, target, model, plan_apply([], refs).prune, releases=releases)


def apply_plan(release: Release, plan: ApplyPlan, *, check: Check) -> tuple[str, int]:
    """Apply a plan's manifests. Returns the Deployment's uid and generation from the API server's response.

    Only what limits new pods is deleted: old pods, users or a rollback may need the rest of what the release no longer has.
    Nothing is written unless the whole plan passes a dry run. Then `check` is called: it raises if another run may be writing.
    Raises FieldOwnedElsewhere, ApplyRefused, ClusterUnreachable.
    """
    uid, generation = "", 0
    with cluster_client(release.target) as api_client, _dynamic(api_client, release.target) as client:
        for manifest in plan.apply:
            _check_ours(client, release, manifest)
        for manifest in plan.apply:
            _apply(client, release, manifest, dry_run=True)
        check()
        _remove_first(client, release, plan)
        for manifest in plan.apply:
            answer = _apply(client, release, manifest, dry_run=False)
            log.info("apply: %s generation %s", manifest_name(manifest), answer.metadata.generation)
            if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] == release.deployment:
                uid, generation = str(answer.metadata.uid), int(answer.metadata.generation)
    return uid, generation


def ensure_namespace(target: Target) -> None:
    """Create the namespace of a GKE target if it is missing, for the Lease and the dry run.

    In other clusters, `plan` has refused a missing namespace already. Raises ApplyRefused, ClusterUnreachable.
    """
    ref = _namespace_to_create(target)
    if ref is None:
        return
    with cluster_client(target) as api_client, _dynamic(api_client, target) as client:
        if _read(client, target, ref) is None:
            with api_errors(target, str(ref)):
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": target.namespace}}
                _resource(client, ref).create(body=body, _request_timeout=REQUEST_TIMEOUT_S)


def lacks_namespace(target: Target) -> bool:
    """Whether `ensure_namespace` would create the namespace. Raises ApplyRefused, ClusterUnreachable."""
    ref = _namespace_to_create(target)
    return ref is not None and not object_exists(target, ref)


def _namespace_to_create(target: Target) -> ObjectRef | None:
    if target.gke is None or target.namespace == EVERY_CLUSTERS_NAMESPACE:
        return None
    return ObjectRef(api_version="v1", kind="Namespace", name=target.namespace, namespace="")


def _check_ours(client: Any, release: Release, manifest: Manifest) -> Any:
    """The live object, None if it does not exist. Raises ApplyRefused if it is not this model's, or would be every namespace's."""
    ref = object_ref_of(manifest)
    live = _read(client, release.target, ref)
    if live is None:
        _check_namespaced(client, release.target, ref)
        return None
    owner = (live.metadata.labels or {}).get(LABEL_MODEL)
    if owner != release.model:
        whose = f"belongs to the model {owner}" if owner else "was not made by Slipway"
        raise ApplyRefused(
            f"{ref} in {release.target.namespace}: exists and {whose}. Next: give this model its own target.deployment "
            f"or target.namespace, or remove the object: {release.target.kubectl(f'get {quote(str(ref))} -o yaml')}"
        )
    return live


def _check_namespaced(client: Any, target: Target, ref: ObjectRef) -> None:
    """A Variable may add a kind to overlays that this cluster does not keep in namespaces. Raises ApplyRefused."""
    with api_errors(target, str(ref)):
        if _resource(client, ref).namespaced:
            return
    raise ApplyRefused(
        f"{ref}: {ref.kind} is cluster-scoped, and an overlay may only have objects of the namespace {target.namespace}. "
        "Next: remove it from the overlay; if it is needed, create it outside of Slipway"
    )


def _remove(
    client: Any, target: Target, model: str, refs: tuple[ObjectRef, ...], *, releases: frozenset[str] | None = None
) -> tuple[ObjectRef, ...]:
    """Delete these objects in their order as `remove_objects` does; the kept ones."""
    kept = []
    for ref in refs:
        live = _read(client, target, ref)
        if live is None:
            continue
        labels = dict(live.metadata.labels or {})
        if not _is_of(live, model):
            log.warning("apply: %s is kept: it no longer belongs to model %s", ref, model)
            kept.append(ref)
        elif releases is not None and labels.get(LABEL_RELEASE) not in releases:
            log.warning("apply: %s is kept: it is of release %s, which is unknown here", ref, labels.get(LABEL_RELEASE))
            kept.append(ref)
        else:
            _delete(client, target, ref)
    return tuple(kept)


def _remove_first(client: Any, release: Release, plan: ApplyPlan) -> None:
    """Delete what limits new pods. What may not be deleted does not stop a rollback: it is tried again after the rollout."""
    for ref in plan.prune_first:
        try:
            _remove(client, release.target, release.model, (ref,))
        except ApplyRefused as error:
            log.warning("apply: %s may limit the new pods: %s", ref, error)


def _is_of(live: Any, model: str) -> bool:
    """Whether a live object has the model's label."""
    return dict(live.metadata.labels or {}).get(LABEL_MODEL) == model


def _read(client: Any, target: Target, ref: ObjectRef) -> Any:
    """The live object, None if it does not exist."""
    from kubernetes.client.exceptions import ApiException

    with api_errors(target, str(ref)):
        try:
            return _resource(client, ref).get(
                name=ref.name, namespace=ref.namespace or None, _request_timeout=REQUEST_TIMEOUT_S
            )
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise


def _apply(client: Any, release: Release, manifest: Manifest, *, dry_run: bool) -> Any:
    ref = object_ref_of(manifest)
    with api_errors(release.target, str(ref)):
        return client.server_side_apply(
            _resource(client, ref),
            body=manifest,
            name=ref.name,
            namespace=ref.namespace or None,
            field_manager=FIELD_MANAGER,
            _request_timeout=REQUEST_TIMEOUT_S,
            **({"dry_run": "All"} if dry_run else {}),
        )


def _delete(client: Any, target: Target, ref: ObjectRef) -> None:
    from kubernetes.client.exceptions import ApiException

    with api_errors(target, str(ref)):
        try:
            _resource(client, ref).delete(
                name=ref.name,
                namespace=ref.namespace or None,
                body={"propagationPolicy": "Background"},
                _request_timeout=REQUEST_TIMEOUT_S,
            )
            log.info("apply: deleted %s", ref)
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise


def _resource(client: Any, ref: ObjectRef) -> Any:
    return client.resources.get(api_version=ref.api_version, kind=ref.kind)


@contextmanager
def _dynamic(api_client: Any, target: Target) -> Iterator[Any]:
    """The dynamic client, with its discovery cache in a private folder: others can guess the default path."""
    from kubernetes.dynamic import DynamicClient

    with scratch_folder("discovery") as folder:
        with api_errors(target, f"cluster {api_client.configuration.host}"):
            client = DynamicClient(api_client, cache_file=str(folder / "discovery.json"))
        yield client
