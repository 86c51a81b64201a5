"""Makes a pushed image live: renders, keeps the manifests, opens the record, applies. The one road onto a cluster."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from slipway.apply import Applied, apply_plan, plan_apply, ref_of
from slipway.export import Export
from slipway.image import Pushed
from slipway.manifests import render_manifests, to_yaml
from slipway.record import last_applied, new_record, opened, read_record, utc_now, write_record
from slipway.release import Release
from slipway.store import Store


def make_live(release: Release, export: Export, pushed: Pushed) -> Applied:
    """Apply the release's manifests with this image; what was applied comes back.

    The record is open before the first write, and lists what is to be pruned until it is gone, so that a killed run
    leaves nothing that a later one does not know. Raises ManifestError, ApplyError, StoreError.
    """
    store = Store(release.store)
    objects = render_manifests(
        release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id
    )
    text = to_yaml(objects)
    uri, content = keep_manifests(store, release, pushed, text)
    plan = plan_apply(objects, last_applied(store, release.model))
    refs = tuple(ref_of(manifest) for manifest in objects)
    record = opened(
        read_record(store, release.model, release.run_id) or new_record(release, now=utc_now()),
        release_id=pushed.release_id,
        version=pushed.version,
        content_hash=export.content_hash,
        digest=pushed.digest,
        manifests={"uri": uri, "hash": content},
        objects=[*refs, *plan.prune],
        now=utc_now(),
    )
    write_record(store, record)
    uid, generation = apply_plan(release, plan)
    if plan.prune:
        write_record(store, {**record, "objects": record["objects"][: len(refs)]})
    return Applied(
        release_id=pushed.release_id,
        reference=pushed.reference,
        version=pushed.version,
        manifests_uri=uri,
        manifests_hash=content,
        objects=refs,
        pruned=plan.prune,
        uid=uid,
        generation=generation,
    )


def keep_manifests(store: Store, release: Release, pushed: Pushed, text: str) -> tuple[str, str]:
    """Store rendered manifests; their URI and sha256:… come back."""
    content = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    with tempfile.TemporaryDirectory(prefix="slipway-manifests-") as scratch:
        draft = Path(scratch) / "manifests.yaml"
        draft.write_text(text, encoding="utf-8")
        return store.put_file(draft, f"manifests/{release.model}/{pushed.release_id}.yaml"), content
