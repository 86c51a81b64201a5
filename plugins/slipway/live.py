"""Makes a release live, brings a recorded one back, or takes a first one away. The one road onto a cluster."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Literal

import yaml

from slipway.errors import StoreError
from slipway.facts import Applied, Export, Pushed, from_dict
from slipway.kubernetes.apply import Check, apply_plan, is_there, plan_apply, ref_of, remove_objects
from slipway.kubernetes.manifests import Manifest, render_manifests, to_yaml
from slipway.preview import remove_previews
from slipway.records.history import History, read_records
from slipway.records.record import Cause, Record, begin_record, keep_live, opened, utc_now, write_record
from slipway.records.store import Store, read_bytes
from slipway.release import Release
from slipway.scratch import scratch_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A release's objects, and where the store keeps them."""

    objects: tuple[Manifest, ...]
    uri: str
    hash: str  # sha256:… of the YAML


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What a run that did not end well calls for."""

    action: Literal["nothing", "restore", "remove", "keep"]
    reason: str
    good: Record | None = None


def make_live(release: Release, export: Export, pushed: Pushed, *, check: Check) -> Applied:
    """Apply the release's manifests with this image, `check` called before the first write; what was applied comes back.

    Raises ManifestError, ApplyError, StoreError.
    """
    objects = render_manifests(
        release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id
    )
    return _bring(release, export, pushed, keep_manifests(release, pushed, objects), cause="refresh", check=check)


def restore(release: Release, export: Export, pushed: Pushed, manifests_uri: str, *, check: Check) -> Applied:
    """Apply a recorded release again, its manifests as they were stored. Raises ApplyError, StoreError."""
    data = read_bytes(manifests_uri)
    rendered = Rendered(
        objects=tuple(yaml.safe_load_all(data)), uri=manifests_uri, hash=f"sha256:{hashlib.sha256(data).hexdigest()}"
    )
    return _bring(release, export, pushed, rendered, cause="rollback", check=check)


def judge_undo(history: History, *, run_id: str, proven: bool, applied: bool) -> Undo:
    """What is to be undone after this run, which has `applied` something, and whose gate passed if it is `proven`.

    A run that was live, and whose gate was cleared and does not pass any more, is undone where something can come back.
    """
    newest = history.newest
    if history.torn_down:
        return Undo(action="nothing", reason="what was applied last was torn down")
    own = newest is not None and newest["run_id"] == run_id
    refuted = history.settled and own and applied and not proven
    if newest is None or (history.settled and not refuted) or (proven and own):
        return Undo(action="nothing", reason="what was applied last was proven live")
    # A record that is refuted says live until its run ends: it is not what a rollback that is tried again goes to.
    others = [record for record in history.records[:-1] if record["run_id"] != run_id or proven or not applied]
    good = History(tuple(others), history.unread).good
    if good is None:
        return _undo_alone(history, newest, refuted=refuted)
    return Undo(
        action="restore",
        reason=f"release {newest['release_id']} of run {newest['run_id']} was not proven live",
        good=good,
    )


def _undo_alone(history: History, newest: Record, *, refuted: bool) -> Undo:
    """What is to be undone where no other release is known to be good."""
    if history.unread:
        return Undo(action="keep", reason=f"the last good release may be in what cannot be read: {history.unread[0]}")
    if refuted:
        return Undo(action="keep", reason="it was live until now, and there is none to go back to")
    if any(record.get("found") for record in history.records):
        return Undo(
            action="keep", reason="it took the place of a release that this store knows nothing of, and is left"
        )
    if newest["release"]["keep_first"]:
        return Undo(action="keep", reason="the first release failed and is left for inspection, as the model file says")
    return Undo(action="remove", reason="the first release failed, and there is none to go back to")


def remove_release(store: Store, history: History) -> None:
    """Take away what was applied last, where no release was proven; its record then lists no objects.

    What bears a release that no record tells of is another installation's, and is left. Raises ApplyError, StoreError.
    """
    record, refs = history.records[-1], history.objects
    release = from_dict(Release, record["release"])
    known = frozenset(found["release_id"] for found in history.records)
    left = remove_objects(release.target, release.model, refs, releases=known)
    write_record(store, {**record, "objects": [], "removed": [str(ref) for ref in refs if ref not in left]})


def keep_manifests(release: Release, pushed: Pushed, objects: list[Manifest]) -> Rendered:
    """Store rendered manifests. Raises StoreError."""
    text = to_yaml(objects)
    with scratch_folder("manifests") as scratch:
        draft = scratch / "manifests.yaml"
        draft.write_text(text, encoding="utf-8")
        uri = Store(release.store).put_file(draft, f"manifests/{release.model}/{pushed.release_id}.yaml")
    return Rendered(objects=tuple(objects), uri=uri, hash=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def _bring(
    release: Release, export: Export, pushed: Pushed, rendered: Rendered, *, cause: Cause, check: Check
) -> Applied:
    """Open the record, then write to the cluster; a preview that has been asked makes room first.

    The record lists what is to be pruned until it is gone, so that a killed run leaves nothing that a later one does
    not know.
    """
    store = Store(release.store)
    records = read_records(store, release.model)
    check()
    remove_previews(release, records.records)
    history = records.history.at(release.target, release.deployment)
    plan = plan_apply(list(rendered.objects), history.objects)
    refs = tuple(ref_of(manifest) for manifest in rendered.objects)
    deployments = [ref for ref in refs if ref.kind == "Deployment"]
    begun = begin_record(store, release, cause=cause)
    keep_live(store, begun)
    record = opened(
        begun,
        release=release,
        export=export,
        pushed=pushed,
        manifests={"uri": rendered.uri, "hash": rendered.hash},
        objects=[*refs, *plan.prune],
        now=utc_now(),
        found=history.newest is None and any(is_there(release.target, ref) for ref in deployments),
    )
    write_record(store, record)
    uid, generation = apply_plan(release, plan, check=check)
    if plan.prune:
        write_record(store, {**record, "objects": record["objects"][: len(refs)]})
    if not generation:
        raise StoreError(
            f"{rendered.uri}: holds no Deployment {release.deployment}. Next: roll back to another release"
        )
    return Applied(
        release_id=pushed.release_id,
        reference=pushed.reference,
        version=pushed.version,
        manifests_uri=rendered.uri,
        manifests_hash=rendered.hash,
        objects=refs,
        pruned=plan.prune,
        uid=uid,
        generation=generation,
    )
