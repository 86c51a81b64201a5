"""A registry with the parts of OCI's distribution API that a prune needs; it sends no `Docker-Content-Digest`, which is a SHOULD."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def digest_of_bytes(data):
    """The digest of a blob or a manifest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class RegistryStub:
    """Holds images by tag. `next_page` gives the `Link` header of each list of tags, `names` the digest header of a manifest."""

    def __init__(self, *, next_page=lambda _: None, names=lambda _: None):
        self.next_page, self.names = next_page, names
        self.manifests, self.blobs, self.asked, self.deleted = {}, {}, [], []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

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
        self.server.shutdown()
        self.server.server_close()

    def _handler(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                what, _, name = self.path.split("/v2/vit/", 1)[1].partition("/")
                stub.asked.append(self.path)
                if what == "tags":
                    page = stub.next_page(self.path)
                    link = {"Link": f'<{page}>; rel="next"'} if page else {}
                    self.answer(json.dumps({"tags": sorted(stub.manifests)}).encode(), link)
                elif what == "manifests":
                    data = stub.manifests[name]
                    named = stub.names(digest_of_bytes(data))
                    self.answer(data, {"Docker-Content-Digest": named} if named else {})
                else:
                    self.answer(stub.blobs[name], {})

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
