"""Doors in front of real parts, which a test can close: one for bytes, one for HTTP; each listens on loopback."""

import json
import socket
import threading
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CHUNK = 64 * 1024


class ByteDoor:
    """Passes connections on to a part; while it is shut, they are refused, and those that there were are cut."""

    def __init__(self, host, port):
        self.behind = (host, port)
        self.port, self.listener, self.passing = 0, None, set()
        self.open()

    @property
    def address(self):
        """Where the door is."""
        return f"127.0.0.1:{self.port}"

    def open(self):
        """Let everybody through."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._let_in, args=(self.listener,), daemon=True).start()

    def shut(self):
        """Refuse everybody, and cut who is inside."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.passing):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def shut_for_a_while(self, seconds):
        """Shut now, open again after so many seconds or at the end of the block."""
        self.shut()
        timer = threading.Timer(seconds, self.open)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def _let_in(self, listener):
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                part = socket.create_connection(self.behind, timeout=10)
                part.settimeout(None)
                for one, other in ((caller, part), (part, caller)):
                    self.passing.add(one)
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()
                continue
            caller.close()

    def _pass_on(self, one, other):
        with suppress(OSError):
            while data := one.recv(CHUNK):
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
        self.passing.discard(one)
        one.close()


class HttpDoor:
    """Passes requests on to a part.

    `answer(method, path, headers)` may give (status, body) in its place, with status 0 none at all;
    `change(path, status, body)` makes another answer of one.
    """

    def __init__(self, behind=None):
        self.behind = behind  # URL, or a function that gives it
        self.answer = lambda *_: None
        self.change = lambda _, *answer: answer
        self.heard = []
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                door.handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the names are http.server's

            def log_message(self, *_):
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        """Where the door is."""
        return f"127.0.0.1:{self.server.server_port}"

    def close(self):
        """No more door."""
        self.server.shutdown()
        self.server.server_close()

    def handle(self, asked):
        """Answer one request."""
        body = read_body(asked)
        self.heard.append((asked.command, asked.path))
        said = self.answer(asked.command, asked.path, asked.headers)
        if said is not None:
            status, words = said
            if not status:  # no answer at all
                asked.close_connection = True
                return
            reply(asked, status, {"Content-Type": "application/json"}, words)
            return
        behind = urlsplit(self.behind() if callable(self.behind) else self.behind)
        dropped = {"transfer-encoding", "content-length", "connection", "accept-encoding"}
        wanted = {name: value for name, value in asked.headers.items() if name.lower() not in dropped}
        with closing(HTTPConnection(behind.netloc, timeout=60)) as connection:
            try:
                connection.request(asked.command, asked.path, body or None, wanted)
                answer = connection.getresponse()
                status, headers, data = answer.status, answer.headers, answer.read()
            except OSError as error:
                status, headers, data = 502, {}, json.dumps({"error": str(error)}).encode()
        status, data = self.change(asked.path, status, data)
        reply(asked, status, headers, data, length=headers.get("Content-Length") if asked.command == "HEAD" else None)


def read_body(asked):
    """The body of a request, chunked or not."""
    if "chunked" in asked.headers.get("Transfer-Encoding", ""):
        return b"".join(read_chunks(asked.rfile))
    return asked.rfile.read(int(asked.headers.get("Content-Length") or 0))


def read_chunks(file):
    """The parts of a chunked body; the line after each, and after the last, is read too."""
    while size := int(file.readline().split(b";")[0] or b"0", 16):
        yield file.read(size)
        file.readline()
    file.readline()


def reply(asked, status, headers, data, length=None):
    """Send an answer back, and hang up: the next request comes on a connection of its own."""
    with suppress(BrokenPipeError, ConnectionResetError):
        asked.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                asked.send_header(name, value)
        asked.send_header("Content-Length", length or str(len(data)))
        asked.send_header("Connection", "close")
        asked.end_headers()
        if asked.command != "HEAD":
            asked.wfile.write(data)
    asked.close_connection = True
