"""A proxy on loopback that answers every host itself, over TLS, with recorded answers of PyPI's JSON API."""

import json
import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class AdvisoriesProxy:
    """Started by its constructor. `answers` gives a status and a body for a package and version; else 404, as PyPI answers."""

    def __init__(self, answers):
        self.folder = tempfile.TemporaryDirectory(prefix="slipway-advisories-")
        self.authority = Path(self.folder.name) / "authority.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.authority.write_bytes(self._certificate("authority", self._key, authority=True))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answers))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()

    def _certificate(self, host, key, *, authority=False):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]),
                subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]),
                public_key=key.public_key(),
                serial_number=x509.random_serial_number(),
                not_valid_before=now - timedelta(days=1),
                not_valid_after=now + timedelta(days=1),
            )
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _context(self, host):
        """The TLS of a host, with a certificate for it that the authority signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = Path(self.folder.name) / f"{threading.get_ident()}.pem"
        chain.write_bytes(private + self._certificate(host, key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context

    def _handler(self, answers):
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_CONNECT(self):
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self.connection = proxy._context(self.path.partition(":")[0]).wrap_socket(
                    self.connection, server_side=True
                )
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
                self.close_connection = False

            def do_GET(self):
                package, version = self.path.split("/")[2:4]
                status, body = answers.get(f"{package}=={version}", (404, {"message": "Not Found"}))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            def log_message(self, *_):
                """Logs nothing."""

        return Handler
