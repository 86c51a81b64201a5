import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.errors import StoreError
from slipway.store import Store, fetch, read_bytes, read_json


def folder_of(store):
    """The folder behind a store."""
    return Path(store.uri.removeprefix("file://"))


@pytest.fixture
def file(tmp_path):
    """A file to store."""
    path = tmp_path / "model.tar"
    path.write_bytes(b"\x00model")
    return path


def test_uri_reads_what_was_put(store, file, tmp_path):
    """A stored file comes back from its URI, as bytes and as a file."""
    uri = store.put_file(file, "exports/digits-vit/7/model.tar")
    assert uri == f"{store.uri}/exports/digits-vit/7/model.tar" == store.uri_of("exports/digits-vit/7/model.tar")
    assert read_bytes(uri) == b"\x00model"
    assert fetch(uri, tmp_path / "back.tar").read_bytes() == b"\x00model"


def test_json_comes_back(store):
    """A stored value comes back, by key and by URI, and a person can read it."""
    value = {"label": "🤗", "numbers": [1, 2.5, None, True]}
    uri = store.put_json(value, "records/digits-vit/run.json")
    assert value == read_json(uri) == store.read_json("records/digits-vit/run.json")
    assert "🤗" in (folder_of(store) / "records/digits-vit/run.json").read_text()


def test_newer_value_if_put_twice(store):
    """A second put replaces the first, and leaves no draft beside it."""
    store.put_json({"n": 1}, "a/value.json")
    store.put_json({"n": 2}, "a/value.json")
    assert store.read_json("a/value.json") == {"n": 2}
    assert [path.name for path in (folder_of(store) / "a").iterdir()] == ["value.json"]


def test_whole_or_old_if_read_during_a_put(store):
    """A reader never meets half a value."""
    long = "x" * 200_000
    store.put_json(["0", long], "value.json")

    def write(number):
        store.put_json([str(number), long], "value.json")

    with ThreadPoolExecutor(2) as pool:
        writes = [pool.submit(write, number) for number in range(20)]
        while not all(write.done() for write in writes):
            assert len(store.read_json("value.json")[1]) == len(long)
        for each in writes:
            each.result()


def test_nothing_left_if_a_put_fails(store, tmp_path):
    """A put that fails leaves neither the object nor a draft."""
    with pytest.raises(StoreError):
        store.put_file(tmp_path / "missing", "a/value.json")
    assert not store.exists("a/value.json")
    assert list((folder_of(store) / "a").iterdir()) == []


def test_first_claim_wins(store):
    """What is claimed stays what it was."""
    assert store.claim("versions/digits-vit/1.json", {"content_hash": "a"}) is True
    assert store.claim("versions/digits-vit/1.json", {"content_hash": "b"}) is False
    assert store.read_json("versions/digits-vit/1.json") == {"content_hash": "a"}


def test_one_of_many_claims_wins_and_is_whole_at_once(store):
    """Of claims at one moment one wins, and whoever lost can read the winner's value."""

    def claim(attempt, number):
        won = store.claim(f"versions/{attempt}.json", {"number": number})
        return won, store.read_json(f"versions/{attempt}.json")["number"]

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(25):
            results = list(pool.map(claim, [attempt] * 4, range(4)))
            assert sum(won for won, _ in results) == 1
            assert len({number for _, number in results}) == 1
    assert len(list((folder_of(store) / "versions").iterdir())) == 25


def test_names_are_what_lies_below(store):
    """Names are sorted, drafts are not among them, and there are none where nothing is."""
    assert store.names("versions/digits-vit") == []
    for name in ("10.json", "2.json"):
        store.put_json({}, f"versions/digits-vit/{name}")
    (folder_of(store) / "versions/digits-vit/.2.json.draft").touch()
    assert store.names("versions/digits-vit") == ["10.json", "2.json"]
    assert store.names("versions") == ["digits-vit"]


def test_exists_if_it_was_put(store):
    """Something is there only once it was put."""
    assert store.exists("a.json") is False
    store.put_json({}, "a.json")
    assert store.exists("a.json") is True


def test_refused_in_one_line_if_there_is_nothing(store, tmp_path):
    """What is not there is named by its URI, with what next."""
    for read in (lambda: store.read_json("gone.json"), lambda: fetch(store.uri_of("gone.json"), tmp_path / "x")):
        with pytest.raises(
            StoreError, match=rf"^{re.escape(store.uri)}/gone\.json: cannot be read: .*Next: "
        ) as refusal:
            read()
        assert "\n" not in str(refusal.value)


def test_refused_in_one_line_if_not_json(store, file):
    """What is not JSON is named, with what next."""
    store.put_file(file, "value.json")
    with pytest.raises(StoreError, match=r"value\.json: not JSON: .*Next: ") as refusal:
        store.read_json("value.json")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("act", ["put", "claim", "names"])
def test_refused_in_one_line_if_the_store_cannot_be_used(tmp_path, act):
    """A store that is no folder is refused, naming the Variable that says where it is."""
    (tmp_path / "file").touch()
    store = Store(f"file://{tmp_path}/file")
    with pytest.raises(StoreError, match=r"/file/a.*: .*Next: check the Variable slipway_store") as refusal:
        {
            "put": lambda: store.put_json({}, "a/b.json"),
            "claim": lambda: store.claim("a/b.json", {}),
            "names": lambda: Store(f"nonsense://{tmp_path}/file").names("a"),
        }[act]()
    assert "\n" not in str(refusal.value)


def test_value_is_readable_json(store):
    """People and other programs read records: sorted, indented, one line end at the end."""
    store.put_json({"b": 1, "a": 2}, "a.json")
    assert json.dumps({"a": 2, "b": 1}, indent=1) + "\n" == (folder_of(store) / "a.json").read_text()
