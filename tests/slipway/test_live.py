from hashlib import sha256

from slipway.live import keep_manifests
from slipway.store import read_bytes


def test_manifests_are_kept_by_release(release, store, pushed):
    """What is applied can be read again by URI, and is held to its hash."""
    uri, content = keep_manifests(store, release, pushed, "kind: Service\nname: ü\n")
    assert uri == store.uri_of("manifests/digits-vit/abcdefabcdef.yaml")
    assert content == f"sha256:{sha256(read_bytes(uri)).hexdigest()}"
    assert (uri, content) == keep_manifests(store, release, pushed, "kind: Service\nname: ü\n")
