"""Hostile files in the store's folder of records: skipped with a reason, or read; never a traceback."""

import json
import logging
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hostile import accept_or_refuse, assert_plain, bounded, json_values, mutated
from hypothesis import given
from hypothesis import strategies as st

from slipway.records.history import (
    choose_release,
    describe_releases,
    find_bad_record,
    is_of_another_airflow,
    place_of_record,
    preview_objects_of_record,
    read_current_history,
    read_records,
    records_with_previews,
    release_of_record,
)
from slipway.records.record import begin_record, has_changed_cluster, next_order, record_is_about


@pytest.fixture
def folder(store):
    """The folder of the model's records in the store."""
    return Path(urlsplit(store.uri).path) / "records" / "digits-vit"


def write(folder, *files):
    """The folder has these files alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, text in enumerate(files):
        (folder / f"{number}.json").write_bytes(text)


def as_json(value):
    """A value as a damaged store may have it: NaN and lone surrogates included."""
    return json.dumps(value).encode()


def read_everything(store, release, caplog):
    """What runs read of all records: each reading works, or is refused in one line."""
    caplog.clear()
    with bounded():
        found = read_records(store, "digits-vit")
    for line in found.unread:
        assert_plain(line)
    history = found.history
    for record in found.records:
        describe(record, release)
    for reading in (
        lambda: history.at(release.target, release.deployment).good,
        lambda: history.at(release.target, release.deployment).objects,
        lambda: describe_releases(history),
        lambda: choose_release(history, None),
        lambda: find_bad_record(found.records, release),
        lambda: records_with_previews(found.records, release.target),
        lambda: next_order(store, "digits-vit"),
        lambda: read_current_history(store, "digits-vit"),
        lambda: begin_record(store, release, cause="refresh"),
    ):
        accept_or_refuse(reading)
    for logged in caplog.records:
        assert_plain(logged.getMessage())
    return found


def describe(record, release):
    """What runs read of one record."""
    for reading in (
        lambda: has_changed_cluster(record),
        lambda: place_of_record(record),
        lambda: preview_objects_of_record(record),
        lambda: is_of_another_airflow(record, release),
        lambda: record_is_about(record, release),
        lambda: release_of_record(record, run_id="r", store="file:///s", installation=None, target=release.target),
    ):
        accept_or_refuse(reading)


@given(st.data())
def test_any_damaged_record(store, folder, release, record_of, caplog, data):  # noqa: PLR0917 - fixtures
    """A record with any fields replaced, removed or added is read, skipped with a reason, or refused in one line."""
    caplog.set_level(logging.WARNING)
    good = json.loads(json.dumps(record_of("good", "live", 1)))
    write(folder, as_json(good), as_json(data.draw(mutated(good))))
    assert any(record["run_id"] == "good" for record in read_everything(store, release, caplog).records)


@given(json_values.map(as_json) | st.binary(max_size=100))
def test_any_file(store, folder, release, caplog, content):
    """Any file at all."""
    caplog.set_level(logging.WARNING)
    write(folder, content)
    read_everything(store, release, caplog)


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"schema": ' * 100_000, b"9" * 200_000, b'"\\ud800"', b""],
    ids=["lists", "mappings", "a number", "half a character", "empty"],
)  # fmt: skip
def test_an_extreme_file_is_skipped(store, folder, release, caplog, content):
    """A file that Python's JSON reader gives up on is one that cannot be read."""
    write(folder, content)
    assert len(read_everything(store, release, caplog).unread) == 1


def test_a_good_record_is_read_as_before(store, folder, release, record_of, caplog):
    """What this test calls damaged is only what is damaged."""
    write(folder, as_json(record_of("good", "live", 1)))
    found = read_everything(store, release, caplog)
    assert (len(found.records), found.unread) == (1, ())
