from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from slipway.names import record_key
from slipway.records import store as store_module
from slipway.records.history import read_history
from slipway.records.record import close_run, write_record
from slipway.records.store import read_bytes
from slipway.steps import deploy as deploy_module
from slipway.steps.deploy import redeploy, store_manifests
from slipway.steps.rollback import plan_rollback

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MANIFEST = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "tfs-server", "namespace": "shop"},
}


def test_manifests_are_stored_under_the_release(release, store, pushed):
    """The manifests can be read by URI, have their hash, and are the same if stored again."""
    objects = [{"kind": "Service", "name": "ü"}]
    stored = store_manifests(release, pushed, objects)
    assert stored.uri == store.uri_of(f"manifests/digits-vit/abcdefabcdef-{stored.hash[7:19]}.yaml")
    assert stored.hash == f"sha256:{sha256(read_bytes(stored.uri)).hexdigest()}"
    assert stored == store_manifests(release, pushed, objects)


@pytest.fixture
def applies(release, export, pushed, store, monkeypatch):
    """Applies a release in a run whose worker's clock shows this time; the cluster accepts everything."""
    kept = store_manifests(release, pushed, [MANIFEST])
    monkeypatch.setattr(deploy_module, "object_exists", lambda *_: False)
    monkeypatch.setattr(deploy_module, "apply_plan", lambda *_, **__: ("u-1", 4))
    monkeypatch.setattr(deploy_module, "identify_cluster", lambda target: target)

    def run(run_id, *, clock, proven):
        monkeypatch.setattr(deploy_module, "utc_now", lambda: clock)
        asked = replace(release, run_id=run_id)
        of_run, manifests = (
            replace(pushed, release_id=f"of-{run_id}"),
            {"manifests_uri": kept.uri, "manifests_hash": kept.hash},
        )
        redeploy(asked, export, of_run, **manifests, check=lambda: None)
        close_run(asked, {}, {}, proven=proven, applied=True)

    return run


def test_what_was_applied_last_does_not_depend_on_clocks(applies, store):
    """A run that fails is rolled back, although its worker's clock is an hour behind that of the run before."""
    applies("first", clock=NOON, proven=True)
    applies("second", clock=NOON - timedelta(hours=1), proven=False)
    history = read_history(store, "digits-vit")
    assert history.newest["run_id"] == "second"
    plan = plan_rollback(history, run_id="second", proven=False, applied=True)
    assert (plan.action, plan.good["run_id"]) == ("restore", "first")


def test_a_cleared_run_is_the_newest_again(applies, store):
    """What it applies comes after what another run has applied in between, whatever its worker's clock shows."""
    applies("first", clock=NOON, proven=True)
    applies("second", clock=NOON + timedelta(minutes=5), proven=True)
    applies("first", clock=NOON - timedelta(hours=1), proven=True)
    assert read_history(store, "digits-vit").newest["release_id"] == "of-first"


def test_each_record_is_read_once_in_an_apply(applies, store, monkeypatch):
    """In a bucket with hundreds of records a read takes longer than the apply itself."""
    applies("first", clock=NOON, proven=True)
    touched, path = [], store_module.object_path
    monkeypatch.setattr(store_module, "object_path", lambda uri: touched.append(uri) or path(uri))
    applies("second", clock=NOON, proven=True)
    assert touched.count(store.uri_of(record_key("digits-vit", "first"))) == 1


def test_numbers_go_on_after_unreadable_records(applies, store):
    """The folder of numbers is lost, and a newer Slipway has written the last record."""
    store.put_json({"schema": 99, "order": 41}, record_key("digits-vit", "newer"))
    applies("new", clock=NOON, proven=True)
    assert read_history(store, "digits-vit").newest["order"] > 41


def test_a_record_of_an_earlier_slipway_comes_before_numbered_ones(applies, store, record_of):
    """It has only a time, here of a clock that is a day ahead; among themselves such records keep the order of their times."""
    for run_id, minutes in (("older", 60), ("old", 24 * 60)):
        record = record_of(run_id, "live", minutes)
        del record["order"]
        write_record(store, record)
    applies("new", clock=NOON, proven=False)
    assert [record["run_id"] for record in read_history(store, "digits-vit").records] == ["older", "old", "new"]
