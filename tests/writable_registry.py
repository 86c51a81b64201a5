"""A registry in memory that takes images: the parts of OCI's distribution API that an upload needs."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from small_server import start_server, stop_server

OCI = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data):
    """The digest of a blob or a manifest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class WritableRegistry:
    """Blobs and manifests by repository. `mounts` says whether it mounts; `login` is the Authorization that it wants.

    `refuses` gives a status for a request (method and path), `location` another place for uploads. `sent` counts the bytes of
    uploaded blobs, `logins` lists the Authorization of all requests.
    """

    def __init__(self):
        self.blobs, self.manifests, self.mounts, self.login, self.location = {}, {}, True, None, None
        self.refuses = lambda _method, _path: None
        self.sent, self.logins, self.mounted = 0, [], []
        self.server = start_server(self._handler())

    @property
    def host(self):
        """The address, as an image reference names it."""
        return f"127.0.0.1:{self.server.server_port}"

    def hold(self, repository, data):
        """Hold a blob; returns its descriptor."""
        self.blobs.setdefault(repository, {})[digest_of(data)] = data
        return {
            "digest": digest_of(data),
            "size": len(data),
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        }

    def hold_manifest(self, repository, tag, manifest):
        """Hold a manifest under its digest and a tag; returns the digest."""
        data = json.dumps(manifest).encode()
        self.manifests.setdefault(repository, {}).update({tag: data, digest_of(data): data})
        return digest_of(data)

    def hold_image(self, repository, tag, *, layers=(b"base",), labels=None, env=("PATH=/bin",)):
        """Hold an image; returns the digest of its manifest."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Env": list(env), "Labels": labels, "Cmd": ["serve"], "User": "1000"},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(b"tar of " + layer) for layer in layers]},
            "history": [{"created_by": "base"}],
        }
        described = {
            **self.hold(repository, json.dumps(config).encode()),
            "mediaType": "application/vnd.oci.image.config.v1+json",
        }
        held = [self.hold(repository, layer) for layer in layers]
        return self.hold_manifest(
            repository, tag, {"schemaVersion": 2, "mediaType": OCI, "config": described, "layers": held}
        )

    def stop(self):
        """End the server."""
        stop_server(self.server)

    def _handler(self):
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.read(with_body=True)

            def do_HEAD(self):
                self.read(with_body=False)

            def read(self, *, with_body):
                if not self.is_allowed():
                    return
                repository, what, name = self.place()
                held = (registry.blobs if what == "blobs" else registry.manifests).get(repository, {}).get(name)
                if held is None:
                    self.answer(404)
                else:
                    kind = json.loads(held).get("mediaType", OCI) if what == "manifests" else "application/octet-stream"
                    self.answer(200, held if with_body else b"", {"Content-Type": kind}, size=len(held))

            def do_POST(self):
                if not self.is_allowed():
                    return
                repository, _, _ = self.place()
                asked = parse_qs(urlsplit(self.path).query)
                if "mount" in asked and registry.mounts:
                    [digest], [source] = asked["mount"], asked["from"]
                    registry.blobs.setdefault(repository, {})[digest] = registry.blobs[source][digest]
                    registry.mounted.append(digest)
                    self.answer(201, headers={"Docker-Content-Digest": digest})
                else:
                    self.answer(202, headers={"Location": registry.location or f"/v2/{repository}/blobs/uploads/1"})

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not self.is_allowed():
                    return
                repository, what, name = self.place()
                if what == "manifests":
                    registry.manifests.setdefault(repository, {}).update({name: body, digest_of(body): body})
                else:
                    [digest] = parse_qs(urlsplit(self.path).query)["digest"]
                    assert digest == digest_of(body)
                    registry.sent += len(body)
                    registry.blobs.setdefault(repository, {})[digest] = body
                self.answer(201)

            def is_allowed(self):
                path = urlsplit(self.path).path
                registry.logins.append(self.headers.get("Authorization"))
                if registry.login and self.headers.get("Authorization") != registry.login:
                    self.answer(401, headers={"WWW-Authenticate": 'Basic realm="here"'})
                    return False
                if status := registry.refuses(self.command, path):
                    self.answer(status)
                    return False
                return True

            def place(self):
                path = urlsplit(self.path).path.removeprefix("/v2/")
                for what in ("/blobs/", "/manifests/"):
                    if what in path:
                        repository, _, name = path.partition(what)
                        return repository, what.strip("/"), name
                raise AssertionError(path)

            def answer(self, status, body=b"", headers=None, size=None):
                self.send_response(status)
                for name, value in {
                    **(headers or {}),
                    "Content-Length": str(len(body) if size is None else size),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler
