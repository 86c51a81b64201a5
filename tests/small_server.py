"""A small real server on loopback, in a thread."""

import threading
from http.server import ThreadingHTTPServer


def start_server(handler):
    """A server whose requests this handler answers; it listens already."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


def stop_server(server):
    """End the server."""
    server.shutdown()
    server.server_close()
