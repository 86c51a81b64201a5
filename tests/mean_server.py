"""A server on loopback whose answers never end: each byte comes in time, but the whole does not, or it is too large."""

import gzip
import socket
import threading

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PAUSE_S = 0.02  # between two bytes
HIDDEN_BYTES = 32 * 1024 * 1024
WAYS = {  # what is sent first, then again and again, and the pause
    "drips its headers": (HEAD + b"X-Long: ", b"x", PAUSE_S),
    "drips its body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" ", PAUSE_S),
    "never stops": (HEAD + b"Connection: close\r\n\r\n", b" " * 65536, 0),
    "hides its size": (HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", b"", PAUSE_S),
}


class MeanServer:
    """Answers every request in one of the `WAYS`, until the client goes or the server is stopped."""

    def __init__(self, way):
        self.first, self.again, self.pause_s = WAYS[way]
        if way == "hides its size":
            self.first += gzip.compress(b" " * HIDDEN_BYTES, compresslevel=1)
        self.stopped = threading.Event()
        self.sent = 0  # bytes of the largest answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        """Accept until stopped."""
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client):
        """Send until the client goes."""
        sent = 0
        with client:
            try:
                client.recv(65536)
                client.sendall(self.first)
                while not self.stopped.wait(self.pause_s):
                    client.sendall(self.again)
                    sent += len(self.again)
                    self.sent = max(self.sent, sent)
            except OSError:
                return

    def stop(self):
        """End all answers."""
        self.stopped.set()
        self.socket.close()
