"""A registry with the parts of OCI's distribution API that a prune needs; it sends no `Docker-Content-Digest`, which is a SHOULD."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler

from small_server import start_server, stop_server


def digest_of_bytes(data):
    """The digest of a blob or a manifest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class RegistryStub:
    """Holds images by tag. `next_page` gives the `Link` header of each list of tags, `names` the digest header of a manifest.

    `challenge` is the answer to a request without a login, and `storage` another stub that blobs are redirected to.
    `asked` lists the paths of all requests, `logins` their Authorization headers. It is its own token server, at /token.
    """

    def __init__(self, *, next_page=lambda _: None, names=lambda _: None, challenge=None, storage=None):
        self.next_page, self.names, self.challenge, self.storage = next_page, names, challenge, storage
        self.manifests, self.blobs, self.asked, self.deleted, self.logins = {}, {}, [], [], []
        self.server = start_server(self._handler())

    @property
    def host(self):
        """The address, as an image reference names it."""
        return f"127.0.0.1:{self.server.server_port}"

    def push(self, tag, **labels):
        """Add an image under a tag; returns its digest."""
        config = json.dumps({"config": {"Labels": labels}, "tag": tag}).encode()
        self.blobs[digest_of_bytes(config)] = config
        manifest = json.dumps({"config": {"digest": digest_of_bytes(config)}}, indent=3).encode()
        self.manifests[tag] = manifest
        return digest_of_bytes(manifest)

    def stop(self):
        """End the server."""
        stop_server(self.server)

    def _handler(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                stub.asked.append(self.path)
                stub.logins.append(self.headers.get("Authorization"))
                if self.path.startswith("/token"):
                    return self.answer(b'{"token": "made"}', {})
                if stub.challenge and not self.headers.get("Authorization"):
                    return self.answer(b"", {"WWW-Authenticate": stub.challenge}, status=401)
                what, _, name = self.path.split("/v2/vit/", 1)[1].partition("/")
                if what == "tags":
                    page = stub.next_page(self.path)
                    link = {"Link": f'<{page}>; rel="next"'} if page else {}
                    self.answer(json.dumps({"tags": sorted(stub.manifests)}).encode(), link)
                elif what == "manifests":
                    data = stub.manifests[name]
                    named = stub.names(digest_of_bytes(data))
                    self.answer(data, {"Docker-Content-Digest": named} if named else {})
                elif stub.storage:
                    self.answer(b"", {"Location": f"http://{stub.storage.host}{self.path}"}, status=307)
                else:
                    self.answer(stub.blobs[name], {})
                return None

            def do_DELETE(self):
                stub.deleted.append(self.path.rpartition("/")[2])
                self.answer(b"", {}, status=202)

            def answer(self, body, headers, status=200):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Logs nothing."""

        return Handler
