"""The token server of a registry that requires Google's tokens, as Artifact Registry does.

The registry is Distribution, a real one. It redirects clients to the token server (`/v2/token`, as at
LOCATION-docker.pkg.dev). The token server accepts the login `oauth2accesstoken` with an access token, and returns a token
of its own for the requested scopes. Distribution verifies that token's signature by itself.

It has one permission: whether an account may write.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from local.gke.names import REGISTRY_TOKENS
from local.gke.tokens import Issuer, who

LOGIN = "oauth2accesstoken"
GIVEN_S = 300
RIGHTS = {"pull": "downloadArtifacts", "push": "uploadArtifacts", "delete": "deleteArtifacts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServer:
    """Issues tokens for a registry. `writers` tells whether an account may push and delete."""

    service: str  # the name of the registry in its tokens
    key: str  # PEM, the key of the certificate below
    certificate: bytes  # PEM, signed by the authority that the registry trusts
    issuers: Callable[[], Sequence[Issuer]]
    writers: Callable[[str], bool] = lambda _: True

    def answer(self, login: str, scopes: Sequence[str]) -> tuple[int, Any]:
        """Status and JSON for a login (the value after `Basic`) and the requested scopes."""
        account = self._account(login)
        if login and account is None:
            return 401, _error("UNAUTHORIZED", "authentication failed")
        access = [_access(scope) for scope in scopes]
        for action in (action for one in access for action in one["actions"]):
            right = f"artifactregistry.repositories.{RIGHTS.get(action, action)}"
            if account is None:
                message = f'Unauthenticated request. Unauthenticated requests do not have permission "{right}"'
                return 403, _error("DENIED", message)
            if action != "pull" and not self.writers(account):
                return 403, _error("DENIED", f'Permission "{right}" denied on resource (or it may not exist)')
        if account is None:
            return 401, _error("UNAUTHORIZED", "authentication required")
        return 200, {"token": self._sign(account, access), "expires_in": GIVEN_S}

    def _account(self, login: str) -> str | None:
        try:
            name, _, token = base64.b64decode(login).decode().partition(":")
        except ValueError:
            return None
        found = who(token, self.issuers()) if name == LOGIN else None
        return found.email if found else None

    def _sign(self, account: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        claims = {
            "iss": REGISTRY_TOKENS, "sub": account, "aud": self.service, "jti": uuid.uuid4().hex,
            "iat": now, "nbf": now - 10, "exp": now + GIVEN_S, "access": access,
        }  # fmt: skip
        der = x509.load_pem_x509_certificate(self.certificate).public_bytes(Encoding.DER)
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"x5c": [base64.b64encode(der).decode()]})


def _access(scope: str) -> dict[str, Any]:
    """The scope `repository:shop/vit:pull,push` in the form that Distribution reads in a token."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _error(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


def serve_tokens(server: TokenServer, port: int) -> ThreadingHTTPServer:
    """Serve on loopback, in a thread. Raises OSError if the port is in use."""

    class Handler(BaseHTTPRequestHandler):
        """Reads the login and the scopes of a GET, as Docker engines send them."""

        def do_GET(self) -> None:
            """Answer one request."""
            login = self.headers.get("Authorization", "").removeprefix("Basic ")
            scopes = [one for given in parse_qs(urlsplit(self.path).query).get("scope", []) for one in given.split()]
            status, body = server.answer(login, scopes)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_words: Any) -> None:
            """Log nothing: a request contains credentials."""

    serving = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return serving
