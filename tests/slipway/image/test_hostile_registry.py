"""Hostile answers of a registry: images are listed, or one line says what is wrong; no request leaves the repository."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hostile import accept_or_refuse, json_values, mutated, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.errors import RegistryUnusable
from slipway.image.append import pin_base
from slipway.image.registry import MANIFESTS, parse_challenge, repository_at
from slipway.runtimes import RUNTIMES

DIGEST = f"sha256:{'0' * 64}"
GOOD = {
    "tags/list": {"tags": ["v1"]},
    "manifests/v1": {"config": {"digest": DIGEST}},
    f"blobs/{DIGEST}": {"config": {"Labels": {"slipway/model": "vit"}}},
}
words = texts.map(
    lambda text: text.encode(errors="replace").decode("latin-1").replace("\r", " ").replace("\n", " ")[:2000]
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Location": st.sampled_from(["http://[", "/v2/x/", "/v2/vit/tags/list", "http://127.0.0.1:9/", "file:///etc/passwd", "\x1b"]),
        "Link": st.sampled_from(['<http://[>; rel="next"', '</v2/other/tags/list>; rel="next"', '<\x00>; rel="next"']) | words,
        "WWW-Authenticate": st.sampled_from(['Basic realm="', "Bearer", 'Bearer realm="http://["', 'Bearer realm="file:///x"']) | words,
        "Docker-Content-Digest": words,
    },
)  # fmt: skip


class HostileRegistry:
    """Answers each path below the repository with what `answers` has, with a status and headers."""

    def __init__(self):
        self.answers, self.status, self.headers, self.asked = {}, 200, {}, []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry.asked.append(self.path)
                path = self.path.removeprefix("/v2/vit/")
                body = registry.answers.get(path, b"{}")
                self.send_response(registry.status)
                for name, value in registry.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_DELETE = do_GET  # noqa: N815 - the names are http.server's

            def log_message(self, *_):
                """Logs nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def repository(self):
        """The repository, as an image reference names it."""
        return f"127.0.0.1:{self.server.server_port}/vit"

    def set(self, answers, status=200, headers=None):
        """Answer so from now on."""
        self.answers = {
            path: body if isinstance(body, bytes) else json.dumps(body).encode() for path, body in answers.items()
        }
        self.status, self.headers, self.asked = status, headers or {}, []


@pytest.fixture(scope="module")
def registry():
    """A registry for all of this module's tests."""
    started = HostileRegistry()
    with repository_at(started.repository, None) as started.found:  # one client: to make one takes long
        yield started
    started.server.shutdown()
    started.server.server_close()


def images(registry):
    """All images of the repository."""
    return list(registry.found.tagged())


def test_a_good_registry_is_read(registry):
    """What this test calls hostile is only what is hostile."""
    registry.set(GOOD)
    assert [(image.tag, image.labels) for image in images(registry)] == [("v1", {"slipway/model": "vit"})]


@settings(max_examples=100)
@given(mutated(GOOD), st.sampled_from([200, 200, 200, 302, 401, 403, 404, 500]), headers)
def test_any_answers(registry, answers, status, headers):
    """Whatever a registry answers, its images are texts, or one line says what is wrong."""
    registry.set(answers if isinstance(answers, dict) else {}, status, headers)
    found = accept_or_refuse(images, registry)
    assert all(isinstance(value, str) for image in found or () for value in image.labels.values())


@settings(max_examples=50)
@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(registry, content):
    """Whatever bytes it answers with."""
    registry.set({"tags/list": content, "manifests/v1": content})
    accept_or_refuse(images, registry)


@pytest.mark.parametrize(
    "tag", ["../../other/manifests/live", "a/b", "v1?x=1", "%2e%2e/other", "", "\x1b[31m", "v1\r\nHost: x"]
)
def test_a_tag_leads_to_no_other_repository(registry, tag):
    """A tag is a part of a path, also of the request that deletes it: what is no tag is refused before any request."""
    registry.set({**GOOD, "tags/list": {"tags": [tag]}})
    with pytest.raises(RegistryUnusable, match=r"not a list of tags\. Next: ask the registry's operator$"):
        images(registry)
    assert registry.asked == ["/v2/vit/tags/list"]


@pytest.mark.parametrize("digest", ["../../other/blobs/x", "sha256:0", 7, None, ["a"]])
def test_a_digest_leads_to_no_other_repository(registry, digest):
    """Nor does what a manifest names as the digest of its configuration."""
    registry.set({**GOOD, "manifests/v1": {"config": {"digest": digest}}})
    with pytest.raises(RegistryUnusable, match=r"the manifest of v1 names no configuration"):
        images(registry)


@given(texts | st.just("x" * 50_000) | st.just('x="' * 20_000))
def test_any_challenge(header):
    """A challenge is read in time, whatever it is."""
    accept_or_refuse(parse_challenge, f"Bearer {header}")


BASE = {
    "manifests/1": {"mediaType": MANIFESTS[0], "config": {"digest": DIGEST}, "layers": [{"digest": DIGEST, "size": 1}]},
    f"blobs/{DIGEST}": {
        "config": {"Env": ["A=1"], "Labels": {"a": "b"}},
        "rootfs": {"diff_ids": [DIGEST]},
        "history": [],
    },
}


@settings(max_examples=100)
@given(mutated(BASE["manifests/1"]) | json_values, mutated(BASE[f"blobs/{DIGEST}"]) | json_values)
def test_any_base(registry, manifest, config):
    """Whatever a base image's manifest and configuration say, it is pinned, or one line says what is wrong."""
    described = json.dumps(config).encode()
    digest = f"sha256:{hashlib.sha256(described).hexdigest()}"
    text = json.dumps(manifest).replace(DIGEST, digest)
    registry.set({"manifests/1": text.encode(), f"blobs/{digest}": described})
    accept_or_refuse(pin_base, f"{registry.repository}:1", None, RUNTIMES["tensorflow"])
