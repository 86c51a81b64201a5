import filecmp
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from slipway.errors import StoreError
from slipway.records.store import Store, fetch_from_store, read_bytes, read_json

BUCKETS = [
    pytest.param(name, marks=[pytest.mark.stand, pytest.mark.alongside])
    for name in ("bucket", "s3_bucket", "azure_bucket")
]
PLACES = ["folder", *BUCKETS]


@pytest.fixture(params=PLACES)
def any_store(request):
    """An artifact store in a folder, and one in a bucket of each kind of object store."""
    if request.param == "folder":
        return request.getfixturevalue("store")
    return Store(f"{request.getfixturevalue(request.param)}/slipway")


def folder_of(store):
    """The folder behind a store."""
    return Path(store.uri.removeprefix("file://"))


@pytest.fixture
def file(tmp_path):
    """A file to store."""
    path = tmp_path / "model.tar"
    path.write_bytes(b"\x00model")
    return path


def test_uri_reads_what_was_put(any_store, file, tmp_path):
    """A stored file is read from its URI, as bytes and as a file."""
    uri = any_store.put_file(file, "exports/digits-vit/7/model.tar")
    assert (
        uri == f"{any_store.uri}/exports/digits-vit/7/model.tar" == any_store.uri_of("exports/digits-vit/7/model.tar")
    )
    assert read_bytes(uri) == b"\x00model"
    assert fetch_from_store(uri, tmp_path / "back.tar").read_bytes() == b"\x00model"


def test_json_is_read_back(any_store):
    """A stored value is read by key and by URI."""
    value = {"label": "🤗", "numbers": [1, 2.5, None, True]}
    uri = any_store.put_json(value, "records/digits-vit/run.json")
    assert value == read_json(uri) == any_store.read_json("records/digits-vit/run.json")


def test_newer_value_if_put_twice(any_store):
    """A second put replaces the first and leaves no draft."""
    any_store.put_json({"n": 1}, "a/value.json")
    any_store.put_json({"n": 2}, "a/value.json")
    assert any_store.read_json("a/value.json") == {"n": 2}
    assert any_store.names("a") == ["value.json"]


def test_reads_during_a_put_are_complete(any_store):
    """A reader never gets half a value."""
    long = "x" * 200_000
    any_store.put_json(["0", long], "value.json")

    def write(number):
        any_store.put_json([str(number), long], "value.json")

    with ThreadPoolExecutor(2) as pool:
        writes = [pool.submit(write, number) for number in range(20)]
        while not all(write.done() for write in writes):
            assert len(any_store.read_json("value.json")[1]) == len(long)
        for each in writes:
            each.result()


def test_nothing_left_if_a_put_fails(store, tmp_path):
    """A put that fails leaves neither the object nor a draft."""
    with pytest.raises(StoreError):
        store.put_file(tmp_path / "missing", "a/value.json")
    assert not store.exists("a/value.json")
    assert list((folder_of(store) / "a").iterdir()) == []


def test_first_claim_wins(any_store):
    """A claimed key keeps its first value."""
    assert any_store.claim("versions/digits-vit/1.json", {"content_hash": "a"}) is True
    assert any_store.claim("versions/digits-vit/1.json", {"content_hash": "b"}) is False
    assert any_store.read_json("versions/digits-vit/1.json") == {"content_hash": "a"}


def test_one_of_many_claims_wins_and_is_complete(any_store):
    """One of several simultaneous claims wins, and the others can read the winner's value at once."""

    def claim(attempt, number):
        won = any_store.claim(f"versions/{attempt}.json", {"number": number})
        return won, any_store.read_json(f"versions/{attempt}.json")["number"]

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(25):
            results = list(pool.map(claim, [attempt] * 4, range(4)))
            assert sum(won for won, _ in results) == 1
            assert len({number for _, number in results}) == 1
    assert len(any_store.names("versions")) == 25


def test_names_are_what_lies_below(any_store):
    """Names are sorted, without drafts; empty if there is nothing."""
    assert any_store.names("versions/digits-vit") == []
    for name in ("10.json", "2.json"):
        any_store.put_json({}, f"versions/digits-vit/{name}")
    assert any_store.names("versions/digits-vit") == ["10.json", "2.json"]
    assert any_store.names("versions") == ["digits-vit"]


def test_exists_only_after_a_put(any_store):
    """A key exists only after a put."""
    assert any_store.exists("a.json") is False
    any_store.put_json({}, "a.json")
    assert any_store.exists("a.json") is True


def test_refused_in_one_line_if_there_is_nothing(any_store, tmp_path):
    """The error names the missing URI and the next step."""
    for read in (
        lambda: any_store.read_json("gone.json"),
        lambda: fetch_from_store(any_store.uri_of("gone.json"), tmp_path / "x"),
    ):
        with pytest.raises(
            StoreError, match=rf"^{re.escape(any_store.uri)}/gone\.json: cannot be read: .*Next: "
        ) as refusal:
            read()
        assert "\n" not in str(refusal.value)


def test_refused_in_one_line_if_not_json(store, file):
    """The error names the file that is not JSON, and the next step."""
    store.put_file(file, "value.json")
    with pytest.raises(StoreError, match=r"value\.json: not JSON: .*Next: ") as refusal:
        store.read_json("value.json")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("act", ["put", "claim", "names"])
def test_refused_in_one_line_if_the_store_cannot_be_used(tmp_path, act):
    """The error of an unusable store names the Variable that sets it."""
    (tmp_path / "file").touch()
    store = Store(f"file://{tmp_path}/file")
    with pytest.raises(StoreError, match=r"/file/a.*: .*Next: check the Variable slipway_store") as refusal:
        {
            "put": lambda: store.put_json({}, "a/b.json"),
            "claim": lambda: store.claim("a/b.json", {}),
            "names": lambda: Store(f"nonsense://{tmp_path}/file").names("a"),
        }[act]()
    assert "\n" not in str(refusal.value)


def test_drafts_are_not_listed(store):
    """A draft is not listed, and a finished put leaves none."""
    store.put_json({}, "a/2.json")
    assert [path.name for path in (folder_of(store) / "a").iterdir()] == ["2.json"]
    (folder_of(store) / "a/.2.json.draft").touch()
    assert store.names("a") == ["2.json"]


WRITE = """
import sys
from slipway.records.store import Store
store = Store(sys.argv[1])
print(store.claim("versions/1.json", {}), store.claim("versions/2.json", {}), store.put_json({"n": 2}, "a.json"))
"""


def test_writes_of_other_processes_are_seen(any_store):
    """A process that listed, checked and read before sees what another process has written since."""
    any_store.claim("versions/1.json", {})
    any_store.put_json({"n": 1}, "a.json")
    assert any_store.names("versions") == ["1.json"]
    assert not any_store.exists("versions/2.json")
    assert any_store.read_json("a.json") == {"n": 1}
    path = os.pathsep.join([str(Path(__file__).parents[3] / "plugins"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", WRITE, any_store.uri],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == [f"False True {any_store.uri_of('a.json')}"], done.stderr
    assert any_store.exists("versions/2.json")
    assert any_store.names("versions") == ["1.json", "2.json"]
    assert any_store.read_json("a.json") == {"n": 2}


@pytest.mark.parametrize("kind", BUCKETS)
def test_refused_in_one_line_if_there_is_no_bucket(kind, request):
    """A missing bucket is an error and is not created."""
    store = Store(f"{request.getfixturevalue(kind)}-missing/slipway")
    with pytest.raises(StoreError, match=r"-missing/slipway/a\.json: cannot be read: .*Next: ") as refusal:
        store.read_json("a.json")
    assert "\n" not in str(refusal.value)
    assert store.names("a") == []


def test_value_is_readable_json(store):
    """JSON files are sorted and indented and end in one newline."""
    store.put_json({"b": 1, "a": "🤗"}, "a.json")
    assert (
        json.dumps({"a": "🤗", "b": 1}, indent=1, ensure_ascii=False) + "\n"
        == (folder_of(store) / "a.json").read_text()
    )


def test_store_has_an_identity_of_its_own(store, tmp_path):
    """It is created once, by whoever asks first. Another store with the same URI, on another machine, has another identity."""
    identity = store.identity()
    assert identity == Store(store.uri).identity()
    (tmp_path / "store").rename(tmp_path / "other machine")
    assert store.identity() != identity
    (tmp_path / "store" / "store.json").unlink()
    (tmp_path / "other machine" / "store.json").rename(tmp_path / "store" / "store.json")
    assert store.identity() == identity


def test_large_file_is_read_as_it_was_put(any_store, tmp_path):
    """A file that object stores take in parts is complete."""
    large = tmp_path / "model.tar"
    large.write_bytes(os.urandom(1024 * 1024) * 70)
    uri = any_store.put_file(large, "exports/digits-vit/7/model.tar")
    assert filecmp.cmp(fetch_from_store(uri, tmp_path / "back.tar"), large, shallow=False)


def test_removed_with_all_that_is_below(any_store):
    """Nothing is left below a key that was removed, and removing what is not there is no error."""
    any_store.put_json({}, "exports/digits-vit/7/a.json")
    any_store.put_json({}, "exports/digits-vit/8/b.json")
    any_store.remove("exports/digits-vit/7")
    any_store.remove("exports/digits-vit/7")
    assert any_store.names("exports/digits-vit") == ["8"]


class Careless(MemoryFileSystem):
    """A server that ignores the condition of a write, as older servers of the S3 API do."""

    protocol = "careless"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def pipe_file(self, path, value, **_):
        """Write it, even if it exists."""
        super().pipe_file(path, value)


class Contested(Careless):
    """A server that first answers that somebody else is creating the object."""

    protocol = "contested"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    asked: ClassVar[list] = []

    def pipe_file(self, path, value, mode="overwrite", **_):
        """Refuse the first two, as S3 does."""
        self.asked.append(mode)
        if len(self.asked) < 3:
            raise OSError("An error occurred (ConditionalRequestConflict) when calling the PutObject operation")
        super().pipe_file(path, value)


@pytest.fixture
def memory_store(monkeypatch):
    """A store on one of the file systems above."""

    def make(kind):
        kind.store.clear()
        monkeypatch.setattr("slipway.records.store.CREATE_PAUSE_S", 0)
        monkeypatch.setattr("slipway.records.store.object_path", lambda uri: MemoryPlace(kind(), uri))
        return Store(f"{kind.protocol}://slipway")

    return make


@dataclass
class MemoryPlace:
    """A path in one of these file systems."""

    fs: Careless
    uri: str

    @property
    def protocol(self):
        """The scheme."""
        return self.fs.protocol

    @property
    def path(self):
        """The path in the file system."""
        return "/" + self.uri.partition("://")[2]

    def open(self, mode):
        """The file."""
        return self.fs.open(self.path, mode)


def test_server_that_replaces_what_it_should_create_is_refused(memory_store):
    """Two runs could get the same version there. Nothing is left, so that the next run is refused as well."""
    store = memory_store(Careless)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"its server replaces an object .* Next: use a server that has conditional writes"
        ):
            store.identity()


def test_claim_is_tried_again_if_another_is_under_way(memory_store):
    """S3 answers a conflict if two create an object at the same moment, and asks for another try."""
    store = memory_store(Contested)
    assert store.claim("versions/1.json", {})
    assert Contested.asked == ["create"] * 3


def test_store_gets_one_identity_if_many_workers_ask_first(store):
    """The first one creates it; the others read it."""
    with ThreadPoolExecutor(8) as workers:
        assert len(set(workers.map(lambda _: store.identity(), range(8)))) == 1


@pytest.mark.parametrize("value", [{}, [], {"id": 7}, {"id": ""}, {"id": "a b"}])
def test_identity_that_is_invalid_is_refused(store, value):
    """It would be a label and a part of a container's name."""
    store.put_json(value, "store.json")
    with pytest.raises(StoreError, match=r"store\.json: names no id of the store\. Next: "):
        store.identity()
