import json
from dataclasses import replace
from pathlib import Path

import pytest
from registry_stub import RegistryStub

from slipway.errors import RetentionIncomplete
from slipway.facts import from_dict
from slipway.image.build import IMAGE_LABEL_STORE, IMAGE_LABEL_TITLE
from slipway.names import break_key
from slipway.records.history import find_bad_record
from slipway.records.record import write_record
from slipway.release import Gate, QualityBounds, Release, Retention
from slipway.steps.prune import KEPT_NUMBERS, Holdings, plan_prune, prune, read_holdings
from slipway.target import Target

NOTHING_HELD = Holdings(exports=frozenset(), inputs={}, sources=frozenset(), manifests=frozenset())
TWO = Retention(releases=2, records=1)


def numbered(record_of, run_id, outcome, n, **changes):
    """A record of release n: version n, image n, manifests n, source n."""
    record = record_of(run_id, outcome, n, release_id=f"r{n}", **changes)
    record["release"]["source"]["revision"] = f"sha256:{n}"
    return {
        **record,
        "version": n,
        "digest": f"sha256:{n}",
        "manifests": {"uri": f"file:///store/m/r{n}.yaml", "hash": "x"},
    }


def plan(records, holdings=NOTHING_HELD, retention=TWO, run=None):
    """The plan for digits-vit."""
    return plan_prune(records, holdings, retention, model="digits-vit", run=run)


def test_oldest_releases_are_pruned(record_of):
    """The newest proven releases are kept with their images; older ones are deleted."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in range(1, 5)]
    assert [record["run_id"] for record in plan(records).records] == ["run1", "run2"]
    assert plan(records).digests == {"sha256:3", "sha256:4"}


def test_old_release_is_kept_if_it_is_live(record_of):
    """A release that was rolled back to counts as the newest proven one."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (1, 2, 3)]
    records.append({**numbered(record_of, "back", "live", 1), "opened": "2026-11-23"})
    found = plan(records)
    assert found.digests == {"sha256:1", "sha256:3"}
    assert "run2" in [record["run_id"] for record in found.records]


def test_nothing_is_pruned_up_to_the_number(record_of):
    """As many releases as the retention allows are kept."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (1, 2)]
    assert plan(records).records == ()


def test_proven_releases_are_kept_after_many_failures(record_of):
    """Of the failed runs the newest records are kept for people to read."""
    records = [
        numbered(record_of, "good", "live", 1),
        *(numbered(record_of, f"bad{n}", "failed", n) for n in (2, 3, 4, 5)),
    ]
    found = plan(records)
    assert [record["run_id"] for record in found.records] == ["bad2", "bad3"]
    assert "sha256:1" in found.digests


def blamed(record):
    """The record of a run that found its release bad."""
    return {**record, "bad": {"task": "gate", "reason": "wrong"}}


def test_record_of_a_bad_release_is_kept_after_many_failures(record_of):
    """Without it the schedule would try the release again. Only the newest record is kept, nothing that the run made."""
    runs = [("bad1", 1), ("bad2", 2), ("again2", 2), *((f"down{n}", 3) for n in range(60))]
    made = [
        numbered(record_of, "good", "live", 0),
        *(numbered(record_of, run, "failed", n, objects=()) for run, n in runs),
    ]
    records = [blamed(record) if record["version"] in {1, 2} else record for record in made]
    holdings = replace(NOTHING_HELD, exports=frozenset(range(7)), manifests=frozenset({"r1.yaml", "r2.yaml"}))
    found = plan(records, holdings)
    assert [record["run_id"] for record in found.records] == ["bad2", *(f"down{n}" for n in range(59))]
    assert found.digests == {"sha256:0"}
    assert found.keys[:2] == ("manifests/digits-vit/r1.yaml", "manifests/digits-vit/r2.yaml")
    assert {"exports/digits-vit/1", "exports/digits-vit/2"} <= set(found.keys)
    left = [record for record in records if record not in found.records]
    assert [find_bad_record(left, from_dict(Release, record["release"])) for record in made[1:3]] == [
        records[1],
        records[3],
    ]


@pytest.mark.parametrize("retired", [False, True], ids=["at once", "after a killed prune"])
def test_record_that_blames_a_release_is_pruned_with_its_later_proof(record_of, retired):
    """Else a release that was proven later would count as bad. This holds even if the retention keeps more failed records."""
    records = [blamed(numbered(record_of, "bad", "failed", 1, objects=()))]
    records += [numbered(record_of, f"run{n}", "live", n) for n in (1, 2, 3)]
    keeping = Retention(releases=2, records=50)
    assert plan(records[:2], retention=keeping).records == ()
    if retired:
        records[:2] = [{**record, "outcome": "retired"} for record in records[:2]]
    assert [record["run_id"] for record in plan(records, retention=keeping).records] == ["bad", "run1"]


def test_record_is_kept_while_its_preview_exists(record_of):
    """Without the record no run would know what to delete."""
    preview = [{"api_version": "v1", "kind": "Service", "name": "tfs-server-preview", "namespace": "shop"}]
    records = [numbered(record_of, f"bad{n}", "failed", n, objects=()) for n in (1, 2, 3)]
    found = plan([{**records[0], "preview": preview}, *records[1:]])
    assert [record["run_id"] for record in found.records] == ["bad2"]


def test_what_was_applied_last_is_kept_whether_it_succeeded_or_failed(record_of):
    """The record of a killed run lists the objects that the next run has to know."""
    records = [
        numbered(record_of, "good", "live", 1),
        numbered(record_of, "killed", "open", 2),
        numbered(record_of, "never", "failed", 3, objects=()),
        numbered(record_of, "neither", "failed", 4, objects=()),
    ]
    found = plan(records, retention=Retention(releases=2, records=1))
    assert [record["run_id"] for record in found.records] == ["never"]
    assert found.digests == {"sha256:1", "sha256:2"}


def test_current_run_is_kept(record_of):
    """Its artifacts are kept even if it failed: a cleared task continues with them."""
    records = [numbered(record_of, "good", "live", 1), numbered(record_of, "now", "failed", 2, objects=())]
    holdings = replace(NOTHING_HELD, exports=frozenset({1, 2}), sources=frozenset({"1.tar", "2.tar", "0.tar"}))
    found = plan(records, holdings, run=records[-1])
    assert found.records == ()
    assert found.keys == ("sources/digits-vit/0.tar",)


def test_each_target_keeps_its_releases(record_of):
    """The releases of a model's earlier target are kept."""
    attic = Target(conn_id="kubernetes_default", namespace="attic")
    records = [numbered(record_of, f"old{n}", "live", n, target=attic) for n in (1, 2)]
    records += [numbered(record_of, f"new{n}", "live", n) for n in (3, 4, 5)]
    assert [record["run_id"] for record in plan(records).records] == ["new3"]


def test_record_of_a_pruned_release_is_pruned(record_of):
    """Its record would offer a rollback to a release whose image is deleted."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in range(1, 5)]
    found = plan(records, retention=Retention(releases=2, records=50))
    assert [record["run_id"] for record in found.records] == ["run1", "run2"]


def test_labelled_set_is_kept_with_its_releases(record_of):
    """A set that no kept record names is deleted; a record of an earlier Slipway names none."""
    sets = [
        QualityBounds(uri=f"file:///store/quality/digits-vit/{n}.json", digest="x", min_top1=0.9, max_drop=None)
        for n in range(4)
    ]
    records = [numbered(record_of, f"run{n}", "live", n, gate=Gate(quality=sets[n])) for n in range(1, 4)]
    records.append(numbered(record_of, "plain", "live", 4))
    del records[-1]["release"]["gate"]
    holdings = replace(NOTHING_HELD, quality=frozenset(f"{n}.json" for n in range(4)))
    assert plan(records, holdings).keys == tuple(f"quality/digits-vit/{n}.json" for n in range(3))


def test_rendered_manifests_are_kept_with_their_releases(record_of):
    """So are those of the run that prunes; a record of an earlier Slipway names none."""
    records = [numbered(record_of, f"run{n}", "live", n, rendered_hash=f"sha256:{n}") for n in range(1, 4)]
    records.append(numbered(record_of, "plain", "live", 4))
    del records[-1]["release"]["rendered_hash"]
    holdings = replace(NOTHING_HELD, rendered=frozenset(f"{n}.json" for n in range(6)))
    found = plan_prune(records, holdings, TWO, model="digits-vit", run=None, rendered=frozenset({"sha256:5"}))
    assert found.keys == tuple(f"rendered/digits-vit/{n}.json" for n in (0, 1, 2, 4))


def test_store_keeps_what_kept_releases_need(record_of):
    """Exports, their inputs, sources and manifests are deleted with their releases; the newest exports are kept."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (3, 4)]
    holdings = Holdings(
        exports=frozenset({1, 2, 3, 4, 5}),
        inputs={"one.json": 1, "three.json": 3, "five.json": 5},
        sources=frozenset({"2.tar", "3.tar", "4.tar.gz", "4.tar"}),
        manifests=frozenset({"r2.yaml", "r3.yaml", "r4.yaml"}),
    )
    assert plan(records, holdings).keys == (
        "manifests/digits-vit/r2.yaml",
        "exports/digits-vit/inputs/one.json",
        "exports/digits-vit/1",
        "exports/digits-vit/2",
        "sources/digits-vit/2.tar",
        "sources/digits-vit/4.tar.gz",
    )


def test_numbers_are_deleted_with_their_records(record_of):
    """So are those that no record has any more. The newest are kept, even if a record has yet to be written for them."""
    records = [{**numbered(record_of, f"run{n}", "live", n), "order": 2 * n} for n in range(1, 5)]
    given = frozenset(range(1, 9 + KEPT_NUMBERS))
    found = plan(records, replace(NOTHING_HELD, orders=given))
    assert [record["order"] for record in found.records] == [2, 4]
    assert found.keys == tuple(f"order/digits-vit/{n}.json" for n in (1, 2, 3, 4, 5, 7))
    few = replace(NOTHING_HELD, orders=frozenset(range(1, KEPT_NUMBERS)))
    assert plan(records, few).keys == ()


def test_note_of_a_broken_lease_is_deleted_with_its_record(record_of):
    """A run that has no record yet may need its note: it would break a second Lease without it."""
    old, older, live, newest = (numbered(record_of, f"run{n}", "live", n, installation="here") for n in range(1, 5))
    del older["release"]["installation"]  # of an earlier Slipway
    runs = ["here/refresh_digits_vit/run1", "here/rollback_digits_vit/run1", "here/refresh_digits_vit/run3"]
    runs += ["here/refresh_digits_vit/running", "there/refresh_digits_vit/run1"]
    kept = {run: break_key("digits-vit", run) for run in runs}
    notes = frozenset(Path(key).name for key in kept.values())
    found = plan([old, older, live, newest], replace(NOTHING_HELD, breaks=notes))
    assert [record["run_id"] for record in found.records] == ["run1", "run2"]
    assert found.keys == tuple(sorted(kept[run] for run in runs[:2]))


@pytest.fixture
def filled(store, record_of):
    """A store with four proven releases and their artifacts."""
    for n in range(1, 5):
        record = numbered(record_of, f"run{n}", "live", n)
        record["manifests"]["uri"] = store.uri_of(f"manifests/digits-vit/r{n}.yaml")
        write_record(store, record)
        store.put_json({}, f"exports/digits-vit/{n}/export.json")
        store.put_json({"version": n}, f"exports/digits-vit/inputs/i{n}.json")
        store.put_json({}, f"sources/digits-vit/{n}.tar")
        store.put_json({}, f"manifests/digits-vit/r{n}.yaml")
        store.put_json({}, f"order/digits-vit/{n}.json")
        store.put_json({}, f"breaks/digits-vit/{n}.json")
        store.put_json({"content_hash": f"sha256:{n}"}, f"versions/digits-vit/{n}.json")
        store.put_json({}, f"exports/other/{n}/export.json")
    return store


def unreachable(release, closed_url, monkeypatch, retention):
    """The release with an engine that does not respond."""
    extra = {"conn_type": "docker", "host": closed_url.replace("http", "tcp")}
    monkeypatch.setenv("AIRFLOW_CONN_CLOSED", json.dumps(extra))
    return replace(release, engine_conn_id="closed", run_id="run4", retention=retention)


def test_prune_goes_on_if_a_part_fails(filled, release, closed_url, monkeypatch):
    """If the engine does not respond, the store is pruned all the same; the records stay, retired, for the next prune."""
    with pytest.raises(Exception, match=r"engine at .*Next: fix that, the next run prunes again"):
        prune(unreachable(release, closed_url, monkeypatch, replace(TWO, registry=False)))
    held = read_holdings(filled, "digits-vit")
    assert (held.exports, set(held.inputs)) == ({3, 4}, {"i3.json", "i4.json"})
    assert (held.sources, held.manifests) == ({"3.tar", "4.tar"}, {"r3.yaml", "r4.yaml"})
    assert (held.orders, held.breaks) == ({1, 2, 3, 4}, {f"{n}.json" for n in range(1, 5)})
    assert filled.names("exports/other") == ["1", "2", "3", "4"]
    assert filled.names("versions/digits-vit") == ["1.json", "2.json", "3.json", "4.json"]
    folder = Path(filled.uri.removeprefix("file://"))
    outcomes = {path.stem: json.loads(path.read_text())["outcome"] for path in folder.glob("records/digits-vit/*.json")}
    assert outcomes == {"run1": "retired", "run2": "retired", "run3": "live", "run4": "live"}


def test_a_registry_without_digests_keeps_the_live_tag(release, store):
    """The image of this run is known by its manifest's bytes: only the old image is deleted, with its tag."""
    registry = RegistryStub()
    ours = {IMAGE_LABEL_TITLE: release.model, IMAGE_LABEL_STORE: store.identity()}
    live, old, _ = registry.push("live", **ours), registry.push("old", **ours), registry.push("another")
    here = replace(release, repository=f"{registry.host}/vit", engine_conn_id="none")
    with pytest.raises(RetentionIncomplete, match="connection none"):  # the engine's part; the registry's part is done
        prune(here, images=frozenset({live}))
    registry.stop()
    assert registry.deleted == ["old", old]


def test_load_tests_go_with_the_last_record_of_their_release(record_of):
    """Also that of a release that its load test stopped: the record points to it."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (1, 2, 3)]
    stopped = numbered(record_of, "run4", "failed", 4)
    holdings = replace(NOTHING_HELD, loads=frozenset({"r1", "r2", "r3", "r4"}))
    assert plan([*records, stopped], holdings).keys == ("loads/digits-vit/r1",)
    assert plan(records, holdings).keys == ("loads/digits-vit/r1", "loads/digits-vit/r4")


def test_sweeps_go_with_their_release(record_of):
    """A sweep compares variants of a live release."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (1, 2, 3)]
    holdings = replace(NOTHING_HELD, sweeps=frozenset({"r1", "r2", "r3"}))
    assert plan(records, holdings).keys == ("sweeps/digits-vit/r1",)


def test_no_engine_is_asked_if_the_registry_builds(filled, release):
    """A worker without one prunes all the same; what it deleted is complete."""
    registered = replace(
        release, builder="registry", engine_conn_id="none", run_id="run4", retention=replace(TWO, registry=False)
    )
    pruned = prune(registered)
    assert (pruned.images, pruned.records) == (0, 2)
    assert read_holdings(filled, "digits-vit").exports == {3, 4}
