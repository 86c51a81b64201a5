from hashlib import sha256

from slipway.records.store import read_bytes
from slipway.steps.deploy import store_manifests


def test_manifests_are_stored_under_the_release(release, store, pushed):
    """The manifests can be read by URI, have their hash, and are the same if stored again."""
    objects = [{"kind": "Service", "name": "ü"}]
    stored = store_manifests(release, pushed, objects)
    assert stored.uri == store.uri_of(f"manifests/digits-vit/abcdefabcdef-{stored.hash[7:19]}.yaml")
    assert stored.hash == f"sha256:{sha256(read_bytes(stored.uri)).hexdigest()}"
    assert stored == store_manifests(release, pushed, objects)
