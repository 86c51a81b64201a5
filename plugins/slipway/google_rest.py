"""Questions to Google's REST APIs, as the account of a Google connection: an answer always comes back, also a refusal.

Through Google's own session on the provider's credentials: what is asked is a handful of GETs whose JSON is read as it is,
and for that the discovery client parses documents of megabytes, and trusts a bundle of its own in place of the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

QUESTION_S = 10  # an answer takes well under a second
OK, NOT_FOUND = 200, 404
NOT_ANSWERED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleAnswer:
    """What a REST API answered."""

    status: int  # HTTP's; 0: nobody answered
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """In Google's words why it gave no result; None where it gave one."""
        if self.status == OK:
            return None
        message = (self.body.get("error") or {}).get("message") or "no reason given"
        line = " ".join(str(message).split()).rstrip(".")
        return line if self.status == NOT_ANSWERED else f"HTTP {self.status}: {line}"


@dataclass(frozen=True, slots=True)
class GoogleRest:
    """Google's REST APIs in the connection's universe."""

    account: str | None  # whose credentials they are, where these say so
    request: Callable[..., Any]  # method, URL, and requests' own options
    universe: str

    def get(self, api: str, path: str, **query: Any) -> GoogleAnswer:
        """What an API says of a resource: `get("compute", "/compute/v1/projects/shop")`."""
        return self._ask("GET", api, path, params=query)

    def post(self, api: str, path: str, body: dict[str, Any]) -> GoogleAnswer:
        """What an API answers to a body."""
        return self._ask("POST", api, path, json=body)

    def _ask(self, method: str, api: str, path: str, **options: Any) -> GoogleAnswer:
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        url = f"https://{api}.{self.universe}{path}"
        try:
            answer = self.request(method, url, timeout=QUESTION_S, max_allowed_time=QUESTION_S, **options)
        except (RequestException, GoogleAuthError) as error:
            return GoogleAnswer(status=NOT_ANSWERED, body={"error": {"message": f"{type(error).__name__}: {error}"}})
        try:
            body = answer.json()
        except ValueError:
            body = {"error": {"message": answer.text[:200]}}
        return GoogleAnswer(status=answer.status_code, body=body if isinstance(body, dict) else {})


@contextmanager
def google_rest(conn_id: str) -> Iterator[GoogleRest]:
    """Google's REST APIs as the account of a connection. Raises InputRefused where it cannot be meant, ClusterRefused."""
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    from google.auth.transport.requests import AuthorizedSession

    from slipway.google import google_errors

    with google_errors(f"connection {conn_id}", conn_id):
        credentials = GoogleBaseHook(gcp_conn_id=conn_id).get_credentials()
    session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]  # Google left it untyped
    try:
        yield GoogleRest(_account(credentials), session.request, credentials.universe_domain)
    finally:
        session.close()  # type: ignore[no-untyped-call]  # likewise


def _account(credentials: Any) -> str | None:
    account = getattr(credentials, "service_account_email", None)
    return account if account and "@" in account else None  # a machine's own is called `default` until it is asked
