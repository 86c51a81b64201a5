"""Which images prune deletes in a registry that other installations use too."""

import json
import re
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from slipway import names
from slipway.errors import RetentionIncomplete
from slipway.image.build import IMAGE_LABEL_STORE, IMAGE_LABEL_TITLE
from slipway.records.record import write_record
from slipway.release import Retention
from slipway.steps.prune import prune


@pytest.fixture
def registry():
    """A registry with the repository `vit`: `images` maps each digest to its tag and labels."""
    images = {}

    def answer(method, path):
        what, _, name = path.removeprefix("/v2/vit/").partition("/")
        if what == "tags":
            return {"tags": [tag for tag, _ in images.values()]}
        digest = next((one for one, (tag, _) in images.items() if name in {one, tag}), None)
        if what == "blobs":
            return {"config": {"Labels": images[name.removeprefix("sha256:config-")][1]}}
        if digest is None:
            return None
        if method == "DELETE" and name == digest:
            images.pop(digest)
        return {"config": {"digest": f"sha256:config-{digest}"}, "digest": digest}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = answer(self.command, self.path)
            text = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            if found and "digest" in found:
                self.send_header("Docker-Content-Digest", found["digest"])
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_DELETE = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_):
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield SimpleNamespace(images=images, repository=f"127.0.0.1:{server.server_port}/vit")
    server.shutdown()
    server.server_close()


@pytest.fixture
def pruned(registry, store, release, record_of, closed_url, monkeypatch):  # noqa: PLR0917
    """Prunes a model with three proven releases, of which one is kept; what is left in the registry, by tag."""
    extra = {"conn_type": "docker", "host": closed_url.replace("http", "tcp")}
    monkeypatch.setenv("AIRFLOW_CONN_CLOSED", json.dumps(extra))
    for n in (1, 2, 3):
        digest = f"sha256:{n}"
        record = record_of(f"run{n}", "live", n, release_id=f"r{n}", repository=registry.repository)
        pushed = {**record["pushed"], "reference": f"{registry.repository}@{digest}", "digest": digest}
        write_record(store, {**record, "digest": digest, "pushed": pushed})
    asked = replace(
        release,
        run_id="run3",
        engine_conn_id="closed",
        repository=registry.repository,
        retention=Retention(releases=1, records=1),
    )

    def run(**stores):
        for digest, (tag, store_label) in stores.items():
            labels = {IMAGE_LABEL_TITLE: "digits-vit", IMAGE_LABEL_STORE: store_label}
            registry.images[re.sub("^d", "sha256:", digest)] = (tag, labels)
        with pytest.raises(RetentionIncomplete, match="engine"):
            prune(asked)
        return sorted(tag for tag, _ in registry.images.values())

    return run


def test_image_of_another_store_at_the_same_uri_is_kept(store, pruned):
    """Two machines may both have file:///srv/slipway; an earlier Slipway gave both the same label."""
    before = names.former_store_id(store.uri)
    assert pruned(d8=("theirs", before), d9=("theirs-now", "another")) == ["theirs", "theirs-now"]


def test_image_of_this_store_is_deleted(store, pruned):
    """Its label is the store's own id; an image of an earlier Slipway is known by a record of this store."""
    mine, before = store.identity(), names.former_store_id(store.uri)
    left = pruned(d1=("recorded", before), d2=("recorded-now", mine), d3=("live", before), d7=("unrecorded", mine))
    assert left == ["live"]


def test_recorded_image_that_names_another_store_is_kept(pruned):
    """A copied store has the records of its original: in doubt nothing is deleted."""
    assert pruned(d1=("theirs", "another")) == ["theirs"]
