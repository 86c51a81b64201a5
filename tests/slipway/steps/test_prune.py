import json
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.facts import from_dict
from slipway.records.history import find_bad
from slipway.records.record import write_record
from slipway.release import Gate, QualityBounds, Release, Retention
from slipway.steps.prune import Holdings, plan_prune, prune, read_holdings
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


def test_oldest_release_goes_beyond_the_number(record_of):
    """The newest proven releases stay, each with its image; older ones go."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in range(1, 5)]
    assert [record["run_id"] for record in plan(records).records] == ["run1", "run2"]
    assert plan(records).digests == {"sha256:3", "sha256:4"}


def test_old_release_stays_if_it_is_live(record_of):
    """A release that was rolled back to is the newest proven one, however old it is."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (1, 2, 3)]
    records.append({**numbered(record_of, "back", "live", 1), "opened": "2026-11-23"})
    found = plan(records)
    assert found.digests == {"sha256:1", "sha256:3"}
    assert "run2" in [record["run_id"] for record in found.records]


def test_nothing_goes_if_nothing_is_beyond(record_of):
    """Up to the number, all stays."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in (1, 2)]
    assert plan(records).records == ()


def test_failed_runs_do_not_push_out_good_ones(record_of):
    """However many runs failed, the proven releases stay; of the failed ones the newest are kept to be read."""
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


def test_a_bad_release_stays_known_however_many_runs_failed_since(record_of):
    """Else the schedule would try it again. Of each such release the newest record stays, and nothing that it made."""
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
    assert [find_bad(left, from_dict(Release, record["release"])) for record in made[1:3]] == [records[1], records[3]]


@pytest.mark.parametrize("retired", [False, True], ids=["at once", "by the prune after a killed one"])
def test_a_release_that_was_good_after_all_is_not_bad_once_that_is_forgotten(record_of, retired):
    """What blamed it goes with the last record that says otherwise, also where newer failures would stay to be read."""
    records = [blamed(numbered(record_of, "bad", "failed", 1, objects=()))]
    records += [numbered(record_of, f"run{n}", "live", n) for n in (1, 2, 3)]
    keeping = Retention(releases=2, records=50)
    assert plan(records[:2], retention=keeping).records == ()
    if retired:
        records[:2] = [{**record, "outcome": "retired"} for record in records[:2]]
    assert [record["run_id"] for record in plan(records, retention=keeping).records] == ["bad", "run1"]


def test_record_of_a_preview_that_is_still_there_stays(record_of):
    """However old it is: without it nobody would know what to delete."""
    beside = [{"api_version": "v1", "kind": "Service", "name": "tfs-server-preview", "namespace": "shop"}]
    records = [numbered(record_of, f"bad{n}", "failed", n, objects=()) for n in (1, 2, 3)]
    found = plan([{**records[0], "preview": beside}, *records[1:]])
    assert [record["run_id"] for record in found.records] == ["bad2"]


def test_what_was_applied_last_stays_whatever_became_of_it(record_of):
    """A run that was killed half-way lists the objects that a next one has to know."""
    records = [
        numbered(record_of, "good", "live", 1),
        numbered(record_of, "killed", "open", 2),
        numbered(record_of, "never", "failed", 3, objects=()),
        numbered(record_of, "neither", "failed", 4, objects=()),
    ]
    found = plan(records, retention=Retention(releases=2, records=1))
    assert [record["run_id"] for record in found.records] == ["never"]
    assert found.digests == {"sha256:1", "sha256:2"}


def test_run_at_hand_stays(record_of):
    """What the run itself made stays, also where it failed: a cleared task goes on with it."""
    records = [numbered(record_of, "good", "live", 1), numbered(record_of, "now", "failed", 2, objects=())]
    holdings = replace(NOTHING_HELD, exports=frozenset({1, 2}), sources=frozenset({"1.tar", "2.tar", "0.tar"}))
    found = plan(records, holdings, run=records[-1])
    assert found.records == ()
    assert found.keys == ("sources/digits-vit/0.tar",)


def test_each_target_keeps_its_own(record_of):
    """A model that moved leaves the releases of its old place where they can be read."""
    attic = Target(conn_id="kubernetes_default", namespace="attic")
    records = [numbered(record_of, f"old{n}", "live", n, target=attic) for n in (1, 2)]
    records += [numbered(record_of, f"new{n}", "live", n) for n in (3, 4, 5)]
    assert [record["run_id"] for record in plan(records).records] == ["new3"]


def test_a_release_that_is_not_kept_is_not_offered(record_of):
    """A record that could still be read would offer a release whose image is gone."""
    records = [numbered(record_of, f"run{n}", "live", n) for n in range(1, 5)]
    found = plan(records, retention=Retention(releases=2, records=50))
    assert [record["run_id"] for record in found.records] == ["run1", "run2"]


def test_labelled_sets_stay_with_the_releases_that_were_asked_them(record_of):
    """A set that no kept record names is removed; a record of an earlier Slipway names none."""
    floors = [
        QualityBounds(uri=f"file:///store/quality/digits-vit/{n}.json", digest="x", min_top1=0.9, max_drop=None)
        for n in range(4)
    ]
    records = [numbered(record_of, f"run{n}", "live", n, gate=Gate(quality=floors[n])) for n in range(1, 4)]
    records.append(numbered(record_of, "plain", "live", 4))
    del records[-1]["release"]["gate"]
    holdings = replace(NOTHING_HELD, quality=frozenset(f"{n}.json" for n in range(4)))
    assert plan(records, holdings).keys == tuple(f"quality/digits-vit/{n}.json" for n in range(3))


def test_store_keeps_what_staying_releases_need(record_of):
    """Exports, what leads to them, sources and manifests go with their releases; the newest exports stay."""
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


@pytest.fixture
def filled(store, record_of):
    """A store with four proven releases and all that they left."""
    for n in range(1, 5):
        record = numbered(record_of, f"run{n}", "live", n)
        record["manifests"]["uri"] = store.uri_of(f"manifests/digits-vit/r{n}.yaml")
        write_record(store, record)
        store.put_json({}, f"exports/digits-vit/{n}/export.json")
        store.put_json({"version": n}, f"exports/digits-vit/inputs/i{n}.json")
        store.put_json({}, f"sources/digits-vit/{n}.tar")
        store.put_json({}, f"manifests/digits-vit/r{n}.yaml")
        store.put_json({"content_hash": f"sha256:{n}"}, f"versions/digits-vit/{n}.json")
        store.put_json({}, f"exports/other/{n}/export.json")
    return store


def unreachable(release, closed_url, monkeypatch, retention):
    """The release with an engine where nobody listens."""
    extra = {"conn_type": "docker", "host": closed_url.replace("http", "tcp")}
    monkeypatch.setenv("AIRFLOW_CONN_NOBODY", json.dumps(extra))
    return replace(release, engine_conn_id="nobody", run_id="run4", retention=retention)


def test_prune_goes_on_where_a_part_cannot(filled, release, closed_url, monkeypatch):
    """An engine that does not answer holds up neither the store nor the next run; its records wait, retired, for it."""
    with pytest.raises(Exception, match=r"engine at .*Next: fix that, the next run prunes again"):
        prune(unreachable(release, closed_url, monkeypatch, replace(TWO, registry=False)))
    held = read_holdings(filled, "digits-vit")
    assert (held.exports, set(held.inputs)) == ({3, 4}, {"i3.json", "i4.json"})
    assert (held.sources, held.manifests) == ({"3.tar", "4.tar"}, {"r3.yaml", "r4.yaml"})
    assert filled.names("exports/other") == ["1", "2", "3", "4"]
    assert filled.names("versions/digits-vit") == ["1.json", "2.json", "3.json", "4.json"]
    folder = Path(filled.uri.removeprefix("file://"))
    outcomes = {path.stem: json.loads(path.read_text())["outcome"] for path in folder.glob("records/digits-vit/*.json")}
    assert outcomes == {"run1": "retired", "run2": "retired", "run3": "live", "run4": "live"}
