import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slipway.facts import Card, Export, ObjectRef, Pushed, from_dict, to_dict
from slipway.names import record_key
from slipway.records.history import read_records
from slipway.records.record import (
    SCHEMA,
    begin_record,
    close_run,
    closed_record,
    keep_live,
    mark_record_bad,
    new_record,
    next_order,
    opened_record,
    read_record,
    record_with_preview,
    write_record,
)
from slipway.release import Release

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
DEPLOYMENT = ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")
CARD = Card(uri="file:///store/README.md", digest="sha256:0", parity="32 of 32 labels equal", parameters=1, size=2)
EXPORT = Export(
    version=7, content_hash="sha256:c", model_uri="m", golden_uri="g", descriptors_uri="d", report_uri="r", card=CARD
)
PUSHED = Pushed(reference="r/digits-vit@sha256:d", digest="sha256:d", release_id="abcdefabcdef", version=7)
VERDICT = {"outcome": "pass", "reason": "3 of 3 rounds in a row passed"}


def at(minutes):
    """So many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def opened_by(release, *objects, minutes=0):
    """A record before the first write to the cluster."""
    return opened_record(
        new_record(release, now=NOON),
        release=release,
        export=EXPORT,
        pushed=PUSHED,
        manifests={"uri": "file:///store/m.yaml", "hash": "sha256:a"},
        objects=list(objects),
        now=at(minutes),
    )


def test_new_record_has_the_release(release):
    """A new record has the whole release and no result."""
    record = new_record(release, now=NOON)
    assert (SCHEMA, "digits-vit", release.run_id, "open") == tuple(
        record[name] for name in ("schema", "model", "run_id", "outcome")
    )
    assert record["opened"] == "2026-11-22T12:00:00+00:00"
    assert record["fingerprint"] == release.fingerprint
    assert release == from_dict(Release, record["release"])
    assert (record["closed"], record["objects"], record["verdicts"]) == (None, [], {})


def test_opened_record_has_what_will_be_applied(release):
    """Before the first write the record has everything that a rollback needs."""
    record = opened_by(release, SERVICE, DEPLOYMENT, minutes=5)
    assert record["objects"] == [to_dict(SERVICE), to_dict(DEPLOYMENT)]
    assert record["outcome"] == "open"
    assert record["opened"] == at(5).isoformat()
    assert (record["release_id"], record["version"], record["digest"]) == ("abcdefabcdef", 7, "sha256:d")
    assert record["manifests"] == {"uri": "file:///store/m.yaml", "hash": "sha256:a"}
    assert (from_dict(Export, record["export"]), from_dict(Pushed, record["pushed"])) == (EXPORT, PUSHED)
    assert record["export"]["card"]["parity"] == "32 of 32 labels equal"
    assert record.keys() == new_record(release, now=NOON).keys()


def test_closed_record_is_live_only_if_proven(release):
    """Only a passed gate makes a record live."""
    said = {"verdicts": {"gate": VERDICT}, "tasks": {"gate": "success"}, "now": at(9)}
    record = closed_record(opened_by(release, SERVICE), proven=True, **said)
    assert (record["outcome"], record["closed"], record["verdicts"]) == ("live", at(9).isoformat(), {"gate": VERDICT})
    assert record["objects"] == [to_dict(SERVICE)]
    assert closed_record(opened_by(release, SERVICE), proven=False, **said)["outcome"] == "failed"


def test_the_first_task_that_blames_the_release_is_recorded(release):
    """An unproven run records the first task that blamed the release; a proven run records none."""
    said = {
        "wait_for_rollout": {"outcome": "fail", "reason": "late", "at": "3"},
        "gate": {"outcome": "fail", "reason": "wrong", "at": "2", "bad": True},
        "smoke_test": {"outcome": "fail", "reason": "wronger", "at": "1", "bad": True},
    }
    ended = {"verdicts": said, "tasks": {}, "now": at(9)}
    assert closed_record(opened_by(release), proven=False, **ended)["bad"] == {
        "task": "smoke_test",
        "reason": "wronger",
    }
    assert closed_record(opened_by(release), proven=True, **ended)["bad"] is None
    kept = {"gate": {"outcome": "fail", "reason": "no answer", "at": "1"}}
    assert closed_record(opened_by(release), proven=False, verdicts=kept, tasks={}, now=at(9))["bad"] is None


def test_new_record_if_the_old_one_cannot_be_read(release, store, caplog):
    """A cleared run continues its own record; if that cannot be read, a warning names it and a new one starts."""
    write_record(store, closed_record(opened_by(release), proven=False, verdicts={}, tasks={}, now=at(9)))
    assert begin_record(store, release, cause="refresh")["outcome"] == "failed"
    place = Path(store.uri.removeprefix("file://")) / record_key(release.model, release.run_id)
    place.write_text(place.read_text()[:100])
    assert begin_record(store, release, cause="refresh")["outcome"] == "open"
    assert (
        f"{store.uri_of(record_key(release.model, release.run_id))}: not a JSON object: starting a new record"
        in caplog.text
    )


def test_record_reopened_if_the_run_is_cleared(release):
    """A run that applies again is open again, and its record is the newest."""
    ended = closed_record(opened_by(release), proven=True, verdicts={}, tasks={}, now=at(9))
    again = opened_record(
        ended, release=release, export=EXPORT, pushed=PUSHED, manifests={}, objects=[SERVICE], now=at(20)
    )
    assert (again["outcome"], again["opened"], again["closed"]) == ("open", at(20).isoformat(), None)


def test_the_live_record_of_a_cleared_run_is_copied(release, store):
    """The copy keeps what was live; the run's own record will describe what it applies now."""
    record = opened_by(release, DEPLOYMENT)
    keep_live(store, record)
    assert store.names("records/digits-vit") == []
    live = closed_record(record, proven=True, verdicts={}, tasks={}, now=at(1))
    for _ in range(2):
        keep_live(store, live)
    assert len(store.names("records/digits-vit")) == 1
    assert read_record(store, "digits-vit", f"{release.run_id}.{live['opened']}") == {
        **json.loads(json.dumps(live)),
        "run_id": f"{release.run_id}.{live['opened']}",
    }


def test_record_is_of_the_release_that_is_applied(release, store):
    """A cleared run may resolve to another release: its record describes that release once the run applies it, or if it applied none before."""
    newer = replace(release, manifests_hash="sha256:9")
    mark_record_bad(release, task="smoke_test", reason="wrong label")
    began = begin_record(store, newer, cause="refresh")
    assert (began["release"], began["bad"]) == (to_dict(newer), None)
    write_record(store, opened_by(release, SERVICE))
    began = begin_record(store, newer, cause="refresh")
    assert began["release"]["manifests_hash"] == release.manifests_hash
    again = opened_record(
        began, release=newer, export=EXPORT, pushed=PUSHED, manifests={}, objects=[SERVICE], now=at(20)
    )
    assert (again["release"], again["fingerprint"]) == (to_dict(newer), newer.fingerprint)


def test_a_live_record_is_not_marked_bad(release, store):
    """A cleared live run that blames a newer release before it applies it leaves its record unchanged."""
    write_record(store, closed_record(opened_by(release, SERVICE), proven=True, verdicts={}, tasks={}, now=at(9)))
    live = read_record(store, "digits-vit", release.run_id)
    mark_record_bad(release, task="preview_gate", reason="wrong label")
    assert read_record(store, "digits-vit", release.run_id) == live


def test_a_newer_releases_fault_does_not_blame_the_applied_one(release, store):
    """A run applied one release, was cleared and blames a newer one: the record of the first blames no release."""
    write_record(store, opened_by(release, SERVICE))
    newer = replace(release, manifests_hash="sha256:newer")
    mark_record_bad(newer, task="smoke_test", reason="wrong label")
    fault = {"outcome": "fail", "reason": "wrong label", "at": "2026-11-24T12:00:00+00:00", "bad": True}
    close_run(newer, {"smoke_test": fault}, {"smoke_test": "failed"}, proven=False, applied=False)
    assert read_record(store, "digits-vit", release.run_id)["bad"] is None


def test_record_is_found_by_its_run(release, store):
    """A written record is read by model and run id; a run without a record has None."""
    assert read_record(store, "digits-vit", release.run_id) is None
    record = opened_by(release, SERVICE)
    uri = write_record(store, record)
    assert uri == store.uri_of(record_key("digits-vit", release.run_id))
    assert json.loads(json.dumps(record)) == read_record(store, "digits-vit", release.run_id)


def test_closed_run_keeps_what_was_opened(release, store):
    """A closed run's record keeps what was opened, and has every verdict."""
    write_record(store, opened_by(release, SERVICE))
    uri = close_run(release, {"gate": VERDICT}, {"gate": "success"}, proven=True, applied=True)
    record = read_record(store, "digits-vit", release.run_id)
    assert uri == store.uri_of(record_key("digits-vit", release.run_id))
    assert (record["outcome"], record["tasks"]) == ("live", {"gate": "success"})
    assert record["verdicts"] == {"gate": VERDICT}
    assert record["objects"] == [to_dict(SERVICE)]


def test_live_record_is_kept_if_the_cleared_run_applies_nothing(release, store):
    """What an earlier try of the run deployed is still live: a rollback needs its record."""
    write_record(store, opened_by(release, SERVICE))
    close_run(release, {"gate": VERDICT}, {"apply": "success", "gate": "success"}, proven=True, applied=True)
    live = read_record(store, "digits-vit", release.run_id)
    close_run(release, {}, {"export": "failed", "apply": "upstream_failed"}, proven=False, applied=False)
    assert read_record(store, "digits-vit", release.run_id) == live


def test_run_closed_if_it_never_applied(release, store):
    """A run that failed before it reached the cluster has a record too, without objects."""
    close_run(release, {}, {"export": "failed"}, proven=False, applied=False)
    record = read_record(store, "digits-vit", release.run_id)
    assert (record["outcome"], record["objects"], record["tasks"]) == ("failed", [], {"export": "failed"})


def test_preview_is_in_the_record_until_it_is_deleted(release):
    """Before the first write the record lists the objects and their image; nothing counts as applied."""
    began = record_with_preview(new_record(release, now=NOON), objects=[SERVICE], export=EXPORT, pushed=PUSHED)
    assert (began["preview"], began["objects"], began["outcome"]) == ([to_dict(SERVICE)], [], "open")
    assert (began["release_id"], began["digest"], began["version"]) == ("abcdefabcdef", "sha256:d", 7)
    ended = record_with_preview(began, objects=())
    assert ended == {**began, "preview": []}


def test_preview_of_a_cleared_run_does_not_change_the_live_part(release):
    """What the record says about its live objects stays true while something newer is previewed."""
    live = opened_by(release, DEPLOYMENT)
    newer = Pushed(reference="r/digits-vit@sha256:e", digest="sha256:e", release_id="newernewer00", version=8)
    assert record_with_preview(live, objects=[SERVICE], export=EXPORT, pushed=newer) == {
        **live,
        "preview": [to_dict(SERVICE)],
    }


def test_numbers_grow_and_no_two_records_get_the_same(store):
    """Eight tasks that ask at once get eight numbers; the next one gets a larger number."""
    with ThreadPoolExecutor(8) as pool:
        given = sorted(pool.map(lambda _: next_order(store, "digits-vit"), range(8)))
    assert given == list(range(1, 9))
    assert next_order(store, "digits-vit") == 9
    assert next_order(store, "other") == 1


def test_numbers_go_on_after_the_records_if_the_folder_of_numbers_is_lost(store, release):
    """A store may be restored without `order/`; a record that cannot be read, or has no number, does not count."""
    write_record(store, new_record(replace(release, run_id="first"), now=NOON, order=41))
    write_record(store, new_record(replace(release, run_id="older"), now=NOON))
    store.put_json(["not a record"], record_key("digits-vit", "broken"))
    newer = begin_record(store, replace(release, run_id="second"), cause="refresh")
    write_record(store, newer)
    assert newer["order"] == 42
    assert [record["run_id"] for record in read_records(store, "digits-vit").records] == ["older", "first", "second"]
    assert next_order(store, "digits-vit") == 43
