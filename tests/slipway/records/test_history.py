import json
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.errors import InputRefused
from slipway.facts import ObjectRef
from slipway.records.history import (
    History,
    choose_release,
    describe,
    find_bad,
    place_of,
    read_current_history,
    read_history,
)
from slipway.records.record import write_record
from slipway.release import Retention
from slipway.target import Target

SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
DEPLOYMENT = ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")


def test_nothing_if_there_is_no_record(store):
    """A first run has nothing to prune, nothing good to go back to, and nothing settled."""
    history = read_history(store, "digits-vit")
    assert (history.newest, history.good, history.objects, history.settled) == (None, None, (), False)


def test_newest_is_what_was_applied_last(store, record_of):
    """Neither the names' order, nor runs that never applied, nor other models decide."""
    for run, minutes, objects in (("z", 1, [SERVICE]), ("a", 2, [SERVICE, DEPLOYMENT]), ("m", 3, [])):
        write_record(store, record_of(run, "live", minutes, objects=objects))
    write_record(store, record_of("n", "live", 9, objects=[DEPLOYMENT], model="other"))
    history = read_history(store, "digits-vit")
    assert history.newest["run_id"] == "a"
    assert history.objects == (SERVICE, DEPLOYMENT)


def test_cleared_run_is_what_was_applied_last(store, record_of):
    """An old run that applied again after a newer one is the newest: what it brought back can be pruned."""
    write_record(store, record_of("new", "live", 5, objects=[SERVICE]))
    write_record(store, record_of("old", "live", 10, objects=[SERVICE, DEPLOYMENT]))
    assert read_history(store, "digits-vit").objects == (SERVICE, DEPLOYMENT)


SETTLED = {
    "proven": (["live"], True, "r0"),
    "failed and not undone": (["live", "failed"], False, "r0"),
    "killed half-way": (["live", "open"], False, "r0"),
    "failed and undone": (["live", "failed", "live"], True, "r2"),
    "never proven": (["failed"], False, None),
}


@pytest.mark.parametrize(("outcomes", "settled", "good"), SETTLED.values(), ids=SETTLED)
def test_settled_only_if_what_was_applied_last_was_proven(record_of, outcomes, settled, good):
    """A record that stayed open, or failed and was not undone, leaves the cluster unsettled; the good one is the last proven."""
    history = History(tuple(record_of(f"r{n}", outcome, n) for n, outcome in enumerate(outcomes)))
    assert history.settled is settled
    assert (history.good["run_id"] if history.good else None) == good


def test_records_of_another_target_do_not_count(store, release, record_of):
    """A model that moved to another namespace leaves its old objects to its old records."""
    elsewhere = Target(conn_id="kubernetes_default", namespace="attic")
    write_record(store, record_of("old", "live", 1, target=elsewhere))
    write_record(store, record_of("new", "live", 2))
    history = read_history(store, "digits-vit")
    assert [record["run_id"] for record in history.at(release.target, release.deployment).records] == ["new"]
    assert [record["run_id"] for record in history.at(elsewhere, release.deployment).records] == ["old"]
    assert [record["run_id"] for record in read_current_history(store, "digits-vit").records] == ["new"]


@pytest.fixture
def three(record_of):
    """A, then B, then A again."""
    return History(tuple(record_of(f"r{n}", "live", n, release_id=name * 12) for n, name in enumerate(("a", "b", "a"))))


def test_release_before_the_live_one_if_none_is_named(three):
    """Going back without a name is going to the newest proven release that is not live."""
    assert choose_release(three, None)["release_id"] == "b" * 12


def test_the_last_proven_release_if_what_serves_is_none(three, record_of):
    """A release that was killed half-way serves: the one before it is the last that was proven."""
    killed = History((*three.records, record_of("r3", "open", 3, release_id="c" * 12)))
    assert choose_release(killed, None)["release_id"] == "a" * 12


def test_named_release_if_it_was_proven(three):
    """A release that was proven live can come back, the live one included."""
    assert choose_release(three, "a" * 12)["run_id"] == "r2"


@pytest.mark.parametrize(
    ("outcomes", "named", "message"),
    [
        (["live"], "c" * 12, "Param release: 'cccccccccccc' was never proven live. Next: use one of abcdefabcdef"),
        (
            ["live"],
            None,
            "Param release: there is none before the live one to go back to. Next: name one of abcdefabcdef",
        ),
        (["failed"], None, "Param release: there is none before the live one to go back to. Next: name one of none"),
        ([], "c" * 12, "Param release: 'cccccccccccc' was never proven live. Next: use one of none"),
    ],
)
def test_refused_if_there_is_no_such_release(record_of, outcomes, named, message):
    """A release that cannot come back is refused, naming those that can."""
    history = History(tuple(record_of(f"r{n}", outcome, n) for n, outcome in enumerate(outcomes)))
    with pytest.raises(InputRefused) as refused:
        choose_release(history, named)
    assert message == str(refused.value)


def test_each_release_is_listed_once(three, release):
    """The list that people choose from has a line for each release, the newest first, with version and revision."""
    lines = describe(three)
    assert [line[:12] for line in lines] == ["a" * 12, "b" * 12]
    assert all(release.source.revision in line and "version 7" in line for line in lines)


def no_record(change):
    """A record with something in it that makes it none."""
    return lambda record: json.dumps({**record, **change}).encode()


UNREAD = {
    "half of it": (lambda record: json.dumps(record).encode()[:200], "no JSON object"),
    "nothing": (lambda _: b"", "no JSON object"),
    "not text": (lambda _: b"\xff\xfe\x00", "no JSON object"),
    "a list": (lambda _: b"[1, 2]", "no JSON object"),
    "of another Slipway": (no_record({"schema": 99}), "of schema 99, this Slipway reads 1"),
    "without objects": (no_record({"objects": None}), "its objects is missing, or is none"),
    "without a target": (no_record({"release": {}}), "its release does not say where it went"),
}


@pytest.mark.parametrize(("spoil", "why"), UNREAD.values(), ids=UNREAD)
def test_what_cannot_be_read_is_named_and_stops_nobody(store, record_of, caplog, spoil, why):
    """A record that is cut off, empty, foreign or of another Slipway is passed over with its name and why; the others count."""
    for minutes, run in enumerate(("good", "broken")):
        write_record(store, record_of(run, "live", minutes))
    place = Path(store.uri.removeprefix("file://")) / "records" / "digits-vit" / "broken.json"
    place.write_bytes(spoil(record_of("broken")))
    history = read_history(store, "digits-vit")
    assert [record["run_id"] for record in history.records] == ["good"]
    assert history.unread == (f"{store.uri_of('records/digits-vit/broken.json')}: {why}",)
    assert f"{history.unread[0]}: passed over. Next: " in caplog.text
    assert history.at(*place_of(history.newest)).unread == history.unread


BAD = {"task": "gate", "reason": "wrong label"}


def test_bad_only_if_this_very_release_was_found_so(record_of, release):
    """A record that blames the release is found by all that a person can mean by another one; what a run is does not count."""
    another = replace(release, run_id="other", retention=Retention(releases=2), installation="there")
    found = find_bad([{**record_of("r1", "failed"), "bad": BAD}], another)
    assert found["run_id"] == "r1"
    for change in ({"manifests_hash": "sha256:9"}, {"gate_passes": 1}, {"golden": ()}, {"rollout_timeout_s": 9}):
        assert find_bad([{**record_of("r1", "failed"), "bad": BAD}], replace(release, **change)) is None


@pytest.mark.parametrize(
    ("outcomes", "bad"),
    [
        (["failed"], None),
        (["bad"], "r0"),
        (["bad", "live"], None),
        (["live", "bad"], "r1"),
        (["bad", "failed"], "r0"),
        (["bad", "open"], "r0"),
        (["bad", "proven"], None),
    ],
)
def test_the_last_judgement_counts(record_of, release, outcomes, bad):
    """A release that was proven since is not bad; a run that ended for another reason judged nothing."""
    records = []
    for minutes, outcome in enumerate(outcomes):
        record = record_of(f"r{minutes}", {"bad": "failed", "proven": "failed"}.get(outcome, outcome), minutes)
        own = {"bad": {"bad": BAD}, "proven": {"outcome": "proven"}}.get(outcome, {})
        records.append({**record, **own})
    found = find_bad(records, release)
    assert (found["run_id"] if found else None) == bad
