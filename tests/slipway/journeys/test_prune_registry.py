"""Which images prune deletes in a registry that other installations use too."""

import json
from dataclasses import replace

import pytest
from registry_stub import RegistryStub, digest_of_bytes

from slipway import names
from slipway.errors import RetentionIncomplete
from slipway.image.build import IMAGE_LABEL_STORE, IMAGE_LABEL_TITLE
from slipway.records.record import write_record
from slipway.release import Retention
from slipway.steps.prune import prune


@pytest.fixture
def registry():
    """A registry with the repository `vit`."""
    stub = RegistryStub()
    yield stub
    stub.stop()


@pytest.fixture
def pruned(registry, store, release, record_of, closed_url, monkeypatch):  # noqa: PLR0917
    """Prunes a model with three proven releases, of which the third is kept; the tags that are left in the registry.

    Each image is a tag, the store on its label, and the number of the release whose record names it, or None.
    """
    extra = {"conn_type": "docker", "host": closed_url.replace("http", "tcp")}
    monkeypatch.setenv("AIRFLOW_CONN_CLOSED", json.dumps(extra))
    repository = f"{registry.host}/vit"
    asked = replace(
        release,
        run_id="run3",
        engine_conn_id="closed",
        repository=repository,
        retention=Retention(releases=1, records=1),
    )

    def run(*images):
        digests = {n: f"sha256:{n}" for n in (1, 2, 3)}
        for tag, label, number in images:
            digests[number] = registry.push(tag, **{IMAGE_LABEL_TITLE: "digits-vit", IMAGE_LABEL_STORE: label})
        for n in (1, 2, 3):
            record = record_of(f"run{n}", "live", n, release_id=f"r{n}", repository=repository)
            pushed = {**record["pushed"], "reference": f"{repository}@{digests[n]}", "digest": digests[n]}
            write_record(store, {**record, "digest": digests[n], "pushed": pushed})
        with pytest.raises(RetentionIncomplete, match="engine"):
            prune(asked)
        left = [tag for tag, data in registry.manifests.items() if digest_of_bytes(data) not in registry.deleted]
        return sorted(left)

    return run


def test_image_of_another_store_at_the_same_uri_is_kept(store, pruned):
    """Two machines may both have file:///srv/slipway; an earlier Slipway gave both the same label."""
    before = names.former_store_id(store.uri)
    assert pruned(("theirs", before, None), ("theirs-now", "another", None)) == ["theirs", "theirs-now"]


def test_image_of_this_store_is_deleted(store, pruned):
    """Its label is the store's own id; an image of an earlier Slipway is known by a record of this store."""
    mine, before = store.identity(), names.former_store_id(store.uri)
    recorded = [("recorded", before, 1), ("recorded-now", mine, 2), ("live", before, 3)]
    assert pruned(*recorded, ("unrecorded", mine, None)) == ["live"]


def test_recorded_image_that_names_another_store_is_kept(pruned):
    """A copied store has the records of its original. If in doubt, nothing is deleted."""
    assert pruned(("theirs", "another", 1)) == ["theirs"]
