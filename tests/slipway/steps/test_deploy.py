from hashlib import sha256

from slipway.records.store import read_bytes
from slipway.steps.deploy import keep_manifests


def test_manifests_are_kept_by_release(release, store, pushed):
    """What is applied can be read again by URI, and is held to its hash."""
    objects = [{"kind": "Service", "name": "ü"}]
    kept = keep_manifests(release, pushed, objects)
    assert kept.uri == store.uri_of("manifests/digits-vit/abcdefabcdef.yaml")
    assert kept.hash == f"sha256:{sha256(read_bytes(kept.uri)).hexdigest()}"
    assert kept == keep_manifests(release, pushed, objects)
