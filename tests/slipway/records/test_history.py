import json
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.errors import InputRefused
from slipway.facts import ObjectRef
from slipway.records.history import (
    History,
    choose_release,
    describe_releases,
    find_bad_record,
    place_of_record,
    read_current_history,
    read_history,
)
from slipway.records.record import write_record
from slipway.release import FIRST_RUNTIME, Retention
from slipway.target import Target

SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
DEPLOYMENT = ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")


def test_nothing_if_there_is_changed(store):
    """A first run has nothing to prune, no good release to roll back to, and nothing settled."""
    history = read_history(store, "digits-vit")
    assert (history.newest, history.good, history.objects, history.settled) == (None, None, (), False)


def test_newest_is_what_was_applied_last(store, record_of):
    """The order of names, runs that applied nothing and other models' records do not matter."""
    for run, minutes, objects in (("z", 1, [SERVICE]), ("a", 2, [SERVICE, DEPLOYMENT]), ("m", 3, [])):
        write_record(store, record_of(run, "live", minutes, objects=objects))
    write_record(store, record_of("n", "live", 9, objects=[DEPLOYMENT], model="other"))
    history = read_history(store, "digits-vit")
    assert history.newest["run_id"] == "a"
    assert history.objects == (SERVICE, DEPLOYMENT)


def test_cleared_run_is_what_was_applied_last(store, record_of):
    """An old run that applied again after a newer one is the newest: what it applied can be pruned."""
    write_record(store, record_of("new", "live", 5, objects=[SERVICE]))
    write_record(store, record_of("old", "live", 10, objects=[SERVICE, DEPLOYMENT]))
    assert read_history(store, "digits-vit").objects == (SERVICE, DEPLOYMENT)


SETTLED = {
    "proven": (["live"], True, "r0"),
    "failed and not rolled back": (["live", "failed"], False, "r0"),
    "killed": (["live", "open"], False, "r0"),
    "failed and rolled back": (["live", "failed", "live"], True, "r2"),
    "never proven": (["failed"], False, None),
}


@pytest.mark.parametrize(("outcomes", "settled", "good"), SETTLED.values(), ids=SETTLED)
def test_settled_only_if_what_was_applied_last_was_proven(record_of, outcomes, settled, good):
    """An open record, or a failed one without a rollback, leaves the cluster unsettled; the good record is the last proven one."""
    history = History(tuple(record_of(f"r{n}", outcome, n) for n, outcome in enumerate(outcomes)))
    assert history.settled is settled
    assert (history.good["run_id"] if history.good else None) == good


def test_records_of_another_target_do_not_count(store, release, record_of):
    """After a move to another namespace, the old objects belong to the old records."""
    elsewhere = Target(conn_id="kubernetes_default", namespace="attic")
    write_record(store, record_of("old", "live", 1, target=elsewhere))
    write_record(store, record_of("new", "live", 2))
    history = read_history(store, "digits-vit")
    assert [record["run_id"] for record in history.at(release.target, release.deployment).records] == ["new"]
    assert [record["run_id"] for record in history.at(elsewhere, release.deployment).records] == ["old"]
    assert [record["run_id"] for record in read_current_history(store, "digits-vit").records] == ["new"]


@pytest.fixture
def three(record_of):
    """Records of release A, then B, then A again."""
    return History(tuple(record_of(f"r{n}", "live", n, release_id=name * 12) for n, name in enumerate(("a", "b", "a"))))


def test_release_before_the_live_one_if_none_is_named(three):
    """Without a name, a rollback goes to the newest proven release that is not live."""
    assert choose_release(three, None)["release_id"] == "b" * 12


def test_the_last_proven_release_if_an_unproven_one_serves(three, record_of):
    """If the run of the serving release was killed, the rollback goes to the last proven release."""
    killed = History((*three.records, record_of("r3", "open", 3, release_id="c" * 12)))
    assert choose_release(killed, None)["release_id"] == "a" * 12


def test_named_release_if_it_was_proven(three):
    """A rollback can name any release that was proven live, the live one included."""
    assert choose_release(three, "a" * 12)["run_id"] == "r2"


@pytest.mark.parametrize(
    ("outcomes", "named", "message"),
    [
        (["live"], "c" * 12, "Param release: 'cccccccccccc' was never proven live. Next: use one of abcdefabcdef"),
        (
            ["live"],
            None,
            "Param release: no release before the live one was proven. Next: name one of abcdefabcdef",
        ),
        (["failed"], None, "Param release: no release before the live one was proven. Next: name one of none"),
        ([], "c" * 12, "Param release: 'cccccccccccc' was never proven live. Next: use one of none"),
    ],
)
def test_refused_if_there_is_no_such_release(record_of, outcomes, named, message):
    """The refusal names the releases to choose from."""
    history = History(tuple(record_of(f"r{n}", outcome, n) for n, outcome in enumerate(outcomes)))
    with pytest.raises(InputRefused) as refused:
        choose_release(history, named)
    assert message == str(refused.value)


def test_each_release_is_listed_once(three, release):
    """The list has one line per release, newest first, with version and revision."""
    lines = describe_releases(three)
    assert [line[:12] for line in lines] == ["a" * 12, "b" * 12]
    assert all(release.source.revision in line and "version 7" in line for line in lines)


def changed(change):
    """Writes the record with these changes."""
    return lambda record: json.dumps({**record, **change}).encode()


UNREADABLE = {
    "half of it": (lambda record: json.dumps(record).encode()[:200], "not a JSON object"),
    "nothing": (lambda _: b"", "not a JSON object"),
    "not text": (lambda _: b"\xff\xfe\x00", "not a JSON object"),
    "a list": (lambda _: b"[1, 2]", "not a JSON object"),
    "of another version": (changed({"schema": 99}), "has schema 99, this Slipway reads schema 1"),
    "without objects": (changed({"objects": None}), "its field objects is missing or invalid"),
    "without a target": (changed({"release": {}}), "its release has no target or no deployment"),
}


@pytest.mark.parametrize(("spoil", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_record_is_skipped_with_a_warning(store, record_of, caplog, spoil, why):
    """The warning names the record and why; the other records count."""
    for minutes, run in enumerate(("good", "broken")):
        write_record(store, record_of(run, "live", minutes))
    place = Path(store.uri.removeprefix("file://")) / "records" / "digits-vit" / "broken.json"
    place.write_bytes(spoil(record_of("broken")))
    history = read_history(store, "digits-vit")
    assert [record["run_id"] for record in history.records] == ["good"]
    assert history.unread == (f"{store.uri_of('records/digits-vit/broken.json')}: {why}",)
    assert f"{history.unread[0]}: skipped. Next: " in caplog.text
    assert history.at(*place_of_record(history.newest)).unread == history.unread


BAD = {"task": "gate", "reason": "wrong label"}


def test_bad_only_if_exactly_this_release_was_blamed(record_of, release):
    """Fields that describe only the run do not matter; every other change makes another release."""
    another = replace(release, run_id="other", retention=Retention(releases=2), installation="there")
    found = find_bad_record([{**record_of("r1", "failed"), "bad": BAD}], another)
    assert found["run_id"] == "r1"
    for change in ({"manifests_hash": "sha256:9"}, {"gate_passes": 1}, {"golden": ()}, {"rollout_timeout_s": 9}):
        assert find_bad_record([{**record_of("r1", "failed"), "bad": BAD}], replace(release, **change)) is None


def test_bad_release_of_an_earlier_slipway_is_recognised(record_of, release):
    """Its record has no runtime. The schedule does not try that release again after an upgrade."""
    record = {**record_of("r1", "failed"), "bad": BAD}
    for field in FIRST_RUNTIME:
        del record["release"][field]
    assert find_bad_record([record], release)["run_id"] == "r1"
    assert find_bad_record([record], replace(release, runtime="onnxruntime")) is None


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
    """A release that was proven later is not bad; a run that ended for another reason does not count."""
    records = []
    for minutes, outcome in enumerate(outcomes):
        record = record_of(f"r{minutes}", {"bad": "failed", "proven": "failed"}.get(outcome, outcome), minutes)
        own = {"bad": {"bad": BAD}, "proven": {"outcome": "proven"}}.get(outcome, {})
        records.append({**record, **own})
    found = find_bad_record(records, release)
    assert (found["run_id"] if found else None) == bad


def test_an_earlier_slipways_urls_are_read_without_their_queries(store, record_of, release):
    """A rollback to such a release, and the plan that compares with it, have no signature; nothing has changed for them."""
    source = replace(release.source, kind="savedmodel", location="https://x/m.tar.gz?sig=old")
    golden = replace(release.golden[0], image="https://x/three.png?sig=old", sha256="2" * 64)
    write_record(store, record_of("a", source=source, golden=(golden,)))
    found = read_history(store, "digits-vit").good["release"]
    assert (found["source"]["location"], found["golden"][0]["image"]) == ("https://x/m.tar.gz", "https://x/three.png")
