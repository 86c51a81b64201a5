"""Proxies in front of real parts, on loopback, that a test can close: one for TCP connections, one for HTTP requests."""

import json
import socket
import threading
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CHUNK = 64 * 1024


class TcpProxy:
    """Passes TCP connections on to a part. Closing it refuses new connections and cuts those that exist."""

    def __init__(self, host, port):
        self.target = (host, port)
        self.port, self.listener, self.sockets = 0, None, set()
        self.open()

    @property
    def address(self):
        """Host and port of the proxy."""
        return f"127.0.0.1:{self.port}"

    def open(self):
        """Accept connections, always on the same port."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def close(self):
        """Refuse new connections and cut those that exist."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def closed_for(self, seconds):
        """Close the proxy now and open it again after so many seconds; the block ends no earlier."""
        self.close()
        timer = threading.Timer(seconds, self.open)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                server = socket.create_connection(self.target, timeout=10)
                server.settimeout(None)
                for one, other in ((client, server), (server, client)):
                    self.sockets.add(one)
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()
                continue
            client.close()

    def _copy(self, one, other):
        with suppress(OSError):
            while data := one.recv(CHUNK):
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
        self.sockets.discard(one)
        one.close()


class HttpProxy:
    """Passes HTTP requests on to a part.

    `answer(method, path, headers)` may return (status, body) instead of the part's answer; status 0 closes the connection
    without an answer. `change(path, status, body)` may change the part's answer.
    """

    def __init__(self, target=None):
        self.target = target  # URL, or a function that returns it
        self.answer = lambda *_: None
        self.change = lambda _, *answer: answer
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                proxy.handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the names are http.server's

            def log_message(self, *_):
                """Logs nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        """Host and port of the proxy."""
        return f"127.0.0.1:{self.server.server_port}"

    def close(self):
        """Stop the proxy."""
        self.server.shutdown()
        self.server.server_close()

    def handle(self, request):
        """Answer one request."""
        body = read_body(request)
        own = self.answer(request.command, request.path, request.headers)
        if own is not None:
            status, text = own
            if not status:
                request.close_connection = True
                return
            reply(request, status, {"Content-Type": "application/json"}, text)
            return
        target = urlsplit(self.target() if callable(self.target) else self.target)
        dropped = {"transfer-encoding", "content-length", "connection", "accept-encoding"}
        kept = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        with closing(HTTPConnection(target.netloc, timeout=60)) as connection:
            try:
                connection.request(request.command, request.path, body or None, kept)
                answer = connection.getresponse()
                status, headers, data = answer.status, answer.headers, answer.read()
            except OSError as error:
                status, headers, data = 502, {}, json.dumps({"error": str(error)}).encode()
        status, data = self.change(request.path, status, data)
        length = headers.get("Content-Length") if request.command == "HEAD" else None
        reply(request, status, headers, data, length=length)


def read_body(request):
    """The body of a request, chunked or not."""
    if "chunked" in request.headers.get("Transfer-Encoding", ""):
        return b"".join(read_chunks(request.rfile))
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def read_chunks(file):
    """The chunks of a chunked body; reads to its end."""
    while size := int(file.readline().split(b";")[0] or b"0", 16):
        yield file.read(size)
        file.readline()
    file.readline()


def reply(request, status, headers, data, length=None):
    """Send an answer and close the connection."""
    with suppress(BrokenPipeError, ConnectionResetError):
        request.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                request.send_header(name, value)
        request.send_header("Content-Length", length or str(len(data)))
        request.send_header("Connection", "close")
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)
    request.close_connection = True
