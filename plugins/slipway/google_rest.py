"""Requests to Google's REST APIs, with the account of a Google connection; a refusal is an answer too.

Uses Google's own session with the provider's credentials. The discovery client would parse megabytes of documents for a
handful of GETs, and trusts its own bundle of certificates instead of the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from slipway.bounded_requests import bound_session, call_within
from slipway.errors import one_line
from slipway.facts import JsonObject
from slipway.strict_json import load_json

REQUEST_S = 10  # to connect, and between two bytes; an answer takes well under a second
TOTAL_S = 30  # for a whole answer, including a new token if one is needed
OK, NOT_FOUND = 200, 404
NOT_ANSWERED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleAnswer:
    """The answer of a REST API."""

    status: int  # of HTTP; 0: no answer
    body: JsonObject = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """Google's message if there is no result, None if there is one."""
        if self.status == OK:
            return None
        error = self.body.get("error")
        message = one_line((error.get("message") if isinstance(error, dict) else error) or "no reason given")
        return message if self.status == NOT_ANSWERED else f"HTTP {self.status}: {message}"


@dataclass(frozen=True, slots=True)
class GoogleRest:
    """Google's REST APIs in the connection's universe."""

    account: str | None  # of the credentials, if they name it
    request: Callable[..., Any]  # method, URL, and the options of `requests`
    universe: str

    def get(self, api: str, path: str, **query: Any) -> GoogleAnswer:
        """A resource of an API: `get("compute", "/compute/v1/projects/shop")`."""
        return self._ask("GET", api, path, params=query)

    def post(self, api: str, path: str, body: JsonObject) -> GoogleAnswer:
        """The answer of an API to a body."""
        return self._ask("POST", api, path, json=body)

    def _ask(self, method: str, api: str, path: str, **options: Any) -> GoogleAnswer:
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        url = f"https://{api}.{self.universe}{path}"
        limits = {"timeout": REQUEST_S, "max_allowed_time": REQUEST_S}
        try:
            answer = call_within(TOTAL_S, partial(self.request, method, url, **limits, **options))
        except (RequestException, GoogleAuthError, TimeoutError) as error:
            return GoogleAnswer(status=NOT_ANSWERED, body={"error": {"message": f"{type(error).__name__}: {error}"}})
        try:
            body = load_json(answer.content)
        except ValueError:
            body = {"error": {"message": answer.text[:200]}}
        return GoogleAnswer(status=answer.status_code, body=body if isinstance(body, dict) else {})


@contextmanager
def google_rest(conn_id: str) -> Iterator[GoogleRest]:
    """Google's REST APIs with the account of a connection. Raises InputRefused if it is invalid, ClusterRefused."""
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    from google.auth.transport.requests import AuthorizedSession

    from slipway.google import google_errors, token_request

    with google_errors(f"connection {conn_id}", conn_id):
        credentials = GoogleBaseHook(gcp_conn_id=conn_id).get_credentials()
    session = AuthorizedSession(credentials, auth_request=token_request())  # type: ignore[no-untyped-call]  # Google left it untyped
    bound_session(session)
    try:
        yield GoogleRest(_account(credentials), session.request, credentials.universe_domain)
    finally:
        session.close()  # type: ignore[no-untyped-call]  # likewise


def _account(credentials: Any) -> str | None:
    account = getattr(credentials, "service_account_email", None)
    return account if account and "@" in account else None  # a machine's own account reads `default` at first
